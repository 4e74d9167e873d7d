package pgsession_test

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

func TestAfterCloseEverythingIsClosedButABorrowedPool(t *testing.T) {
	t.Parallel()
	everyPool(t, pgsession.Config{}, func(t *testing.T, w *way) {
		store := w.tick(t, w.query, pgsession.Config{})
		tx := store.WithQuery(w.query)
		crowd(4, func(int) {
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		})
		must(t, store.Close())
		for _, op := range operations {
			err := op.call(t.Context(), store, "any")
			wantError(t, op.name, err, pgsession.ErrClosed)
			wantFailure(t, "closed", op.name, err, false)
		}
		wantError(t, "setup", store.Setup(t.Context()), pgsession.ErrClosed)
		_, err := tx.Set(t.Context(), "any", pgsession.Session{})
		wantError(t, "set in a transaction", err, pgsession.ErrClosed)
		if _, err := w.Set(t.Context(), "any", pgsession.Session{}); err != nil {
			t.Errorf("the borrowed pool: %v", err)
		}
	})
}

func TestCloseDuringEverything(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	cfg := pgsession.Config{
		Schema: w.schema, Logger: slog.New(slog.DiscardHandler), Cleanup: pgsession.Cleanup{Interval: time.Millisecond},
	}
	address := withParameter(t, pgtest.URL(t), "application_name", w.schema)
	for round := range 8 {
		open, err := pgsession.Open(t.Context(), address, cfg)
		must(t, err)
		borrowed, err := pgsession.New(w.query, cfg)
		must(t, err)
		for _, store := range []*pgsession.Store{open, borrowed} {
			closeAt := rand.N(40)
			crowd(8, func(worker int) {
				for i := 0; ; i++ {
					if worker < 2 && i == closeAt {
						if err := store.Close(); err != nil {
							t.Error(err)
						}
						return
					}
					op := operations[rand.N(len(operations))]
					err := op.call(t.Context(), store, seeded("any", rand.N(5)))
					if worker == 7 && i%10 == 0 {
						err = store.Setup(t.Context())
					}
					switch {
					case errors.Is(err, pgsession.ErrClosed):
						if errors.Is(err, pgsession.ErrInDoubt) {
							t.Errorf("round %d: Close left %s in doubt: %v", round, op.name, err)
						}
						if worker >= 2 {
							return
						}
					case err == nil, errors.Is(err, pgsession.ErrNotFound), errors.Is(err, pgsession.ErrRevoked):
					default:
						t.Errorf("round %d: %s: %v", round, op.name, err)
					}
				}
			})
		}
	}
	eventually(t, "all that Open opened is closed", func() bool {
		var n int
		must(t, w.admin.QueryRow(t.Context(), `select count(*) from pg_stat_activity where application_name = $1`, w.schema).Scan(&n))
		return n == 0
	})
	must(t, w.admin.Ping(t.Context()))
}

func TestCloseWaitsForCallsAndNotForAPrune(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	store, err := pgsession.Open(t.Context(), pgtest.URL(t), pgsession.Config{
		Schema: w.schema, LockTimeout: -1, Logger: slog.New(slog.DiscardHandler),
		Cleanup: pgsession.Cleanup{Interval: time.Millisecond},
	})
	must(t, err)
	must(t, store.Setup(t.Context()))
	token, _ := w.create(t, pgsession.Session{})
	tx := begin(t, w.admin)
	_, err = w.store.WithQuery(tx.query).Set(t.Context(), token, pgsession.Session{})
	must(t, err)
	var group sync.WaitGroup
	group.Go(func() {
		if _, err := store.Set(t.Context(), token, pgsession.Session{Data: []byte("saved")}); err != nil {
			t.Errorf("the set that Close had to wait for: %v", err)
		}
	})
	w.awaitWaiting(t, 1)
	group.Go(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "it is closing", func() bool {
		_, err := store.Get(t.Context(), token)
		return errors.Is(err, pgsession.ErrClosed)
	})
	must(t, tx.commit())
	group.Wait()
	if got, err := w.Get(t.Context(), token); err != nil || string(got.Data) != "saved" {
		t.Errorf("got %q, %v", got.Data, err)
	}

	everyStore(t, pgsession.Config{}, func(t *testing.T, w *way) {
		store := w.tick(t, w.query, pgsession.Config{})
		tx := begin(t, w.admin)
		inside := &way{see: tx.query, schema: w.schema, table: w.table}
		inside.exec(t, `lock table {table} in access exclusive mode`)
		w.awaitWaiting(t, 1)
		closed := make(chan error, 1)
		go func() { closed <- store.Close() }()
		select {
		case err := <-closed:
			must(t, err)
		case <-time.After(patience):
			t.Error("Close waits for a prune that waits for a lock")
		}
	})
}
