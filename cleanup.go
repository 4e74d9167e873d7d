package pgsession

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// clearBatch is how many sessions one statement of Clear ends.
const clearBatch = 10_000

// Clear ends every live session, in batches, and returns how many there were. A session that is
// created meanwhile may stay. An error may come after some were ended.
func (s *Store) Clear(ctx context.Context) (int64, error) {
	var total int64
	var after any
	for {
		var n int64
		var last string
		err := s.one(ctx, s.store.sql.clear, []any{s.store.cfg.tombstoneArg(), after, int64(clearBatch)}, &n, &last)
		if s.store.cache != nil && (err == nil || errors.Is(err, ErrInDoubt)) {
			s.store.cache.Cleared()
		}
		if err != nil {
			return total, &Error{Op: "clear", Err: err}
		}
		total += n
		if last == "" {
			return total, nil
		}
		after = last
	}
}

// Prune deletes expired sessions and old tombstones, in batches, and returns how many rows. It waits
// for another prune that is running. Calling it is never needed for correctness: expired sessions
// are gone for every reader at once. Rows may stay for a minute or two longer than their sessions:
// the index that finds them counts in minutes.
func (s *Store) Prune(ctx context.Context) (int64, error) {
	n, _, err := s.prune(ctx, true)
	if err != nil {
		return n, &Error{Op: "prune", Err: err}
	}
	return n, nil
}

func (s *Store) prune(ctx context.Context, wait bool) (total int64, busy bool, err error) {
	var from any
	for {
		var deleted, moved int64
		var next pgtype.Timestamptz // null: no more
		err := s.one(ctx, s.store.sql.prune, []any{int64(s.store.cfg.Cleanup.BatchSize), from, wait},
			&deleted, &moved, &next, &busy)
		if err != nil {
			return total, false, err
		}
		total += deleted
		s.store.stats.pruned.Add(deleted)
		if busy || !next.Valid {
			return total, busy, nil
		}
		from = next.Time
	}
}

// ticker is the goroutine that prunes. Many instances have one; the prune lock in the database lets
// one at a time work, batch by batch, and the others go back to sleep.
type ticker struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func (s *Store) startTicker() *ticker {
	ctx, cancel := context.WithCancel(context.Background())
	t := &ticker{cancel: cancel}
	t.done.Go(func() { s.tick(ctx) })
	return t
}

// stop ends the goroutine and waits for it. It may be called on nil, and again.
func (t *ticker) stop() {
	if t != nil {
		t.cancel()
		t.done.Wait()
	}
}

func (s *Store) tick(ctx context.Context) {
	log, stats := s.store.cfg.Logger, &s.store.stats
	interval := s.store.cfg.Cleanup.Interval
	// The first at any moment of an interval, so that instances that start together do not prune
	// together.
	timer := time.NewTimer(rand.N(interval))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		deleted, busy, err := s.prune(ctx, false)
		switch {
		case ctx.Err() != nil:
			return
		case sqlState(err) == codePermissionDenied:
			stats.prunesFailed.Add(1)
			log.LogAttrs(ctx, slog.LevelWarn, "pgsession: this role may not prune; leaving cleanup to others",
				slog.String("table", s.store.cfg.Table), slog.Any("error", err))
			return
		case err != nil:
			stats.prunesFailed.Add(1)
			log.LogAttrs(ctx, slog.LevelWarn, "pgsession: cleanup failed; it will be tried again",
				slog.String("table", s.store.cfg.Table), slog.Any("error", err))
		case busy:
			stats.prunesLeft.Add(1)
		default:
			stats.prunes.Add(1)
			stats.lastPrune.Store(time.Now().UnixNano())
			if deleted > 0 {
				log.LogAttrs(ctx, slog.LevelDebug, "pgsession: cleanup", slog.String("table", s.store.cfg.Table),
					slog.Int64("deleted", deleted))
			}
		}
		timer.Reset(interval - interval/10 + rand.N(interval/5+1))
	}
}
