//go:build unix

package postgres_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

func bouncer(t *testing.T, serverURL string, opts postgres.BouncerOptions) *postgres.Bouncer {
	t.Helper()
	b, err := postgres.PgBouncer(t.Context(), serverURL, opts)
	if postgres.IsMissing(err) {
		pgtest.Skip(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Stop(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// simple connects in the mode that every PgBouncer takes.
func simple(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func TestPgBouncerPoolsByTransaction(t *testing.T) {
	t.Parallel()
	b := bouncer(t, private(t, postgres.Options{}).URL(), postgres.BouncerOptions{
		Settings: map[string]string{"default_pool_size": "1"},
	})
	one, two := simple(t, b.URL()), simple(t, b.URL())
	const backend = "select pg_backend_pid()::text"
	if a, b := query(t, one, backend), query(t, two, backend); a != b {
		t.Errorf("two clients have the backends %s and %s", a, b)
	}
	// What one client sets for its session, another finds.
	query(t, one, "select set_config('pgsession.found', 'yes', false)")
	if got := query(t, two, "select current_setting('pgsession.found', true)"); got != "yes" {
		t.Errorf("the other client found %q", got)
	}
}

func TestPgBouncerPoolsBySession(t *testing.T) {
	t.Parallel()
	b := bouncer(t, private(t, postgres.Options{}).URL(), postgres.BouncerOptions{Mode: "session"})
	one, two := connect(t, b.URL()), connect(t, b.URL())
	const backend = "select pg_backend_pid()::text"
	if a, b := query(t, one, backend), query(t, two, backend); a == b {
		t.Errorf("two clients share the backend %s", a)
	}
}

func TestPgBouncerRefusesStartUpParametersButThoseOfDrivers(t *testing.T) {
	t.Parallel()
	b := bouncer(t, private(t, postgres.Options{}).URL(), postgres.BouncerOptions{})
	simple(t, b.URL()+"&extra_float_digits=2")
	_, err := pgx.Connect(t.Context(), b.URL()+"&search_path=pg_catalog")
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || !strings.Contains(refused.Message, "search_path") {
		t.Errorf("search_path: %v", err)
	}
}

// TestPgBouncerServesEveryRole is about a server that trusts its clients and about one that asks for
// passwords.
func TestPgBouncerServesEveryRole(t *testing.T) {
	t.Parallel()
	for name, method := range map[string]string{"trust": "trust", "password": "scram-sha-256"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := private(t, postgres.Options{})
			admin := connect(t, server.URL())
			for _, sql := range []string{
				"create role one login password 'it''s'",
				"create role two login password 'it''s'",
				"alter role postgres password 'root''s'",
				"create database other",
				`create temporary table hba (line text)`,
				"insert into hba values ('host all all all " + method + "')",
				"do $$ begin execute format('copy hba to %L', current_setting('hba_file')); end $$",
				"select pg_reload_conf()",
			} {
				if _, err := admin.Exec(t.Context(), sql); err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
			}
			url, err := postgres.WithUser(server.URL(), "postgres", "root's")
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "the server asks for passwords as told", func() bool {
				conn, err := pgx.Connect(t.Context(), server.URL())
				if err == nil {
					_ = conn.Close(t.Context())
				}
				return (err == nil) == (name == "trust")
			})

			b := bouncer(t, url, postgres.BouncerOptions{Password: "it's"})
			for _, role := range []string{"one", "two", "postgres"} {
				for _, database := range []string{"postgres", "other"} {
					url, err := postgres.WithUser(b.URL(), role, "")
					if err != nil {
						t.Fatal(err)
					}
					if url, err = postgres.WithDatabase(url, database); err != nil {
						t.Fatal(err)
					}
					got := query(t, simple(t, url), "select current_user || ' in ' || current_database()")
					if got != role+" in "+database {
						t.Errorf("%s in %s is %s", role, database, got)
					}
				}
			}
			url, err = postgres.WithUser(b.URL(), "nobody_known", "")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := pgx.Connect(t.Context(), url); err == nil {
				t.Error("a user that does not exist was let in")
			}
		})
	}
}

func TestAStoppedPgBouncerIsGone(t *testing.T) {
	t.Parallel()
	b := bouncer(t, private(t, postgres.Options{}).URL(), postgres.BouncerOptions{})
	conn := simple(t, b.URL())
	for range 2 {
		if err := b.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Ping(t.Context()); err == nil {
		t.Error("the connection lives on")
	}
	if !refused(t, b.URL()) {
		t.Error("it still listens")
	}
}

func TestASettingThatPgBouncerRefusesIsReportedWithItsLog(t *testing.T) {
	t.Parallel()
	_, err := postgres.PgBouncer(t.Context(), "postgres://u@127.0.0.1:1/x", postgres.BouncerOptions{
		Settings: map[string]string{"no_such_setting": "1"},
	})
	if err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("PgBouncer: %v", err)
	}
}
