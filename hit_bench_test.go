package pgsession_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// BenchmarkHit is of reads from memory, of some sessions at random, hashing of the token included. The tokens
// stand one after the other, as a request's is in the processor's cache when it has been parsed.
func BenchmarkHit(b *testing.B) {
	store := hitStore(b, nil)
	ctx := context.Background()
	all := make([]pgsession.Token, 10_000)
	for i := range all {
		var err error
		if all[i], _, err = store.Create(ctx, pgsession.Session{Data: make([]byte, 400)}); err != nil {
			b.Fatal(err)
		}
	}
	reads := map[string]func(pgsession.Token) error{
		"view": func(token pgsession.Token) error { return store.View(ctx, token, look) },
		"get":  func(token pgsession.Token) error { _, err := store.Get(ctx, token); return err },
	}
	const draws = 1 << 16
	for _, sessions := range []int{1, 1000, len(all)} {
		tokens := make([]pgsession.Token, draws)
		for i := range tokens {
			tokens[i] = pgsession.Token([]byte(all[rand.IntN(sessions)]))
		}
		for name, read := range reads {
			for _, goroutines := range []int{1, 2, 4, 8} {
				b.Run(fmt.Sprintf("%s/sessions=%d/goroutines=%d", name, sessions, goroutines), func(b *testing.B) {
					b.ReportAllocs()
					if goroutines == 1 {
						for i := 0; b.Loop(); i++ {
							if err := read(tokens[i%draws]); err != nil {
								b.Fatal(err)
							}
						}
						return
					}
					b.SetParallelism(max(1, goroutines/runtime.GOMAXPROCS(0)))
					b.RunParallel(func(pb *testing.PB) {
						for i := rand.IntN(draws); pb.Next(); i++ {
							if err := read(tokens[i%draws]); err != nil {
								b.Error(err)
							}
						}
					})
				})
			}
		}
	}
}

// hitStore is a store that is live, until the benchmark's end.
func hitStore(b *testing.B, peppers []pgsession.Secret) *pgsession.Store {
	b.Helper()
	address := pgtest.Database(b)
	cfg := fastListening(address)
	cfg.Cache.MaxAge = time.Hour
	cfg.Peppers, cfg.Cleanup, cfg.Logger = peppers, withoutCleanup, slog.New(slog.DiscardHandler)
	store, err := pgsession.New(pgtest.Connect(b, address).Query, cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = store.Close() }) // always nil
	if err := store.Setup(b.Context()); err != nil {
		b.Fatal(err)
	}
	for !store.Stats().Notify.Live {
		time.Sleep(time.Millisecond)
	}
	return store
}
