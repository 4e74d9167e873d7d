package cache

import (
	"encoding/binary"
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
	swept  int64 // when those that had ended were last removed
	all    int64 // until when every key is fenced; 0: not so
}

// fence is one fenced key.
type fence struct {
	until   int64
	awaited int   // statements that have not been answered
	wrote   int64 // the highest version that one of them is known to have written; 0: none
}

func (f *fences) init(maxAge time.Duration) {
	f.maxAge = maxAge
	f.keys = make(map[Key]fence)
}

func (f *fences) slot(key *Key) *atomic.Int32 {
	return &f.slots[binary.LittleEndian.Uint16(key[:])%uint16(len(f.slots))]
}

// fenced reports whether a key is fenced.
func (f *fences) fenced(key *Key, clock Clock) bool {
	if f.slot(key).Load() == 0 {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := clock.Now().Mono
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

// raise fences a key, or prolongs its fence, and changes what is known of its statements.
func (f *fences) raise(key *Key, now int64, change func(*fence)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	one, ok := f.keys[*key]
	if !ok {
		f.makeRoom(now)
		f.slot(key).Add(1)
	}
	one.until = after(now, f.maxAge)
	change(&one)
	f.keys[*key] = one
}

// answered counts a statement as answered. One that wrote nothing leaves no fence behind.
func (f *fences) answered(key *Key, version int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	one, ok := f.keys[*key]
	if !ok {
		return
	}
	one.awaited = max(0, one.awaited-1)
	one.wrote = max(one.wrote, version)
	if one.awaited == 0 && one.wrote == 0 {
		f.remove(key)
		return
	}
	f.keys[*key] = one
}

// heard lifts a fence once a notification proves that the transactions that wrote the key have
// ended: they held its lock, so a version not below theirs was committed by them or after them. A
// notification of a lower one is of an earlier writer, whom they waited for.
func (f *fences) heard(key *Key, version int64) {
	if f.slot(key).Load() == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if one, ok := f.keys[*key]; ok && one.awaited == 0 && version >= one.wrote {
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
}

// BeginTx fences a key. Call it before the statement is sent. If neither method of what it returns
// is called, as the statement's fate is not known, the fence stays for MaxAge, and so it does if the
// transaction is rolled back.
func (c *Cache[V]) BeginTx(key Key) TxWrite[V] {
	if !c.without(ruleTxFence) {
		c.fences.raise(&key, c.clock.Now().Mono, func(one *fence) { one.awaited++ })
	}
	return TxWrite[V]{c, key}
}

// Wrote takes the version that the statement wrote: hearing of it lifts the fence.
func (w TxWrite[V]) Wrote(version int64) { w.cache.fences.answered(&w.key, version) }

// WroteNothing says that the statement changed nothing.
func (w TxWrite[V]) WroteNothing() { w.cache.fences.answered(&w.key, 0) }

// EndedInTx fences the sessions that a statement in a transaction of the caller's says it has ended.
// Call it before the caller can commit.
func (c *Cache[V]) EndedInTx(sessions []Version) {
	if c.without(ruleTxFence) {
		return
	}
	now := c.clock.Now().Mono
	for _, s := range sessions {
		c.fences.raise(&s.Key, now, func(one *fence) { one.wrote = max(one.wrote, s.Version) })
	}
}
