package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
)

// pruning prunes a table of which the half has expired, while traffic runs.
func pruning(ctx context.Context, url string, res *results, opts options) error {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return err
	}
	config.MaxConns = trafficClients + 4 // so that nobody waits for a connection
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	p := population{
		schema: "pgsession_expired", sessions: opts.sessions, expired: true, scattered: opts.scattered, batch: opts.batch,
	}
	store, err := p.fill(ctx, pool, opts.keep)
	if err != nil {
		return err
	}
	defer store.Close()
	if !opts.keep {
		defer func() { _ = p.drop(context.WithoutCancel(ctx), pool) }()
	}

	traffic := startTraffic(ctx, store, p.sessions)
	defer traffic.cancel()
	if err := traffic.wait(ctx, opts.quiet/4); err != nil { // plans, and the upper pages of indexes
		return err
	}
	traffic.take()
	if err := traffic.wait(ctx, opts.quiet*3/4); err != nil {
		return err
	}
	quiet := traffic.take()
	start := time.Now()
	pruned, err := store.Prune(ctx)
	if err != nil {
		return err
	}
	elapsed := time.Since(start)
	busy := traffic.take()
	if err := traffic.stop(); err != nil {
		return err
	}

	rate := float64(pruned) / elapsed.Seconds()
	ratio := float64(busy.p99) / float64(quiet.p99)
	res.printf("pruned %d of %d rows in %.1f s: %.0f rows/s, at least 100000", pruned, p.sessions, elapsed.Seconds(), rate)
	res.printf("Get before: %v; during: %v; p99 %.2f x, at most 2", quiet, busy, ratio)
	var beyond error
	if rate < 100_000 {
		beyond = fmt.Errorf("%w: prune's rate", errBeyondLimit)
	}
	if ratio > 2 {
		beyond = errors.Join(beyond, fmt.Errorf("%w: Get while prune runs", errBeyondLimit))
	}
	return beyond
}

const trafficClients = 4

// traffic is 500 requests a second to the living sessions, which are those of odd numbers: each gets
// and touches one, every tenth writes it. Beside it one client gets a session each millisecond, and
// notes how long that takes.
type traffic struct {
	cancel context.CancelFunc
	group  sync.WaitGroup
	failed atomic.Pointer[error]

	mu    sync.Mutex
	times []time.Duration
}

func startTraffic(ctx context.Context, store *pgsession.Store, sessions int) *traffic {
	ctx, cancel := context.WithCancel(ctx)
	t := &traffic{cancel: cancel}
	living := func() int { return rand.IntN(sessions/2)*2 + 1 }
	every := func(interval time.Duration, op func(n int) error) {
		t.group.Go(func() {
			next := time.Now()
			for n := 0; ctx.Err() == nil; n++ {
				if err := op(n); err != nil && ctx.Err() == nil {
					t.failed.CompareAndSwap(nil, &err)
					return
				}
				// What is late is not made up for: a burst would measure itself.
				if next = next.Add(interval); time.Until(next) < 0 {
					next = time.Now()
				}
				time.Sleep(time.Until(next))
			}
		})
	}
	for range trafficClients {
		every(trafficClients*2*time.Millisecond, func(n int) error {
			i := living()
			if _, err := store.GetFresh(ctx, token(i)); err != nil {
				return err
			}
			if n%10 == 0 {
				_, err := store.Set(ctx, token(i), pgsession.Session{Data: payload(n), Subject: subject(i)})
				return err
			}
			_, err := store.Touch(ctx, token(i))
			return err
		})
	}
	every(time.Millisecond, func(int) error {
		i := living()
		start := time.Now()
		_, err := store.GetFresh(ctx, token(i))
		took := time.Since(start)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.times = append(t.times, took)
		return err
	})
	return t
}

func (t *traffic) wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// take returns the percentiles since it was last called.
func (t *traffic) take() percentiles {
	t.mu.Lock()
	times := t.times
	t.times = nil
	t.mu.Unlock()
	return percentilesOf(times)
}

// stop ends the traffic, and returns why it ended by itself.
func (t *traffic) stop() error {
	t.cancel()
	t.group.Wait()
	if err := t.failed.Load(); err != nil {
		return *err
	}
	return nil
}

type percentiles struct{ p50, p99 time.Duration }

func percentilesOf(times []time.Duration) percentiles {
	if len(times) == 0 {
		return percentiles{}
	}
	slices.Sort(times)
	return percentiles{times[len(times)/2], times[len(times)*99/100]}
}

func (p percentiles) String() string {
	return fmt.Sprintf("p50 %.1f µs, p99 %.1f µs", float64(p.p50)/1e3, float64(p.p99)/1e3)
}
