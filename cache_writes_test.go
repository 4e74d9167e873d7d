package pgsession_test

import (
	"context"
	"testing"
	"unsafe"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// What a write answered is kept, so that the writer's next read asks nobody, and its own notification
// does not drop it. In a transaction it is not: that may be rolled back.
func TestAWriteIsServedFromMemoryOnceItIsCommitted(t *testing.T) {
	t.Parallel()
	for name, query := range map[string]func(t *testing.T, address string) pgsession.QueryFunc{
		"pool": func(t *testing.T, address string) pgsession.QueryFunc {
			return pgtest.Connect(t, address).Query
		},
		"pool, simple protocol": func(t *testing.T, address string) pgsession.QueryFunc {
			pool := pgtest.Connect(t, address)
			return func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
				return pool.Query(ctx, sql, append([]any{pgx.QueryExecModeSimpleProtocol}, args...)...)
			}
		},
		"connection": func(t *testing.T, address string) pgsession.QueryFunc {
			return exclusive(dial(t, address, nil).Query)
		},
		"database/sql, pgx": func(t *testing.T, address string) pgsession.QueryFunc {
			return pgsession.FromSQL(openDB(t, "pgx", address))
		},
		"database/sql, lib/pq": func(t *testing.T, address string) pgsession.QueryFunc {
			return pgsession.FromSQL(openDB(t, "postgres", address))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			address := pgtest.Database(t)
			store := setUp(t, query(t, address), pgsession.Config{Listen: listenFor(address)})
			awaitLive(t, store)
			token, _, err := store.Create(ctx, pgsession.Session{Data: []byte("1")})
			must(t, err)
			for _, data := range []string{"1", "2"} {
				_, err = store.Set(ctx, token, pgsession.Session{Data: []byte(data)})
				must(t, err)
				before := store.Stats().Cache
				s, err := store.Get(ctx, token)
				must(t, err)
				if after := store.Stats().Cache; string(s.Data) != data || after.Hits != before.Hits+1 || after.Misses != before.Misses {
					t.Errorf("after the set of %s: %s, %d hits and %d misses", data, s.Data, after.Hits-before.Hits, after.Misses-before.Misses)
				}
			}
			// Its notification has been heard once this one has.
			heard := store.Stats().Notify.Heard
			_, err = store.Set(ctx, "another", pgsession.Session{})
			must(t, err)
			_, err = store.Set(ctx, "another", pgsession.Session{Data: []byte("1")})
			must(t, err)
			eventually(t, "the notification is heard", func() bool { return store.Stats().Notify.Heard > heard })
			before := store.Stats().Cache
			_, err = store.Get(ctx, token)
			must(t, err)
			if after := store.Stats().Cache; after.Misses != before.Misses {
				t.Error("the writer's own notification dropped what it wrote")
			}
		})
	}
	for name, open := range map[string]func(t *testing.T, address string) (query pgsession.QueryFunc, end func(string)){
		"connection": func(t *testing.T, address string) (pgsession.QueryFunc, func(string)) {
			conn := dial(t, address, nil)
			must(t, second(conn.Exec(t.Context(), "begin")))
			return exclusive(conn.Query), func(sql string) { must(t, second(conn.Exec(t.Context(), sql))) }
		},
		"database/sql": func(t *testing.T, address string) (pgsession.QueryFunc, func(string)) {
			conn, err := openDB(t, "pgx", address).Conn(t.Context())
			must(t, err)
			t.Cleanup(func() { must(t, conn.Close()) })
			must(t, second(conn.ExecContext(t.Context(), "begin")))
			return pgsession.FromSQL(conn), func(sql string) { must(t, second(conn.ExecContext(t.Context(), sql))) }
		},
	} {
		t.Run("a transaction that nobody told it of: "+name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			address := pgtest.Database(t)
			query := pgsession.QueryFunc(pgtest.Connect(t, address).Query)
			store := setUp(t, func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
				return query(ctx, sql, args...)
			}, pgsession.Config{Listen: listenFor(address), Cleanup: pgsession.Cleanup{Mode: pgsession.CleanupOff}})
			awaitLive(t, store)
			token, _, err := store.Create(ctx, pgsession.Session{Data: []byte("1")})
			must(t, err)
			inside, end := open(t, address)
			query = inside
			_, err = store.Set(ctx, token, pgsession.Session{Data: []byte("2")})
			must(t, err)
			end("rollback")
			got, err := store.Get(ctx, token)
			must(t, err)
			if string(got.Data) != "1" {
				t.Errorf("what was rolled back is served: %s", got.Data)
			}
		})
	}
}

// second is the error of a pair.
func second[T any](_ T, err error) error { return err }

// Its deadline is further away than a time.Duration reaches.
func TestASessionWithoutTimeoutsIsServedFromMemory(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	address := pgtest.Database(t)
	store := setUp(t, pgtest.Connect(t, address).Query, pgsession.Config{
		IdleTimeout: -1, AbsoluteTimeout: -1, Listen: listenFor(address),
	})
	awaitLive(t, store)
	token, _, err := store.Create(ctx, pgsession.Session{Data: []byte("1")})
	must(t, err)
	for range 2 {
		_, err = store.GetFresh(ctx, token)
		must(t, err)
		_, err = store.Get(ctx, token)
		must(t, err)
	}
	if hits := store.Stats().Cache.Hits; hits != 2 {
		t.Errorf("%d of 2 reads were served from memory", hits)
	}
}

// Who keeps ids shall not keep all that was cached beside them.
func TestTheIDOfMuchDataIsTheCallersOwn(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	store, _, _ := listening(t, nil)
	awaitLive(t, store)
	token, _, err := store.Create(ctx, pgsession.Session{Subject: "ada", Data: make([]byte, 5000)})
	must(t, err)
	one, err := store.Get(ctx, token)
	must(t, err)
	two, err := store.Get(ctx, token)
	must(t, err)
	if unsafe.StringData(string(one.ID)) == unsafe.StringData(string(two.ID)) ||
		unsafe.StringData(one.Subject) == unsafe.StringData(two.Subject) {
		t.Error("the id and the subject are parts of what is cached")
	}
}
