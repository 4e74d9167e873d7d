package pgsession

import (
	"sync/atomic"
	"time"
)

// Stats are counts since the store was made, of this instance alone.
type Stats struct {
	Gets      int64 // reads of one session, those of Update included
	Creates   int64 // sessions created by Create
	Sets      int64 // writes: Create, Set, and each attempt of Update
	Unchanged int64 // of them, those that found the content byte-equal
	Conflicts int64 // of them, those that met another version
	Touches   int64 // calls of Touch
	Destroys  int64 // calls of Destroy
	Revokes   int64 // calls of Revoke
	Retries   int64 // statements run again after a serialization failure

	Prunes       int64     // cycles of the ticker that pruned
	PrunesLeft   int64     // cycles that left the work to another instance
	PrunesFailed int64     // cycles that failed
	Pruned       int64     // rows deleted, by the ticker and by Prune
	LastPrune    time.Time // end of the last cycle that pruned, by this machine's clock; zero: none yet
}

type counters struct {
	gets, creates, sets, unchanged, conflicts, touches, destroys, revokes, retries atomic.Int64
	prunes, prunesLeft, prunesFailed, pruned, lastPrune                            atomic.Int64
}

// Stats returns the counts. They are read one by one, so they need not add up while calls run.
func (s *Store) Stats() Stats {
	c := &s.store.stats
	stats := Stats{
		Gets:         c.gets.Load(),
		Creates:      c.creates.Load(),
		Sets:         c.sets.Load(),
		Unchanged:    c.unchanged.Load(),
		Conflicts:    c.conflicts.Load(),
		Touches:      c.touches.Load(),
		Destroys:     c.destroys.Load(),
		Revokes:      c.revokes.Load(),
		Retries:      c.retries.Load(),
		Prunes:       c.prunes.Load(),
		PrunesLeft:   c.prunesLeft.Load(),
		PrunesFailed: c.prunesFailed.Load(),
		Pruned:       c.pruned.Load(),
	}
	if at := c.lastPrune.Load(); at != 0 {
		stats.LastPrune = time.Unix(0, at)
	}
	return stats
}
