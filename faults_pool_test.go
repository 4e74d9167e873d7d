package pgsession_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

func TestAPoolWithoutAFreeConnectionIsWaitedForAsLongAsTheContextAllows(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	_, err := w.Set(t.Context(), "kept", pgsession.Session{})
	must(t, err)
	config, err := pgxpool.ParseConfig(pgtest.URL(t))
	must(t, err)
	config.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	must(t, err)
	defer pool.Close()
	queries := map[string]pgsession.QueryFunc{"pool": pool.Query, "FromPool": pgsession.FromPool(pool)}
	acquire := func() func() {
		conn, err := pool.Acquire(t.Context())
		must(t, err)
		return conn.Release
	}
	take := map[string]func() func(){"pool": acquire, "FromPool": acquire}
	for _, driver := range []string{"pgx", "postgres"} {
		db := openDB(t, driver, pgtest.URL(t))
		db.SetMaxOpenConns(1)
		queries[driver] = pgsession.FromSQL(db)
		take[driver] = func() func() {
			conn, err := db.Conn(t.Context())
			must(t, err)
			return func() { _ = conn.Close() }
		}
	}
	for name, query := range queries {
		store, err := pgsession.New(query, pgsession.Config{Schema: w.schema})
		must(t, err)
		defer func() { must(t, store.Close()) }()
		release := take[name]()
		for _, op := range operations {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond) // must truly pass
			err := op.call(ctx, store, "kept")
			cancel()
			wantError(t, name+": "+op.name, err, context.DeadlineExceeded)
			// Nothing was sent, but no driver says so; an update fails at its reading.
			wantFailure(t, name, op.name, err, op.write && op.name != "update" && name != "FromPool")
		}
		release()
		if _, err := store.Get(t.Context(), "kept"); err != nil {
			t.Errorf("%s: the next call: %v", name, err)
		}
	}
}

func TestAPoolThatItsOwnerClosedSendsNothing(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"pool", "pgx", "postgres"} {
		var query pgsession.QueryFunc
		if driver == "pool" {
			pool, err := pgxpool.New(t.Context(), pgtest.URL(t))
			must(t, err)
			query = pool.Query
			pool.Close()
		} else {
			db := openDB(t, driver, pgtest.URL(t))
			query = pgsession.FromSQL(db)
			must(t, db.Close())
		}
		store, err := pgsession.New(query, pgsession.Config{})
		must(t, err)
		for _, op := range operations {
			wantFailure(t, driver, op.name, op.call(t.Context(), store, "any"), false)
		}
	}
}
