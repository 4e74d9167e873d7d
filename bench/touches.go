package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
)

// The pace, scaled: an idle timeout of 20 s stands for 24 hours, so a second is 72 minutes. Each of
// the sessions is touched every 9 s or so, which is 11 hours of the scaled clock, for long enough
// that prune has to move each at least once.
const (
	touchCount   = 100_000
	touchIdle    = 20 * time.Second
	touchPeriod  = 95 * time.Second
	touchWorkers = 4
)

// touches measures the share of HOT updates among touches, apart from those of prune, which gives a
// living row that it meets a new prune_after.
func touches(ctx context.Context, url string, res *results, _ options) error {
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return err
	}
	defer pool.Close()
	store, err := pgsession.New(pool.Query, pgsession.Config{
		Schema: "pgsession_bench", IdleTimeout: touchIdle, TouchInterval: time.Second,
		Cleanup: pgsession.Cleanup{Mode: pgsession.CleanupOff},
	})
	if err != nil {
		return err
	}
	defer store.Close()
	defer dropSchema(ctx, pool)
	if err := setUp(ctx, pool, store); err != nil {
		return err
	}
	tokens, err := fill(ctx, store)
	if err != nil {
		return err
	}
	if _, err := pool.Exec(ctx, "vacuum analyze pgsession_bench.session"); err != nil {
		return err
	}
	before, err := readUpdates(ctx, pool)
	if err != nil {
		return err
	}

	var written, moved atomic.Int64
	var failed atomic.Pointer[error]
	fail := func(err error) { failed.CompareAndSwap(nil, &err) }
	running, stop := context.WithCancel(ctx)
	defer stop()

	var pruner sync.WaitGroup
	pruner.Go(func() {
		for running.Err() == nil {
			var m int64
			err := pool.QueryRow(ctx, "select moved from pgsession_bench.session_prune(1000)").Scan(&m)
			if err != nil {
				fail(err)
				return
			}
			moved.Add(m)
			select {
			case <-running.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	start := time.Now()
	var workers sync.WaitGroup
	for w := range touchWorkers {
		workers.Go(func() {
			for i := w; i < touchCount && failed.Load() == nil && ctx.Err() == nil; i += touchWorkers {
				due := start.Add(touchPeriod * time.Duration(i) / touchCount)
				time.Sleep(time.Until(due) + rand.N(5*time.Millisecond))
				if _, err := store.Touch(ctx, tokens[i*7919%sessionCount]); err != nil {
					fail(err)
					return
				}
				written.Add(1)
			}
		})
	}
	workers.Wait()
	stop()
	pruner.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	after, err := readUpdates(ctx, pool)
	if err != nil {
		return err
	}
	updates, hot := after.all-before.all-moved.Load(), after.hot-before.hot
	res.printf("touches %d, of them %d wrote, %d of those HOT: %.2f %%, at least 99; prune moved %d rows meanwhile",
		written.Load(), updates, hot, 100*float64(hot)/float64(updates), moved.Load())
	if float64(hot) < 0.99*float64(updates) {
		return fmt.Errorf("%w: touches", errBeyondLimit)
	}
	return nil
}

type updateCounts struct{ all, hot int64 }

// readUpdates reads the counts once all backends have reported theirs, which an idle one does within
// a second.
func readUpdates(ctx context.Context, pool *pgxpool.Pool) (c updateCounts, err error) {
	for last := int64(-1); ; {
		time.Sleep(1500 * time.Millisecond)
		err = pool.QueryRow(ctx, `select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables
		                          where schemaname = 'pgsession_bench' and relname = 'session'`).Scan(&c.all, &c.hot)
		if err != nil || c.all == last {
			return c, err
		}
		last = c.all
	}
}
