package cache

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
)

// Key is a session's: the SHA-256 of its token, or of its id where a key function makes ids.
type Key [32]byte

// Subject is a hash of whom a session belongs to; 0 is nobody. Two subjects with one hash cost a
// needless reload, never a stale read.
type Subject uint64

// Reply is what the server answered about one session.
type Reply[V any] struct {
	// Alive: there is such a session, neither expired nor ended. Otherwise the rest but Private is ignored.
	Alive bool
	// RenewedTo: it was asked for by a token that was renewed, and is the session of this key. Else
	// zero.
	RenewedTo Key
	// Cacheable: the server said that what it answered had been committed by the snapshot that it
	// read: no transaction of the caller's, read committed, not in recovery.
	Cacheable bool
	// Private: it may show what only the request that asked sees, in a transaction of its own, and so is for
	// nobody who joined the load.
	Private bool
	// Server is the identity of the server that answered.
	Server string
	// Version is the session's. One version of a session has one content, for ever.
	Version int64
	// Subject is whom it belongs to.
	Subject Subject
	// Remaining is how long it lives if nobody uses it, by the server's clock when it answered.
	Remaining time.Duration
	// Value is handed to many readers at once and never changed.
	Value V
	// Size is what Value holds beyond itself, in bytes.
	Size int
}

func (r *Reply[V]) viaRenewed() bool { return r.RenewedTo != Key{} }

// entry is one cached session. It never changes: whoever reads one needs no lock. What a hit looks at
// lies together, on a cache line or two.
type entry[V any] struct {
	seq     uint64 // of the operation that brought it
	until   int64  // the earlier of t0 + MaxAge and ends
	slot    uint16 // of its subject
	weight  uint32 // in bytes
	value   V
	ends    int64 // the session's deadline
	version int64
}

// entryOverhead is what an entry costs beyond its value's Size: itself, the map's node, its share of
// the table and of the frequency sketch.
const entryOverhead = 256

// largestShare of the capacity is what one entry may take: a larger one would drive out too many.
const largestShare = 64

// entries is the bounded map. Every method may be called by many goroutines at once; what must not
// be interleaved is done under Cache.mu.
type entries[V any] interface {
	get(Key) *entry[V] // counts as a use
	peek(Key) *entry[V]
	set(Key, *entry[V])
	drop(Key)
	evicted() uint64
	size() (count int, weight uint64)
}

// otterEntries is a map by otter, bounded by weight. otter's loader and its expiry are not used: it
// reloads after each overtaking invalidation, neither of its ways to invalidate fences an absent
// key's load, and an expiry calculator doubles the cost of a hit.
type otterEntries[V any] struct {
	cache     *otter.Cache[Key, *entry[V]]
	evictions atomic.Uint64
}

func newOtterEntries[V any](capacity int64) (*otterEntries[V], error) {
	m := new(otterEntries[V])
	var err error
	m.cache, err = otter.New(&otter.Options[Key, *entry[V]]{
		MaximumWeight: uint64(capacity),
		Weigher:       func(_ Key, e *entry[V]) uint32 { return e.weight },
		OnAtomicDeletion: func(event otter.DeletionEvent[Key, *entry[V]]) {
			if event.Cause == otter.CauseOverflow {
				m.evictions.Add(1)
			}
		},
	})
	return m, err
}

func (m *otterEntries[V]) get(key Key) *entry[V] {
	e, _ := m.cache.GetIfPresent(key)
	return e
}

func (m *otterEntries[V]) peek(key Key) *entry[V] {
	e, _ := m.cache.GetEntryQuietly(key)
	return e.Value
}

func (m *otterEntries[V]) set(key Key, e *entry[V]) { m.cache.Set(key, e) }
func (m *otterEntries[V]) drop(key Key)             { m.cache.Invalidate(key) }
func (m *otterEntries[V]) evicted() uint64          { return m.evictions.Load() }

func (m *otterEntries[V]) size() (count int, weight uint64) {
	return m.cache.EstimatedSize(), m.cache.WeightedSize()
}

// weigh is an entry's weight, and whether it is small enough to be kept.
func (c *Cache[V]) weigh(size int) (weight uint32, ok bool) {
	total := int64(size) + entryOverhead
	if size < 0 || total > c.cfg.Capacity/largestShare || total > math.MaxUint32 {
		return 0, false
	}
	return uint32(total), true
}
