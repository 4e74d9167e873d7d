package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
)

// instance is a store with a pool of its own.
func instance(ctx context.Context, url string, cfg pgsession.Config) (*pgsession.Store, *pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, nil, err
	}
	config.MaxConns = 40
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, nil, err
	}
	cfg.Schema, cfg.Listen = "pgsession_bench", pgsession.ListenFrom(pool)
	cfg.Cleanup.Mode = pgsession.CleanupOff
	store, err := pgsession.New(pool.Query, cfg)
	if err != nil {
		pool.Close()
		return nil, nil, err
	}
	return store, pool, store.Setup(ctx)
}

// delay measures the time from the return of Set on one instance until the cached Get of
// another one shows it, at 500 updates a second.
func delay(ctx context.Context, url string) error {
	a, poolA, err := instance(ctx, url, pgsession.Config{})
	if err != nil {
		return err
	}
	defer poolA.Close()
	defer a.Close()
	b, poolB, err := instance(ctx, url, pgsession.Config{})
	if err != nil {
		return err
	}
	defer poolB.Close()
	defer b.Close()
	defer dropSchema(ctx, poolA)
	if err := awaitLive(ctx, a, b); err != nil {
		return err
	}
	token, _, err := a.Create(ctx, pgsession.Session{Data: make([]byte, dataSize)})
	if err != nil {
		return err
	}
	const updates = 5000
	delays := make([]time.Duration, 0, updates)
	next := time.Now()
	var hits int
	for n := range uint64(updates) {
		next = next.Add(2 * time.Millisecond)
		time.Sleep(time.Until(next))
		if _, err := b.Get(ctx, token); err != nil { // so that there is something to invalidate
			return err
		}
		data := make([]byte, dataSize)
		binary.BigEndian.PutUint64(data, n+1)
		if _, err := a.Set(ctx, token, pgsession.Session{Data: data}); err != nil {
			return err
		}
		start := time.Now()
		for {
			seen, err := b.Get(ctx, token)
			if err != nil {
				return err
			}
			if binary.BigEndian.Uint64(seen.Data) == n+1 {
				break
			}
			hits++
			time.Sleep(20 * time.Microsecond) // the listener needs a processor too
		}
		delays = append(delays, time.Since(start))
	}
	slices.Sort(delays)
	fmt.Printf("from Set's return to another instance's cached Get: p50 %v, p99 %v (at most 2ms), worst %v; %d stale hits\n",
		delays[updates/2], delays[updates*99/100], delays[updates-1], hits)
	return nil
}

// updates compares the throughput of updates in the three modes of Config.Notify, where a commit takes a
// millisecond, with one more instance that listens.
func updates(ctx context.Context, url string) error {
	modes := []struct {
		name string
		mode pgsession.NotifyMode
	}{{"off", pgsession.NotifyOff}, {"grouped", pgsession.NotifyGrouped}, {"in the transaction", pgsession.NotifyInTx}}
	first, pool, err := instance(ctx, url, pgsession.Config{})
	if err != nil {
		return err
	}
	defer pool.Close()
	defer first.Close()
	defer dropSchema(ctx, pool)
	var tokens []pgsession.Token
	for i := range 1000 {
		token, _, err := first.Create(ctx, pgsession.Session{Data: payload(-1 - i)})
		if err != nil {
			return err
		}
		tokens = append(tokens, token)
	}
	if err := first.Close(); err != nil {
		return err
	}
	rates, ratios := make([][]float64, len(modes)), make([][]float64, len(modes))
	var writes int
	for range 11 {
		for i, m := range modes {
			rate, err := updateRate(ctx, url, m.mode, tokens, writes)
			if err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			writes += 1 << 20
			rates[i] = append(rates[i], rate)
			ratios[i] = append(ratios[i], rate/rates[0][len(rates[0])-1])
		}
	}
	for i, m := range modes {
		slices.Sort(ratios[i])
		fmt.Printf("%-20s %8.0f updates/s  %.2f (%.2f to %.2f) x off\n",
			m.name, median(rates[i]), median(ratios[i]), ratios[i][1], ratios[i][len(ratios[i])-2])
	}
	fmt.Printf("grouped: at least %.2f x off\n", groupedLimit)
	if median(ratios[1]) < groupedLimit {
		return fmt.Errorf("%w: updates", errBeyondLimit)
	}
	return nil
}

const groupedLimit = 0.75

// updateRate is how many updates a second one instance does, which alone listens.
func updateRate(ctx context.Context, url string, mode pgsession.NotifyMode, tokens []pgsession.Token, base int) (float64, error) {
	store, pool, err := instance(ctx, url, pgsession.Config{Notify: mode})
	if err != nil {
		return 0, err
	}
	defer pool.Close()
	defer store.Close()
	if err := awaitLive(ctx, store); err != nil {
		return 0, err
	}
	return storeRate(ctx, store, tokens, 32, base, time.Second)
}

// storeRate is how many updates a second some goroutines do with a store. Their data are of the
// 2^20 numbers from base on.
func storeRate(
	ctx context.Context, store *pgsession.Store, tokens []pgsession.Token, goroutines, base int, d time.Duration,
) (float64, error) {
	update := func(ctx context.Context, n int) error {
		_, err := store.Set(ctx, tokens[n%len(tokens)], pgsession.Session{Data: payload(base + n)})
		return err
	}
	if _, err := measure(ctx, goroutines, 300*time.Millisecond, update); err != nil { // connections and plans
		return 0, err
	}
	base += 1 << 19
	m, err := measure(ctx, goroutines, d, update)
	return float64(goroutines) / m.perCall.Seconds(), err
}
