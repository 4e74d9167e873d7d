package pgtest_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

func query(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) string {
	t.Helper()
	var value string
	err := pool.QueryRow(t.Context(), sql, append([]any{pgx.QueryExecModeExec}, args...)...).Scan(&value)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func execute(t *testing.T, pool *pgxpool.Pool, sql string) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, pgx.QueryExecModeExec); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// The tests that set variables are not parallel, and come first.

func TestNothingIsSkippedInCI(t *testing.T) {
	for value, skips := range map[string]bool{
		"": true, "false": true, "0": true, "true": false, "1": false, "yes": false,
	} {
		t.Setenv("CI", value)
		r := record(t, "TestX", func(tb testing.TB) { pgtest.Skip(tb, "it lacks an arm") })
		if r.skipped != skips || r.failed == skips {
			t.Errorf("CI=%q: skipped: %t, failed: %t", value, r.skipped, r.failed)
		}
		if !strings.Contains(r.said.String(), "it lacks an arm") {
			t.Errorf("CI=%q: it said %q", value, r.said.String())
		}
	}
}

func TestAnExtensionThatIsNotToBeHadSkipsTheTest(t *testing.T) {
	t.Setenv("CI", "")
	r := record(t, "TestX", func(tb testing.TB) { pgtest.Extension(tb, "no_such_extension") })
	if !r.skipped || r.failed || !strings.Contains(r.said.String(), "no_such_extension") {
		t.Errorf("skipped: %t, failed: %t, said: %s", r.skipped, r.failed, r.said.String())
	}
}

func TestAConnectionThatIsNotReleasedFailsTheTest(t *testing.T) {
	t.Cleanup(pgtest.SetReleaseTimeout(50 * time.Millisecond))
	var conn *pgxpool.Conn
	r := record(t, "TestX", func(tb testing.TB) {
		var err error
		if conn, err = pgtest.Pool(tb).Acquire(t.Context()); err != nil {
			t.Error(err)
		}
	})
	conn.Release()
	if !r.failed || !strings.Contains(r.said.String(), "1 connections of the pool were never released") {
		t.Errorf("failed: %t, said: %s", r.failed, r.said.String())
	}
}

func TestASchemaIsDroppedWithWhatItHoldsWhenTheTestEnds(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	names := make(map[string]bool)
	for _, test := range []string{
		"TestX", "TestX", "TestÜber/with_a \"quote\"; and more", "Test" + strings.Repeat("Long", 40),
	} {
		var name string
		r := record(t, test, func(tb testing.TB) {
			name = pgtest.Schema(tb)
			execute(t, pool, "create schema "+name+" create table "+name+".t ()") // without quotes
			got := query(t, pool, "select nspname::text from pg_namespace where nspname = $1", name)
			if got != name {
				t.Errorf("the schema is %q, not %q", got, name)
			}
		})
		if r.failed {
			t.Errorf("%s: %s", test, r.said.String())
		}
		if got := query(t, pool, "select count(*)::text from pg_namespace where nspname = $1", name); got != "0" {
			t.Errorf("%s is still there", name)
		}
		if names[name] {
			t.Errorf("%s came twice", name)
		}
		names[name] = true
	}
	if r := record(t, "TestX", func(tb testing.TB) { pgtest.Schema(tb) }); r.failed {
		t.Errorf("a schema that was never created: %s", r.said.String())
	}
}

func TestADatabaseIsDroppedWhenTheTestEnds(t *testing.T) {
	t.Parallel()
	var name string
	record(t, "TestX", func(tb testing.TB) {
		pool := pgtest.Connect(t, pgtest.Database(tb)) // still connected when the database goes
		name = query(t, pool, "select current_database()::text")
	})
	pool := pgtest.Pool(t)
	if name == query(t, pool, "select current_database()::text") {
		t.Error("it was the shared database")
	}
	if got := query(t, pool, "select count(*)::text from pg_database where datname = $1", name); got != "0" {
		t.Errorf("%s is still there", name)
	}
}

func TestARoleIsDroppedWithAllThatItOwnsAndWasGranted(t *testing.T) {
	t.Parallel()
	admin := pgtest.Pool(t)
	schema, elsewhere := pgtest.Schema(t), pgtest.Connect(t, pgtest.Database(t))
	execute(t, admin, "create schema "+schema)
	var role string
	r := record(t, "TestX", func(tb testing.TB) {
		var url string
		role, url = pgtest.Role(tb, "app", "reader")
		if !strings.HasPrefix(role, "app_reader_") {
			t.Errorf("the role is %s", role)
		}
		pool := pgtest.Connect(t, url) // outlives the role
		if got := query(t, pool, "select current_user::text"); got != role {
			t.Errorf("the URL is that of %s", got)
		}
		privileges := query(t, pool, `
			select concat(rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls)
			  from pg_roles where rolname = current_user`)
		if privileges != "fffff" {
			t.Errorf("its privileges are %s", privileges)
		}
		for _, place := range []*pgxpool.Pool{admin, elsewhere} {
			execute(t, place, "create table if not exists public."+role+"_granted ()")
			execute(t, place, "grant select on public."+role+"_granted to "+role)
		}
		execute(t, admin, "grant create on schema "+schema+" to "+role)
		execute(t, admin, "grant temporary on database "+query(t, admin, "select current_database()::text")+" to "+role)
		execute(t, pool, "create table "+schema+".owned ()")
	})
	if r.failed {
		t.Error(r.said.String())
	}
	if got := query(t, admin, "select count(*)::text from pg_roles where rolname = $1", role); got != "0" {
		t.Errorf("%s is still there", role)
	}
	execute(t, admin, "drop table public."+role+"_granted")
}

func TestAnExtensionIsCreatedOnceByTestsThatRunAtOnce(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	t.Run("at once", func(t *testing.T) {
		for range 4 {
			t.Run("one", func(t *testing.T) {
				t.Parallel()
				pgtest.ExtensionAt(t, url, "citext")
			})
		}
	})
	got := query(t, pgtest.Connect(t, url), "select count(*)::text from pg_extension where extname = 'citext'")
	if got != "1" {
		t.Errorf("there are %s", got)
	}
}

func TestABouncerServesTheRolesOfTests(t *testing.T) {
	t.Parallel()
	bouncer := pgtest.Bouncer(t)
	role, direct := pgtest.Role(t)
	config, err := pgx.ParseConfig(direct)
	if err != nil {
		t.Fatal(err)
	}
	url, err := postgres.WithUser(bouncer, role, config.Password)
	if err != nil {
		t.Fatal(err)
	}
	if got := query(t, pgtest.Connect(t, url), "select current_user::text"); got != role {
		t.Errorf("the role is %s", got)
	}
	if got := query(t, pgtest.Connect(t, bouncer), "select current_user::text"); got == role {
		t.Errorf("the administrator is %s", got)
	}
	if again := pgtest.Bouncer(t); again != bouncer {
		t.Errorf("there are two: %s and %s", bouncer, again)
	}
}

func TestAPrivateServerEndsWithItsTest(t *testing.T) {
	t.Parallel()
	var url string
	r := record(t, "TestX", func(tb testing.TB) {
		server := pgtest.PrivateServer(tb, postgres.Options{})
		url = server.URL()
		if url == pgtest.URL(t) {
			t.Error("it is the shared one")
		}
		if err := server.Restart(t.Context()); err != nil {
			t.Error(err)
		}
		tb.Error("for the log to be of interest")
	})
	if !strings.Contains(r.said.String(), "database system is ready") &&
		!strings.HasPrefix(pgtest.Server(t).Source(), "docker") {
		t.Errorf("a test that failed does not show the server's log: %s", r.said.String())
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if conn, err := pgx.Connect(ctx, url); err == nil {
		_ = conn.Close(ctx)
		t.Error("it still answers")
	}
}
