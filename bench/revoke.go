package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
)

const (
	revokedSessions = 100_000
	revokeReaders   = 2
	// The limits that the revocation of one subject is held to.
	revokeTime  = 5 * time.Second
	revokeRatio = 3.0
)

// revoke ends 100,000 sessions of one subject at once, while others' sessions are read from the
// database, and compares the reads' p99 with what it is when nothing else happens. It counts the
// locks that the revocation holds, too.
func revoke(ctx context.Context, url string, res *results, _ options) error {
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return err
	}
	defer pool.Close()
	store, err := pgsession.New(pool.Query, pgsession.Config{
		Schema: "pgsession_bench", Cleanup: pgsession.Cleanup{Mode: pgsession.CleanupOff},
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
	var ratios, seconds []float64
	for range 5 {
		took, idle, busy, locks, err := revokeOnce(ctx, pool, store, tokens)
		if err != nil {
			return err
		}
		res.printf("%d sessions of one subject ended in %v, with %d locks at most; GetFresh p99 %v, when idle %v",
			revokedSessions, took.Round(time.Millisecond), locks, busy, idle)
		ratios = append(ratios, float64(busy)/float64(idle))
		seconds = append(seconds, took.Seconds())
	}
	res.printf("medians: %.2f s (at most %v), p99 %.2f x idle (at most %.0f)",
		median(seconds), revokeTime, median(ratios), revokeRatio)
	if median(seconds) > revokeTime.Seconds() || median(ratios) > revokeRatio {
		return errBeyondLimit
	}
	return nil
}

func revokeOnce(
	ctx context.Context, pool *pgxpool.Pool, store *pgsession.Store, tokens []pgsession.Token,
) (took, idle, busy time.Duration, locks int, err error) {
	for _, sql := range []string{
		"delete from pgsession_bench.session where subject = 'ada' or revoked_at is not null",
		`insert into pgsession_bench.session (
		     version, created_at, expires_at, prune_after, idle_timeout, codec, id, subject, data)
		 select 1, now(), now() + '1 day', now() + '1 day 1 minute', '1 day', 0,
		        translate(rtrim(encode(sha256(convert_to('revoke ' || i, 'UTF8')), 'base64'), '='), '+/', '-_'),
		        'ada', decode(repeat('78', 400), 'hex')
		   from generate_series(1, 100000) as i`,
		"vacuum analyze pgsession_bench.session",
		"checkpoint",
	} {
		if _, err := pool.Exec(ctx, sql); err != nil {
			return 0, 0, 0, 0, err
		}
	}
	idle, err = p99(ctx, store, tokens, func() error { time.Sleep(2 * time.Second); return nil })
	if err != nil {
		return 0, 0, 0, 0, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var watch sync.WaitGroup
	watch.Go(func() {
		for ctx.Err() == nil {
			var n int
			if pool.QueryRow(ctx, "select count(*) from pg_locks").Scan(&n) == nil {
				locks = max(locks, n)
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	busy, err = p99(ctx, store, tokens, func() error {
		start := time.Now()
		n, err := store.Revoke(ctx, pgsession.Revocation{Subject: "ada"})
		took = time.Since(start)
		if err == nil && n != revokedSessions {
			err = fmt.Errorf("revoked %d", n)
		}
		return err
	})
	stop()
	watch.Wait()
	return took, idle, busy, locks, err
}

// p99 is that of reads from the database while during runs.
func p99(ctx context.Context, store *pgsession.Store, tokens []pgsession.Token, during func() error) (time.Duration, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var readers sync.WaitGroup
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	for i := range revokeReaders {
		readers.Go(func() {
			var took []time.Duration
			for n := i; ctx.Err() == nil; n++ {
				start := time.Now()
				_, err := store.GetFresh(ctx, tokens[n*7919%sessionCount])
				if err != nil {
					if ctx.Err() == nil {
						mu.Lock()
						failed = errors.Join(failed, err)
						mu.Unlock()
					}
					break
				}
				took = append(took, time.Since(start))
				time.Sleep(time.Millisecond) // requests, not a queue
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
		})
	}
	err := during()
	stop()
	readers.Wait()
	if err := errors.Join(err, failed); err != nil {
		return 0, err
	}
	slices.Sort(all)
	return all[len(all)*99/100], nil
}
