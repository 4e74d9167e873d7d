package pgsession

import (
	"sync/atomic"
	"time"
)

// Stats are counts since the store was made, of this instance alone, but for what Cleanup says of all.
type Stats struct {
	Gets      int64 // reads of one session, those of Update included
	Creates   int64 // sessions created by Create
	Sets      int64 // writes: Create, Set, Patch, and each attempt of Update
	Unchanged int64 // of them, those that found the content byte-equal
	Conflicts int64 // of them, those that met another version
	Touches   int64 // calls of Touch
	Renews    int64 // sessions that Renew gave a new token
	Reused    int64 // calls by a token that was renewed, after its grace
	Evicted   int64 // sessions ended by a login, for Config.MaxPerSubject
	Destroys  int64 // calls of Destroy
	Revokes   int64 // calls of Revoke
	Retries   int64 // statements run again after a serialization failure

	Prunes       int64     // cycles of the ticker, and batches of CleanupOpportunistic, that pruned
	PrunesLeft   int64     // cycles that left the work to another instance
	PrunesFailed int64     // cycles that failed
	Pruned       int64     // rows deleted by this instance
	LastPrune    time.Time // end of the last cycle that pruned, by this machine's clock; zero: none yet

	Cleanup CleanupStats
	Cache   CacheStats
	Notify  NotifyStats
}

// NotifyStats are of what was heard and published.
type NotifyStats struct {
	Listeners     int       // of Config.Listen and Config.Listeners
	Live          bool      // it is proved that notifications arrive, at all of them
	LiveSince     time.Time // by this machine's clock; zero: it is not live
	Connects      int64     // times that a listener began to listen, at first or again
	Heard         int64     // notifications, beats included
	Unknown       int64     // of them, those that this version does not know
	Published     int64     // sessions published by NotifyGrouped
	PublishFailed int64     // attempts at that which failed, and were repeated
}

// CacheStats are of what is served from memory; all zero without a cache.
type CacheStats struct {
	Live          bool  // it is proved that notifications arrive, and so the cache serves
	Hits          int64 // reads served from memory
	Misses        int64 // reads that were not
	Joined        int64 // of the misses, those that waited for another one's load
	NotLive       int64 // of the misses, those while it was not live
	Invalidations int64 // sessions dropped since they were changed
	Evictions     int64 // sessions dropped for room
	Resets        int64 // times that everything was dropped: at the loss of a listener, and when it is back
	Sessions      int   // in memory now
	Bytes         int64 // that they take
}

type counters struct {
	gets, creates, sets, unchanged, conflicts, touches, destroys, revokes, retries atomic.Int64
	renews, reused, evicted                                                        atomic.Int64
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
		Renews:       c.renews.Load(),
		Reused:       c.reused.Load(),
		Evicted:      c.evicted.Load(),
		Destroys:     c.destroys.Load(),
		Revokes:      c.revokes.Load(),
		Retries:      c.retries.Load(),
		Prunes:       c.prunes.Load(),
		PrunesLeft:   c.prunesLeft.Load(),
		PrunesFailed: c.prunesFailed.Load(),
		Pruned:       c.pruned.Load(),
	}
	if held := s.store.cache; held != nil {
		_, live := held.Live()
		got := held.Stats()
		stats.Gets += int64(got.Hits)
		stats.Cache = CacheStats{
			Live:          live,
			Hits:          int64(got.Hits),
			Misses:        int64(got.Misses),
			Joined:        int64(got.Joins),
			NotLive:       int64(got.NotLive),
			Invalidations: int64(got.Invalidations),
			Evictions:     int64(got.Evictions),
			Resets:        int64(got.Epochs),
			Sessions:      got.Entries,
			Bytes:         int64(got.Bytes),
		}
	}
	stats.Notify = s.store.notify.stats()
	stats.Cleanup = s.store.cleanup.get()
	if at := c.lastPrune.Load(); at != 0 {
		stats.LastPrune = time.Unix(0, at)
	}
	return stats
}

// health says whether it was started, whether it is proved that notifications arrive, and why not.
func (n *notifier) health() (started, live bool, reason error) {
	n.starting.Lock()
	started = n.started
	n.starting.Unlock()
	_, live = n.coherence.Live()
	n.mu.Lock()
	defer n.mu.Unlock()
	if reason = n.reason; reason == nil {
		reason = errSilent
	}
	return started, live, reason
}
