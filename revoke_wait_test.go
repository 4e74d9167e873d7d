package pgsession_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

func TestRevokeAndWaitWaitsForTheDeadlineAfterThePublication(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	e := listenTo(t, pgtest.URL(t), channelOf(w.schema, "session"))
	conn := dial(t, pgtest.URL(t), nil)
	token, s := w.create(t, pgsession.Session{Subject: "ada"})
	w.seed(t, 2, "others", "bob", 1)
	// In a bubble time stands still while the database is asked, and passes while all wait.
	query := outside(t, conn.Query)
	synctest.Test(t, func(t *testing.T) {
		const liveness = 17 * time.Minute
		ctx := context.Background() // the bubble's own would have pgx watch it
		store, err := pgsession.New(query, pgsession.Config{
			Schema: w.schema, Cache: pgsession.Cache{Liveness: 17 * time.Minute, MaxAge: time.Hour},
		})
		must(t, err)
		for what, call := range map[string]struct {
			revocation pgsession.Revocation
			n          int
			err        error
			wait       time.Duration
		}{
			"bad":       {pgsession.Revocation{}, 0, pgsession.ErrInvalid, 0},
			"nothing":   {pgsession.Revocation{Subject: "nobody"}, 0, nil, liveness},
			"ada's":     {pgsession.Revocation{Subject: "ada"}, 1, nil, liveness},
			"all of it": {pgsession.Revocation{Everyone: true, Except: []pgsession.ID{s.ID}}, 2, nil, liveness},
		} {
			began := time.Now()
			n, err := store.RevokeAndWait(ctx, call.revocation)
			if call.err != nil {
				wantError(t, what, err, call.err)
			} else {
				must(t, err)
			}
			if waited := time.Since(began); n != call.n || waited != call.wait {
				t.Errorf("%s: revoked %d and waited %v; want %d and %v", what, n, waited, call.n, call.wait)
			}
		}
		must(t, store.Close())
		_, err = store.RevokeAndWait(ctx, pgsession.Revocation{Subject: "ada"})
		wantError(t, "after Close", err, pgsession.ErrClosed)
	})
	if heard := e.heard(t); len(heard) != 2 {
		t.Errorf("heard %q", heard)
	}
	_, err := w.Get(t.Context(), token)
	wantError(t, "get of "+string(s.ID), err, pgsession.ErrNotFound)
}

func TestRevokeAndWaitEndsWithItsContextAndItsStore(t *testing.T) {
	t.Parallel()
	for what, want := range map[string]error{"context": context.Canceled, "store": pgsession.ErrClosed} {
		cfg := pgsession.Config{Cache: pgsession.Cache{Liveness: time.Hour, MaxAge: time.Hour}, Tombstone: time.Hour}
		w := onPool(t, cfg)
		cfg.Schema = w.schema
		pool := pgtest.Pool(t)
		store := setUp(t, pool.Query, cfg)
		token, _ := w.create(t, pgsession.Session{Subject: "ada"})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		type answer struct {
			n   int
			err error
		}
		answers := make(chan answer)
		go func() {
			n, err := store.RevokeAndWait(ctx, pgsession.Revocation{Subject: "ada"})
			answers <- answer{n, err}
		}()
		eventually(t, "it is revoked, and answered", func() bool {
			return w.row(t, token) != "" && w.live(t) == 0 && pool.Stat().AcquiredConns() == 0
		})
		if what == "context" {
			cancel()
		} else {
			must(t, store.Close())
		}
		got := <-answers
		wantError(t, what, got.err, want)
		if got.n != 1 {
			t.Errorf("%s: revoked %d", what, got.n)
		}
	}
}

// live is how many live sessions the table has.
func (w *way) live(t *testing.T) (n int) {
	t.Helper()
	w.scan(t, &n, `select count(*) from {schema}.session_view`)
	return n
}

func TestRevokeAndWaitIsRefusedWhereTheStaleIsServed(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{Cache: pgsession.Cache{WhenNotLive: pgsession.ServeUntilMaxAge}})
	token, _ := w.create(t, pgsession.Session{Subject: "ada"})
	_, err := w.store.RevokeAndWait(t.Context(), pgsession.Revocation{Subject: "ada"})
	wantError(t, "serving until MaxAge", err, pgsession.ErrInvalid)
	_, err = w.Get(t.Context(), token)
	must(t, err)
}

func TestRevokeAndWaitIsRefusedInATransaction(t *testing.T) {
	t.Parallel()
	for _, d := range doors {
		if d.kind == single {
			continue // which may be in one for all that is known
		}
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			address := pgtest.URL(t)
			w := enter(t, d, pgtest.Pool(t), address, pgsession.Config{})
			token, _ := w.create(t, pgsession.Session{Subject: "ada"})
			tx := w.begin(t)
			if w.inTx {
				tx.query = w.see
			}
			store, err := pgsession.New(tx.query, pgsession.Config{Schema: w.schema, Cleanup: withoutCleanup})
			must(t, err)
			n, err := store.RevokeAndWait(t.Context(), pgsession.Revocation{Subject: "ada"})
			wantError(t, "revoke and wait", err, pgsession.ErrInvalid)
			if n != 0 || err == nil || !strings.Contains(err.Error(), "a commit that has not come") {
				t.Errorf("revoked %d, %v", n, err)
			}
			_, err = w.Get(t.Context(), token)
			must(t, err)
		})
	}
}

func TestRevokeAndWaitThatFailsMidwaySaysHowManyItEndedAndDoesNotWait(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	const sessions, batch = 10_500, 10_000
	w.seed(t, sessions, "ada", "ada", 1)
	broken := errors.New("broken")
	calls := 0
	store, err := pgsession.New(func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
		if strings.Contains(sql, `."session_revoke"(`) {
			if calls++; calls == 2 {
				return nil, broken
			}
		}
		return w.query(ctx, sql, args...)
	}, pgsession.Config{Schema: w.schema, Cleanup: withoutCleanup, Cache: pgsession.Cache{Liveness: time.Hour, MaxAge: time.Hour}})
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	n, err := store.RevokeAndWait(ctx, pgsession.Revocation{Subject: "ada"})
	wantError(t, "revoke and wait", err, broken)
	if live := w.live(t); n != batch || live != sessions-batch {
		t.Errorf("%d were ended, and %d are live", n, live)
	}
}

func TestAfterRevokeAndWaitAnInstanceThatHearsNothingServesNothing(t *testing.T) {
	t.Parallel()
	var proxy *postgres.Proxy
	deaf, pool, _ := listening(t, func(address string, cfg *pgsession.Config) {
		proxy = listenThroughProxy(t, address, cfg)
	})
	other := setUp(t, pool.Query, fastListening(pool.Config().ConnString()))
	awaitLive(t, other)
	ctx := t.Context()
	for range 3 {
		awaitLive(t, deaf)
		token, s, err := other.Create(ctx, pgsession.Session{Subject: "ada"})
		must(t, err)
		eventually(t, "it is served from the cache", func() bool {
			before := deaf.Stats().Cache.Hits
			_, err = deaf.Get(ctx, token)
			must(t, err)
			return deaf.Stats().Cache.Hits > before
		})
		proxy.Swallow() // until the deadline it is still served
		n, err := other.RevokeAndWait(ctx, pgsession.Revocation{IDs: []pgsession.ID{s.ID}})
		if n != 1 || err != nil {
			t.Fatalf("revoked %d, %v", n, err)
		}
		_, err = deaf.Get(ctx, token)
		wantError(t, "get by the deaf", err, pgsession.ErrNotFound)
		proxy.Reset()
		proxy.Forward()
	}
}
