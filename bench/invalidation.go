package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/pgsession/pgsession"
)

const delayLimit = 2 * time.Millisecond

// delay measures the time from the return of Set on one instance until the cached Get of
// another one shows it, at 500 updates a second.
func delay(ctx context.Context, url string, res *results, _ options) error {
	d, err := newDuo(ctx, url)
	if err != nil {
		return err
	}
	defer d.close(ctx)
	a, b := d.a, d.b
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
	p50, p99 := delays[updates/2], delays[updates*99/100]
	res.printf("from Set's return to another instance's cached Get: p50 %v, p99 %v (at most %v), worst %v; %d stale hits",
		p50.Round(time.Microsecond), p99.Round(time.Microsecond), delayLimit, delays[updates-1].Round(time.Microsecond), hits)
	if p99 > delayLimit {
		return fmt.Errorf("%w: delay", errBeyondLimit)
	}
	return nil
}

// updates compares the throughput of updates in the three modes of Config.Notify, where a commit takes a
// millisecond, with one more instance that listens, for several numbers of clients.
func updates(ctx context.Context, url string, res *results, opts options) error {
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
	var writes int
	var grouped float64 // with the most clients
	curves := make([]curve, len(modes))
	bar := newProgress(time.Duration(len(opts.clients)*opts.rounds*len(modes)) * 1200 * time.Millisecond)
	for _, clients := range opts.clients {
		rates, ratios := make([][]float64, len(modes)), make([][]float64, len(modes))
		for range opts.rounds {
			for i, m := range modes {
				bar.show(fmt.Sprintf("%d clients, %s", clients, m.name))
				rate, err := updateRate(ctx, url, m.mode, tokens, clients, writes)
				if err != nil {
					return fmt.Errorf("%s: %w", m.name, err)
				}
				writes += 1 << 20
				rates[i] = append(rates[i], rate)
				ratios[i] = append(ratios[i], rate/rates[0][len(rates[0])-1])
			}
		}
		bar.clear()
		for i, m := range modes {
			rate, ratio := spreadOf(rates[i]), spreadOf(ratios[i])
			res.printf("%2d clients  %-20s %8.0f updates/s  %.2f (%.2f to %.2f) x off",
				clients, m.name, rate.median, ratio.median, ratio.low, ratio.high)
			c := &curves[i]
			c.Plot, c.Name = "updates", m.name
			c.X, c.Y = append(c.X, float64(clients)), append(c.Y, rate.median)
			c.Low, c.High = append(c.Low, rate.low), append(c.High, rate.high)
			if m.mode == pgsession.NotifyGrouped {
				grouped = ratio.median
			}
		}
	}
	res.printf("grouped, %d clients: at least %.2f x off", opts.clients[len(opts.clients)-1], groupedLimit)
	res.Curves = curves
	if grouped < groupedLimit {
		return fmt.Errorf("%w: updates", errBeyondLimit)
	}
	return nil
}

const groupedLimit = 0.75

// updateRate is how many updates a second one instance does, which alone listens.
func updateRate(
	ctx context.Context, url string, mode pgsession.NotifyMode, tokens []pgsession.Token, clients, base int,
) (float64, error) {
	store, pool, err := instance(ctx, url, pgsession.Config{Notify: mode})
	if err != nil {
		return 0, err
	}
	defer pool.Close()
	defer store.Close()
	if err := awaitLive(ctx, store); err != nil {
		return 0, err
	}
	return storeRate(ctx, store, tokens, clients, base, 600*time.Millisecond)
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
