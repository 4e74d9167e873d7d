package main

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession/internal/postgres"
)

var server *postgres.Server

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	var err error
	if server, err = postgres.Start(context.Background(), postgres.Options{Private: true}); err != nil {
		panic(err)
	}
	defer func() { _ = server.Stop() }()
	return m.Run()
}

func databaseURL(t *testing.T) string {
	t.Helper()
	url, drop, err := server.CreateDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(drop)
	return url
}

// What they find at such a scale is not checked, but that they find it, and that it is kept with the settings that
// the server had.
func TestTheBenchmarksOfGrowthLeaveTheirResults(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"growth", "prune", "day", "wal"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts, err := parse(name, []string{
				"-sessions", "2000", "-small", "500", "-calls", "200", "-quiet", "500ms",
				"-users", "50", "-day", "3s", "-results", t.TempDir(),
			})
			if err != nil {
				t.Fatal(err)
			}
			err = benchmarks(opts)[name].measure(t.Context(), databaseURL(t), opts)
			if err != nil && !errors.Is(err, errBeyondLimit) {
				t.Error(err)
			}
			res, err := loadResults(opts.results, name)
			if err != nil || res == nil || len(res.Lines) == 0 || res.Machine.Settings["shared_buffers"] == "" {
				t.Fatalf("it left %+v, %v", res, err)
			}
			if name != "day" {
				return
			}
			shares := map[string]int{}
			for _, c := range res.Curves {
				if c.Plot == hotPlot {
					shares[c.Name] = len(c.Y)
				}
			}
			if len(shares) != len(dayRivals()) || shares[oursName] == 0 {
				t.Errorf("the HOT shares over time are of %v", shares)
			}
		})
	}
}

// Alone: what runs beside it may keep old versions from being removed, and touches from being HOT.
func TestTouchesAreCountedApart(t *testing.T) {
	for _, want := range []struct {
		name string
		hot  bool
	}{{"pgsession", true}, {"scs", false}} {
		t.Run(want.name, func(t *testing.T) {
			ctx, url := t.Context(), databaseURL(t)
			pool, err := pgxpool.New(ctx, url)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			// The idle timeout takes 4 s, so that a touch after 200 ms moves the deadline by enough to be written.
			c := &clock{start: time.Now(), speed: float64(idleTimeout / (4 * time.Second))}
			var r rival
			for _, r = range dayRivals() {
				if r.name == want.name {
					break
				}
			}
			at := place{url: url, pool: pool, clients: 2, clock: c}
			if err := r.setup(ctx, at); err != nil {
				t.Fatal(err)
			}
			store, err := r.open(ctx, at)
			if err != nil {
				t.Fatal(err)
			}
			counter, err := newTouchCounter(ctx, at, r)
			if err != nil {
				t.Fatal(err)
			}
			defer counter.pool.Close()
			const n = 20
			for i := range n { // by another connection, which is not counted
				if err := store.write(ctx, key(i), document(int32(i), 0)); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(250 * time.Millisecond)
			for i := range n {
				if err := counter.touch(ctx, key(i), document(int32(i), 0)); err != nil {
					t.Fatal(err)
				}
			}
			all, hot := counter.all.Load(), counter.hot.Load()
			if all < n-5 || all > n { // a report takes one away, once a second
				t.Errorf("%d of %d touches counted", all, n)
			}
			if want.hot && hot != all || !want.hot && hot != 0 {
				t.Errorf("%d of %d are HOT", hot, all)
			}
		})
	}
}

func TestTheMixIsTheSameForTheSameSeedAndInOrder(t *testing.T) {
	t.Parallel()
	a, b := newMix(7, 200, 2, 3), newMix(7, 200, 2, 3)
	alive := map[int32]bool{}
	for _, s := range a.standing {
		if s.lastUsed >= 0 || s.lastUsed+idleTimeout <= 0 || s.created > s.lastUsed {
			t.Errorf("session %d cannot be there at the start", s.session)
		}
		if alive[s.session] {
			t.Errorf("session %d is there twice", s.session)
		}
		alive[s.session] = true
	}
	var deeds [destroy + 1]int
	for w, events := range a.workers {
		if len(events) != len(b.workers[w]) {
			t.Fatalf("%d events, and %d for the same seed", len(events), len(b.workers[w]))
		}
		var last time.Duration
		for i, e := range events {
			if e != b.workers[w][i] {
				t.Fatal("another event for the same seed")
			}
			if e.at < last {
				t.Fatal("events are out of order")
			}
			last = e.at
			deeds[e.deed]++
			switch e.deed {
			case create, login:
				if e.deed == login && !alive[e.from] {
					t.Errorf("session %d is replaced, and not there", e.from)
				}
				alive[e.session], alive[e.from] = true, alive[e.from] && e.deed == create
			default:
				if !alive[e.session] {
					t.Errorf("session %d is used, and not there", e.session)
				}
				alive[e.session] = e.deed != destroy
			}
		}
	}
	for d, n := range deeds {
		if n == 0 {
			t.Errorf("no deed %d", d)
		}
	}
}
