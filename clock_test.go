package pgsession_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// clock is the server's clock, in a database of the test's own: every function of the store asks
// clock_timestamp() for the time, and here it answers what the test says.
type clock struct {
	url   string
	admin *pgxpool.Pool
}

// newClock stops the clock of a new database at a whole minute.
func newClock(t *testing.T) *clock {
	t.Helper()
	return stopClock(t, pgtest.Database(t))
}

func stopClock(t *testing.T, url string) *clock {
	t.Helper()
	c := &clock{url: url, admin: pgtest.Connect(t, url)}
	for _, statement := range []string{
		// With an index: the functions plan without sequential scans, at a cost that JIT falls for.
		`create table public.clock (now timestamptz, id int primary key default 1)`,
		`insert into public.clock values ('2030-01-01 12:00:00+00')`,
		`alter function pg_catalog.clock_timestamp() rename to real_clock_timestamp`,
		// Volatile, and so with a snapshot of its own: a transaction sees the clock move.
		`create function pg_catalog.clock_timestamp() returns timestamptz language plpgsql volatile
		 security definer as $$ begin return (select c.now from public.clock as c where c.id = 1); end $$`,
	} {
		if _, err := c.admin.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	return c
}

func (c *clock) now(t *testing.T) (now time.Time) {
	t.Helper()
	must(t, c.admin.QueryRow(t.Context(), `select now from public.clock`).Scan(&now))
	return now.UTC()
}

func (c *clock) set(t *testing.T, now time.Time) {
	t.Helper()
	if _, err := c.admin.Exec(t.Context(), `update public.clock set now = $1`, now); err != nil {
		t.Fatal(err)
	}
}

func (c *clock) advance(t *testing.T, by time.Duration) {
	t.Helper()
	if _, err := c.admin.Exec(t.Context(), `update public.clock set now = now + $1`, by); err != nil {
		t.Fatal(err)
	}
}

// everyWay runs f for every way in, one after the other: they share the clock.
func (c *clock) everyWay(t *testing.T, cfg pgsession.Config, f func(t *testing.T, w *way)) {
	t.Helper()
	for _, d := range doors {
		if d.name == cached {
			continue // what is cached ends by this machine's clock, and beats are sent by the stopped one
		}
		t.Run(d.name, func(t *testing.T) { f(t, enter(t, d, c.admin, c.url, cfg)) })
	}
}
