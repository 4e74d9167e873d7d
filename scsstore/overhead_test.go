package scsstore_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/webtest"
	"github.com/pgsession/pgsession/scsstore"
)

// What the store adds to a Get and to a Set, scs's codec excluded: go test -run '^$' -bench Overhead
// -benchtime 5000x. The session has 400 bytes; each Find is of another request, as scs's are.
func BenchmarkOverhead(b *testing.B) {
	pg := open(b, pgtest.Database(b), pgsession.Config{})
	store, err := scsstore.New(pg, scsstore.Options{})
	if err != nil {
		b.Fatal(err)
	}
	deadline := time.Now().Add(12 * time.Hour)
	var data [2][]byte
	for i := range data {
		text := strings.Repeat(fmt.Sprint(i), 360)
		if data[i], err = (scsstore.Codec{}).Encode(deadline, map[string]any{"user": "ada", "text": text}); err != nil {
			b.Fatal(err)
		}
	}
	request, end := context.WithCancel(b.Context())
	defer end()
	expiry := func() time.Time { return time.Now().Add(20 * time.Minute) }
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	must(store.CommitCtx(request, "token", data[0], expiry()))

	live(b, pg)
	b.Run("Find/cached", func(b *testing.B) {
		webtest.Overhead(b, func() {
			_, err := pg.Get(b.Context(), "token")
			must(err)
		}, func() {
			request, end := context.WithCancel(b.Context())
			_, _, err := store.FindCtx(request, "token")
			must(err)
			end()
		})
	})
	b.Run("Commit/changed", func(b *testing.B) {
		n, m := 0, 0 // each side changes its session with every call
		own, err := pg.Get(b.Context(), "token")
		must(err)
		must(store.CommitCtx(request, "other", data[0], expiry()))
		webtest.Overhead(b, func() {
			n++
			own.Data = data[n%2]
			own, err = pg.Set(b.Context(), "token", own)
			must(err)
		}, func() {
			m++
			must(store.CommitCtx(request, "other", data[m%2], expiry()))
		})
	})
	b.Run("Commit/unchanged", func(b *testing.B) { // beside a Touch
		must(store.CommitCtx(request, "other", data[0], expiry()))
		webtest.Overhead(b, func() {
			_, err := pg.Touch(b.Context(), "token")
			must(err)
		}, func() { must(store.CommitCtx(request, "other", data[0], expiry())) })
	})
}

// live waits until the store's cache serves.
func live(b *testing.B, pg *pgsession.Store) {
	b.Helper()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(time.Minute); !pg.Stats().Cache.Live; <-poll.C {
		if time.Now().After(deadline) {
			b.Fatal("the cache does not become live")
		}
	}
}
