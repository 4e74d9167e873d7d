package cache

import (
	"sync/atomic"
	"unsafe"
)

// Refusal is a reason not to keep a reply.
type Refusal int

// The reasons, one for each condition of the rule fill.
const (
	kept                Refusal = iota
	RefusedNotAlive             // there is no such session
	RefusedViaRenewed           // it was reached through a renewed token
	RefusedNotCacheable         // the server said so
	RefusedServer               // no listener hears that server
	RefusedEpoch                // it began in an earlier epoch
	RefusedFence                // a transaction of the caller's has written it
	RefusedFloor                // a later version was heard of meanwhile
	RefusedDead                 // it may have changed meanwhile
	RefusedSubject              // its subject's sessions were revoked meanwhile
	RefusedOlder                // what is cached is newer
	RefusedLarge                // it would take too great a share
	RefusedExpired              // its time was over when the reply came
	refusals
)

func (r Refusal) String() string {
	return [refusals]string{
		"kept", "not alive", "via renewed", "not cacheable", "server", "epoch", "fence", "floor", "dead",
		"subject", "older", "large", "expired",
	}[r]
}

// Stats is what a cache has done and what it holds.
type Stats struct {
	Hits, Misses  uint64
	Joins, Loads  uint64 // of the misses: joined a load, and loads begun
	LoadErrors    uint64
	NotLive       uint64 // of the misses: while not live
	Heard         uint64 // notifications
	Invalidations uint64 // entries dropped since they changed
	Evictions     uint64 // entries dropped for room
	Epochs        uint64 // times that everything was dropped
	EndedReplies  uint64 // replies that showed sessions this process had ended
	Refused       map[Refusal]uint64
	Entries       int
	Bytes         uint64 // their weight
	Fences        int
}

// counts are Stats' under Cache.mu.
type counts struct {
	misses, joins, loads, loadErrors, notLive, heard, invalidations, epochs, endedReplies uint64
	refused                                                                               [refusals]uint64
}

// Stats returns the counts since [New].
func (c *Cache[V]) Stats() Stats {
	c.mu.Lock()
	n := c.counts
	c.mu.Unlock()
	s := Stats{
		Hits: c.hits.sum(), Misses: n.misses, Joins: n.joins, Loads: n.loads, LoadErrors: n.loadErrors,
		NotLive: n.notLive, Heard: n.heard, Invalidations: n.invalidations, Evictions: c.entries.evicted(),
		Epochs: n.epochs, EndedReplies: n.endedReplies, Refused: make(map[Refusal]uint64),
		Fences: c.fences.count(),
	}
	s.Entries, s.Bytes = c.entries.size()
	for why, count := range n.refused {
		if count > 0 {
			s.Refused[Refusal(why)] = count
		}
	}
	return s
}

// striped is a counter that goroutines add to without meeting: one atomic for all would cost more
// than a hit.
type striped struct {
	stripes [64]struct {
		n atomic.Uint64
		_ [56]byte
	}
}

// add counts one, in a stripe chosen by where the goroutine's stack is.
func (s *striped) add() {
	var here byte
	const golden = 0x9e3779b97f4a7c15
	stack := uint64(uintptr(unsafe.Pointer(&here))) >> 11
	s.stripes[stack*golden>>58].n.Add(1)
}

func (s *striped) sum() (n uint64) {
	for i := range s.stripes {
		n += s.stripes[i].n.Load()
	}
	return n
}
