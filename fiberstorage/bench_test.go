package fiberstorage_test

import (
	"crypto/rand"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/fiberstorage"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// BenchmarkOverhead reports what the storage adds to the store's own Get and Set, as the median of
// calls by turns, since the database varies more from one second to the next than the storage costs.
// It must be 2 µs at most.
func BenchmarkOverhead(b *testing.B) {
	store, err := pgsession.Open(b.Context(), pgtest.URL(b), pgsession.Config{Schema: pgtest.Schema(b)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = store.Close() })
	if err := store.Setup(b.Context()); err != nil {
		b.Fatal(err)
	}
	storage, err := fiberstorage.Sessions(store, fiberstorage.Options{})
	if err != nil {
		b.Fatal(err)
	}
	ctx := b.Context() // one that may end, as requests have: pgx does more for it
	data := make([]byte, 400)
	_, _ = rand.Read(data)
	key, other := rand.Text(), rand.Text() // so that neither meets a version of the other's
	if err := storage.Set(key, data, time.Hour); err != nil {
		b.Fatal(err)
	}
	n := 0
	change := func() []byte { n++; return fmt.Appendf(data[:0:0], "%d %s", n, data) }

	b.Run("Get from memory", func(b *testing.B) {
		compare(b, 100, func() error {
			_, err := storage.Get(key)
			return err
		}, func() error {
			_, err := store.Get(ctx, pgsession.Token(key))
			return err
		})
	})
	b.Run("Set", func(b *testing.B) {
		compare(b, 1, func() error { return storage.Set(key, change(), time.Hour) }, func() error {
			_, err := store.Set(ctx, pgsession.Token(other), pgsession.Session{Data: change(), IdleTimeout: time.Hour})
			return err
		})
	})
}

// compare calls both by turns, calls times in a row, and reports the medians.
func compare(b *testing.B, calls int, ours, theirs func() error) {
	took := [2][]float64{}
	sides := [2]func() error{ours, theirs}
	run := func(side int) {
		begin := time.Now()
		for range calls {
			if err := sides[side](); err != nil {
				b.Fatal(err)
			}
		}
		took[side] = append(took[side], float64(time.Since(begin))/float64(calls))
	}
	for b.Loop() {
		first := len(took[0]) % 2
		run(first)
		run(1 - first)
	}
	var median [2]float64
	for side := range took {
		slices.Sort(took[side])
		median[side] = took[side][len(took[side])/2]
	}
	b.ReportMetric(median[0], "ns/storage")
	b.ReportMetric(median[1], "ns/store")
	b.ReportMetric(median[0]-median[1], "ns/overhead")
	b.ReportMetric(0, "ns/op") // of both together: nothing to look at
}
