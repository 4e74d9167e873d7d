package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/pgsession/pgsession"
)

const (
	viewLimit   = 200 * time.Nanosecond // of one session
	getLimit    = 600 * time.Nanosecond // of as many as a processor's own cache holds
	getAllocs   = 2.0
	flatness    = 1.5 // times the processor's time with fewer goroutines: with a lock it would be some times that
	hitSlot     = 100 * time.Millisecond
	looping     = "loop" // calls nothing
	hitRivalPgx = "scs + pgxstore"
	hitRedis    = "Redis by go-redis"
)

// hits measures reads from memory: of one session, of a thousand and of ten thousand at random, by one
// goroutine to eight, beside a Redis's GET over loopback and scs's Find, in turns. A hit's time is that
// of a processor, hashing of the token included and the loop that calls it not: with more goroutines than
// processors they share those. Each turn begins with a while that is not counted, since what those before
// it left in the processor's cache is none of a hit's.
func hits(ctx context.Context, url string, res *results, opts options) error {
	b := &board{options: opts, results: res, progress: newProgress(opts.budget)}
	redis, _, stop, err := b.servers(ctx, url)
	if err != nil {
		return err
	}
	defer stop()
	a := arena{
		url: url, redis: redis, sessions: sessionCount, size: dataSize, clients: hitClients,
		only: []string{oursName, hitRivalPgx, hitRedis},
	}
	contenders := a.open(ctx, b.progress.show)
	defer func() {
		for _, c := range contenders {
			c.end()
		}
	}()
	for _, c := range contenders {
		if c.failed != nil {
			return fmt.Errorf("%w: %s: %w", errFailed, c.name, c.failed)
		}
	}
	b.describe(contenders)
	b.progress.clear()
	for _, sessions := range []int{1, 1000, sessionCount} {
		// With one goroutine the garbage is collected by a processor that has nothing else to do, so that it is
		// compared with two.
		busy := map[string]float64{}
		for _, goroutines := range []int{1, 2, 4, hitClients} {
			times, err := b.hits(ctx, contenders, sessions, goroutines)
			if err != nil {
				return err
			}
			for _, w := range []string{byView, byGet} {
				if goroutines <= 2 {
					busy[w] = times[w].median
				} else if times[w].median > flatness*busy[w] {
					b.beyond("%s of %d sessions by %d goroutines: %.2f x the time of two",
						w, sessions, goroutines, times[w].median/busy[w])
				}
			}
			if view := time.Duration(times[byView].median); sessions == 1 && view > viewLimit {
				b.beyond("View by %d goroutines takes %v, at most %v", goroutines, view, viewLimit)
			}
			// What many wait for is memory, which the limit is not of.
			if get := time.Duration(times[byGet].median); sessions <= 1000 && get > getLimit {
				b.beyond("Get of %d sessions by %d goroutines takes %v, at most %v", sessions, goroutines, get, getLimit)
			}
		}
	}
	return b.failed
}

// hits prints a line, and returns the times of our reads.
func (b *board) hits(ctx context.Context, contenders []*contender, sessions, goroutines int) (map[string]spread, error) {
	d := newDraws(sessions, dataSize, false)
	samples := map[string][]float64{} // by workload, and of rivals by their names
	ratios := map[string][]float64{}
	var allocs map[string]float64
	for round := -1; round < b.rounds; round++ {
		took := map[string]float64{}
		allocs = map[string]float64{}
		for i := range contenders {
			c := contenders[(i+round+1)%len(contenders)]
			if round < 0 {
				if err := c.draw(d); err != nil {
					return nil, err
				}
				if c.isCached() {
					if err := c.warm(ctx, d); err != nil {
						return nil, err
					}
				}
			}
			workloads := []string{byFresh} // the others' only read
			if c.isCached() {
				workloads = []string{looping, byView, byGet}
			}
			for _, w := range workloads {
				runtime.GC() // nobody pays for another's garbage
				var o outcome
				for _, duration := range []time.Duration{hitSlot / 5, hitSlot} {
					var err error
					if o, err = c.hits(ctx, load{workload: w, clients: goroutines, duration: duration}, d); err != nil {
						return nil, fmt.Errorf("%s: %w", c.name, err)
					}
				}
				name := c.name
				if c.isCached() {
					name = w
				}
				took[name] = o.perCall() * float64(min(goroutines, runtime.GOMAXPROCS(0)))
				allocs[name] = float64(o.Allocs) / float64(o.Calls)
			}
		}
		if round < 0 {
			continue
		}
		for _, w := range []string{byView, byGet} {
			took[w] -= took[looping]
		}
		for name, t := range took {
			samples[name] = append(samples[name], t)
		}
		for _, w := range []string{byView, byGet} {
			for _, rival := range []string{hitRivalPgx, hitRedis} {
				ratios[w+rival] = append(ratios[w+rival], took[rival]/took[w])
			}
		}
	}
	times := map[string]spread{}
	for name, s := range samples {
		times[name] = spreadOf(s)
	}
	for _, w := range []string{byView, byGet} {
		t := times[w]
		b.printf("%-4s of %6d sessions, %d goroutines: %4.0f ns (%.0f to %.0f), %.0f allocations; "+
			"Redis GET %3.0f x, scs Find %3.0f x", w, sessions, goroutines, t.median, t.low, t.high, allocs[w],
			median(ratios[w+hitRedis]), median(ratios[w+hitRivalPgx]))
	}
	if allocs[byView] >= 0.5 || allocs[byGet] > getAllocs+0.5 {
		b.beyond("%.1f allocations of a View, at most 0; %.1f of a Get, at most %.0f", allocs[byView], allocs[byGet], getAllocs)
	}
	return times, nil
}

// hits calls our store itself, and no more than a request would: its token is in the processor's cache,
// since it was just parsed, and so these stand one after the other in memory.
func (c *contender) hits(ctx context.Context, l load, d *draws) (outcome, error) {
	if !c.isCached() {
		return c.run(ctx, l)
	}
	tokens := make([]pgsession.Token, len(d.keys))
	for i, key := range d.keys {
		tokens[i] = pgsession.Token(key)
	}
	return l.run(ctx, func(client int) func(context.Context) error {
		store := c.stores[0].(ours).store // one instance's, which they all share
		n := len(tokens) / 64 * client
		next := func() pgsession.Token {
			if n++; n >= len(tokens) {
				n = 0
			}
			return tokens[n]
		}
		switch l.workload {
		case looping:
			return func(context.Context) error { return look(pgsession.Session{ID: pgsession.ID(next())}) }
		case byView:
			return func(ctx context.Context) error { return store.View(ctx, next(), look) }
		}
		return func(ctx context.Context) error {
			_, err := store.Get(ctx, next())
			return err
		}
	})
}

func look(pgsession.Session) error { return nil }

// beyond notes what is not as good as promised.
func (b *board) beyond(format string, args ...any) {
	b.failed = errors.Join(b.failed, fmt.Errorf("%w: %s", errBeyondLimit, fmt.Sprintf(format, args...)))
}
