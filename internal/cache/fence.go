package cache

import (
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// maxFences is how many keys may be fenced at a time, about 8 MB. Beyond it every key is.
const maxFences = 1 << 16

// fences is txFence: keys that transactions of the caller's have written, which are neither served
// nor filled until the notification that their commit sends is heard, or MaxAge has passed.
//
// A hit reads only slots: how many fenced keys fall into the same slot as its own. Only where there
// are any does it take the lock.
type fences struct {
	slots [1 << 10]atomic.Int32

	mu     sync.Mutex // after Cache.mu, where both are held
	maxAge time.Duration
	keys   map[Key]fence
	births int64
	swept  int64 // when those that had ended were last removed
	all    int64 // until when every key is fenced; 0: not so
}

// fence is one fenced key.
type fence struct {
	until   int64
	born    int64   // tells it from an earlier one of the key
	awaited []int64 // when each statement began that has not been answered
	wrote   int64   // the highest version that one of them is known to have written; 0: none
}

func (f *fences) init(maxAge time.Duration) {
	f.maxAge = maxAge
	f.keys = make(map[Key]fence)
}

func (f *fences) slot(key *Key) *atomic.Int32 {
	return &f.slots[binary.LittleEndian.Uint16(key[:])%uint16(len(f.slots))]
}

// maybe reports whether a key may be fenced. It is small enough to be inlined.
func (f *fences) maybe(key *Key) bool { return f.slot(key).Load() != 0 }

// fenced reports whether a key is fenced.
func (f *fences) fenced(key *Key, clock Clock) bool {
	if !f.maybe(key) {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := clock.Mono()
	if f.all != 0 {
		if now < f.all {
			return true
		}
		f.all = 0
		f.shiftAll(-1)
	}
	one, ok := f.keys[*key]
	if ok && now >= one.until {
		f.remove(key)
		return false
	}
	return ok
}

// begin fences a key for a statement that is about to be sent, and returns which fence it is.
func (f *fences) begin(key *Key, now int64) (born int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	one := f.raise(key, now)
	one.awaited = append(one.awaited, now)
	f.keys[*key] = one
	return one.born
}

// wrote fences a key for a statement that has written. One that waited long for the row's lock may
// have outlived the fence that it began with.
func (f *fences) wrote(key *Key, born, began, version, now int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	one := f.raise(key, now)
	one.answered(born, began)
	one.wrote = max(one.wrote, version)
	f.keys[*key] = one
}

// wroteNothing lifts a fence that no other statement needs.
func (f *fences) wroteNothing(key *Key, born, began int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	one, ok := f.keys[*key]
	if !ok {
		return
	}
	one.answered(born, began)
	if len(one.awaited) == 0 && one.wrote == 0 {
		f.remove(key)
		return
	}
	f.keys[*key] = one
}

func (one *fence) answered(born, began int64) {
	if i := slices.Index(one.awaited, began); one.born == born && i >= 0 {
		one.awaited = slices.Delete(one.awaited, i, i+1)
	}
}

// raise returns a key's fence, a new one if need be, for MaxAge from now.
func (f *fences) raise(key *Key, now int64) fence {
	one, ok := f.keys[*key]
	if !ok {
		f.makeRoom(now)
		f.slot(key).Add(1)
		f.births++
		one.born = f.births
	}
	one.until = after(now, f.maxAge)
	return one
}

// heard lifts a fence once a notification proves that the transactions that wrote the key have
// ended: they held its lock, so a version not below theirs was committed by them or after them. A
// notification of a lower one is of an earlier writer, whom they waited for. A statement in doubt is
// waited for until MaxAge, however long others keep the fence up.
func (f *fences) heard(key *Key, version, now int64, anyVersion bool) {
	if !f.maybe(key) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	one, ok := f.keys[*key]
	if !ok {
		return
	}
	one.awaited = slices.DeleteFunc(one.awaited, func(began int64) bool { return now >= after(began, f.maxAge) })
	f.keys[*key] = one
	if anyVersion || len(one.awaited) == 0 && version >= one.wrote {
		f.remove(key)
	}
}

func (f *fences) remove(key *Key) {
	delete(f.keys, *key)
	f.slot(key).Add(-1)
}

// makeRoom keeps the number of fences bounded. To begin an epoch instead would not do: what is
// loaded again before the transaction commits is as old as what was dropped.
func (f *fences) makeRoom(now int64) {
	if now >= after(f.swept, f.maxAge/4) {
		f.swept = now
		for key, one := range f.keys {
			if now >= one.until {
				f.remove(&key)
			}
		}
	}
	if len(f.keys) < maxFences {
		return
	}
	if f.all == 0 {
		f.shiftAll(1)
	}
	f.all = after(now, f.maxAge)
	for key := range f.keys {
		f.remove(&key)
	}
}

func (f *fences) shiftAll(by int32) {
	for i := range f.slots {
		f.slots[i].Add(by)
	}
}

func (f *fences) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.keys)
}

// TxWrite is a statement, in a transaction of the caller's, that writes one session.
type TxWrite[V any] struct {
	cache *Cache[V]
	key   Key
	born  int64
	began int64
}

// BeginTx fences a key. Call it before the statement is sent, and then one method of what it returns,
// once. If neither is called, as the statement's fate is not known, the fence stays for MaxAge, and
// so it does if the transaction is rolled back.
func (c *Cache[V]) BeginTx(key Key) TxWrite[V] {
	w := TxWrite[V]{cache: c, key: key, began: c.clock.Mono()}
	if !c.without(ruleTxFence) {
		w.born = c.fences.begin(&key, w.began)
	}
	return w
}

// Wrote takes the version that the statement wrote: hearing of it lifts the fence. Call it before the
// caller can commit.
func (w TxWrite[V]) Wrote(version int64) {
	if !w.cache.without(ruleTxFence) {
		w.cache.fences.wrote(&w.key, w.born, w.began, version, w.cache.clock.Mono())
	}
}

// WroteNothing says that the statement changed nothing.
func (w TxWrite[V]) WroteNothing() { w.cache.fences.wroteNothing(&w.key, w.born, w.began) }

// EndedInTx fences the sessions that a statement in a transaction of the caller's says it has ended.
// Call it before the caller can commit.
func (c *Cache[V]) EndedInTx(sessions []Version) {
	if c.without(ruleTxFence) {
		return
	}
	now := c.clock.Mono()
	for _, s := range sessions {
		c.fences.wrote(&s.Key, 0, 0, s.Version, now)
	}
}
