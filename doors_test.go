package pgsession_test

// What opens the doors of ways_test.go: drivers, their modes, single connections, and PgBouncer.

import (
	"context"
	"database/sql"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

func openPool(mode string) func(*testing.T, string) (pgsession.QueryFunc, func(*testing.T) transaction) {
	return func(t *testing.T, address string) (pgsession.QueryFunc, func(*testing.T) transaction) {
		pool := pgtest.Connect(t, withParameter(t, address, "default_query_exec_mode", mode))
		return pool.Query, func(t *testing.T) transaction { return begin(t, pool) }
	}
}

// openFromPool is what Open does.
func openFromPool(t *testing.T, address string) (pgsession.QueryFunc, func(*testing.T) transaction) {
	t.Helper()
	pool := pgtest.Connect(t, address)
	return pgsession.FromPool(pool), func(t *testing.T) transaction { return begin(t, pool) }
}

// begin begins a transaction on a pool.
func begin(t *testing.T, pool *pgxpool.Pool) transaction {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Not the test's context, which ends before its cleanup.
	rollback := func() error { return tx.Rollback(context.Background()) }
	t.Cleanup(func() { _ = rollback() })
	return transaction{tx.Query, func() error { return tx.Commit(context.Background()) }, rollback}
}

// openSQL opens a sql.DB, with parameters set to yes.
func openSQL(driver string, parameters ...string) func(*testing.T, string) (pgsession.QueryFunc, func(*testing.T) transaction) {
	return func(t *testing.T, address string) (pgsession.QueryFunc, func(*testing.T) transaction) {
		for _, name := range parameters {
			address = withParameter(t, address, name, "yes")
		}
		db := openDB(t, driver, address)
		return pgsession.FromSQL(db), func(t *testing.T) transaction {
			t.Helper()
			tx, err := db.BeginTx(context.Background(), nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = tx.Rollback() })
			return transaction{pgsession.FromSQL(tx), tx.Commit, tx.Rollback}
		}
	}
}

func openDB(t *testing.T, driver, address string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, address)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(4)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func openSQLConn(t *testing.T, address string) (pgsession.QueryFunc, func(*testing.T) transaction) {
	conn, err := openDB(t, "pgx", address).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return pgsession.FromSQL(conn), nil
}

func openConn(t *testing.T, address string) (pgsession.QueryFunc, func(*testing.T) transaction) {
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return exclusive(conn.Query), nil
}

// exclusive makes the callers of a single connection take turns. It is busy until the rows are closed,
// so they have to unlock it.
func exclusive(query pgsession.QueryFunc) pgsession.QueryFunc {
	turn := make(chan struct{}, 1)
	return func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
		select {
		case turn <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		rows, err := query(ctx, sql, args...)
		if err != nil {
			<-turn
			return rows, err
		}
		return &exclusiveRows{Rows: rows, unlock: sync.OnceFunc(func() { <-turn })}, nil
	}
}

type exclusiveRows struct {
	pgx.Rows
	unlock func()
}

func (r *exclusiveRows) Close() {
	r.Rows.Close()
	r.unlock()
}

func throughBouncer(
	open func(*testing.T, string) (pgsession.QueryFunc, func(*testing.T) transaction),
) func(*testing.T, string) (pgsession.QueryFunc, func(*testing.T) transaction) {
	return func(t *testing.T, address string) (pgsession.QueryFunc, func(*testing.T) transaction) {
		return open(t, bouncerFor(t, address))
	}
}

// bouncerFor returns the address of the database at an address through PgBouncer.
func bouncerFor(t *testing.T, address string) string {
	t.Helper()
	bouncer, err := pgx.ParseConfig(pgtest.Bouncer(t))
	if err != nil {
		t.Fatal(err)
	}
	address, err = postgres.WithAddress(address, net.JoinHostPort(bouncer.Host, strconv.Itoa(int(bouncer.Port))))
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// withParameter adds a parameter to a connection string of either of libpq's forms.
func withParameter(t *testing.T, address, name, value string) string {
	t.Helper()
	if !strings.Contains(address, "://") {
		return address + " " + name + "='" + value + "'"
	}
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal("the test server's URL cannot be parsed")
	}
	query := u.Query()
	query.Set(name, value)
	u.RawQuery = query.Encode()
	return u.String()
}
