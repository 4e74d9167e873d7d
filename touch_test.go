package pgsession_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
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
		t.Run(d.name, func(t *testing.T) { f(t, enter(t, d, c.admin, c.url, cfg)) })
	}
}

func TestTheZeroConfigIsAsDocumented(t *testing.T) {
	t.Parallel()
	c := newClock(t)
	calls := &recorder{next: c.admin.Query}
	store := setUp(t, calls.query, pgsession.Config{})
	ctx, start := t.Context(), c.now(t)

	token, session, err := store.Create(ctx, pgsession.Session{Data: make([]byte, 1<<20)})
	must(t, err)
	if session.IdleTimeout != 24*time.Hour || session.AbsoluteTimeout != 30*24*time.Hour {
		t.Errorf("timeouts %v and %v, want 24h and 720h", session.IdleTimeout, session.AbsoluteTimeout)
	}
	_, _, err = store.Create(ctx, pgsession.Session{Data: make([]byte, 1<<20+1)})
	wantError(t, "a byte more than 1 MiB", err, pgsession.ErrTooLarge)
	var exists bool
	must(t, c.admin.QueryRow(ctx, `select to_regclass('pgsession.session') is not null`).Scan(&exists))
	if !exists {
		t.Error("there is no table pgsession.session")
	}

	// The touch interval: a twentieth of 24 hours.
	for _, touch := range []struct{ after, want time.Duration }{
		{72*time.Minute - time.Microsecond, 24 * time.Hour},
		{72 * time.Minute, 24*time.Hour + 72*time.Minute},
	} {
		c.set(t, start.Add(touch.after))
		if at, err := store.Touch(ctx, token); err != nil || !at.Equal(start.Add(touch.want)) {
			t.Errorf("after %v: expiry %v, %v; want %v", touch.after, at, err, start.Add(touch.want))
		}
	}
	if args := calls.last(t, "touch").args; args[2] != "wait" || args[3] != 5.0 {
		t.Errorf("the lock mode and timeout are %v and %v, want to wait 5 seconds", args[2], args[3])
	}

	// The tombstone: 5 minutes, and then to the end of the minute after.
	_, err = store.Destroy(ctx, token)
	must(t, err)
	for _, prune := range []struct {
		after time.Duration
		want  int64
	}{{6*time.Minute - time.Microsecond, 0}, {6 * time.Minute, 1}} {
		c.set(t, start.Add(72*time.Minute+prune.after))
		if n, err := store.Prune(ctx); err != nil || n != prune.want {
			t.Errorf("%v after the end %d rows were pruned, %v; want %d", prune.after, n, err, prune.want)
		}
	}
	if args := calls.last(t, "prune").args; args[0] != int64(10_000) {
		t.Errorf("the batch size is %v, want 10,000", args[0])
	}
}

func TestAnExpiredSessionIsGoneForEveryoneAtThatInstant(t *testing.T) {
	t.Parallel()
	c := newClock(t)
	c.everyWay(t, pgsession.Config{IdleTimeout: time.Hour}, func(t *testing.T, w *way) {
		ctx := t.Context()
		token, session := w.create(t, pgsession.Session{Subject: "ada", Data: []byte("1")})
		before := w.row(t, token)
		// readers tells how many sessions each of those who read finds.
		readers := func() map[string]int {
			found := map[string]int{"all": 0, "all of the subject": 0}
			for whose, filter := range map[string]pgsession.Filter{"": {}, " of the subject": {Subject: "ada"}} {
				for _, err := range w.All(ctx, filter) {
					must(t, err)
					found["all"+whose]++
				}
				n, err := w.Count(ctx, filter)
				must(t, err)
				found["count"+whose] = int(n)
			}
			for name, get := range map[string]func() error{
				"get":       func() error { _, err := w.Get(ctx, token); return err },
				"get fresh": func() error { _, err := w.GetFresh(ctx, token); return err },
				"view":      func() error { return w.View(ctx, token, func(pgsession.Session) error { return nil }) },
			} {
				found[name] = 1
				if err := get(); err != nil {
					wantError(t, name, err, pgsession.ErrNotFound)
					found[name] = 0
				}
			}
			var seen int
			w.scan(t, &seen, `select count(*) from {schema}.session_view`)
			found["the view"] = seen
			return found
		}

		c.set(t, session.ExpiresAt.Add(-time.Microsecond))
		for reader, n := range readers() {
			if n != 1 {
				t.Errorf("a microsecond before: %s finds %d sessions", reader, n)
			}
		}
		c.set(t, session.ExpiresAt)
		for reader, n := range readers() {
			if n != 0 {
				t.Errorf("at the instant: %s finds %d sessions", reader, n)
			}
		}
		_, err := w.Touch(ctx, token)
		wantError(t, "touch", err, pgsession.ErrNotFound)
		_, err = w.Set(ctx, token, session)
		wantError(t, "set of the loaded session", err, pgsession.ErrNotFound)
		_, err = w.Update(ctx, token, func(*pgsession.Session) error { panic("called") })
		wantError(t, "update", err, pgsession.ErrNotFound)
		for name, revocation := range map[string]pgsession.Revocation{
			"by subject": {Subject: "ada"}, "by id": {IDs: []pgsession.ID{session.ID}},
		} {
			if n, err := w.Revoke(ctx, revocation); n != 0 || err != nil {
				t.Errorf("revoke %s: %d, %v; want none", name, n, err)
			}
		}
		if after := w.row(t, token); after != before {
			t.Errorf("the expired row was %s and is %s", before, after)
		}

		fresh, err := w.Set(ctx, token, pgsession.Session{Subject: "ada"})
		if err != nil || !fresh.CreatedAt.Equal(c.now(t)) || fresh.Version <= session.Version ||
			!fresh.ExpiresAt.Equal(c.now(t).Add(time.Hour)) {
			t.Errorf("in its place was made %+v, %v; want a new session of a newer version", fresh, err)
		}
		c.set(t, fresh.ExpiresAt)
		if n, err := w.Destroy(ctx, token); n != 0 || err != nil {
			t.Errorf("destroyed %d expired sessions, %v", n, err)
		}
		_, err = w.Set(ctx, token, pgsession.Session{})
		wantError(t, "set after the destruction of an expired session", err, pgsession.ErrRevoked)
	})
}

func TestASessionEndsAtTheEarlierOfItsDeadlines(t *testing.T) {
	t.Parallel()
	const none = -1
	year9999 := time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	c := newClock(t)
	c.everyWay(t, pgsession.Config{IdleTimeout: time.Hour, AbsoluteTimeout: 10 * time.Hour}, func(t *testing.T, w *way) {
		ctx, now := t.Context(), c.now(t)
		for _, given := range []struct {
			name                     string
			idle, absolute           time.Duration
			wantIdle, wantAbsolute   time.Duration
			wantExpiry               time.Duration // 0: never
			thenIdle, thenAbsolute   time.Duration // a set of these
			wantExpiry2, wantExpiry3 time.Duration // 5 minutes later, and after it was set once more with none
		}{
			{
				"none", 0, 0, time.Hour, 10 * time.Hour, time.Hour,
				time.Minute, 0, 6 * time.Minute, 6 * time.Minute,
			},
			{
				"idle", 2 * time.Hour, 0, 2 * time.Hour, 10 * time.Hour, 2 * time.Hour,
				3 * time.Hour, 0, 3*time.Hour + 5*time.Minute, 3*time.Hour + 5*time.Minute,
			},
			{
				"idle beyond absolute", 20 * time.Hour, 0, 20 * time.Hour, 10 * time.Hour, 10 * time.Hour,
				0, 6 * time.Minute, 6 * time.Minute, 6 * time.Minute,
			},
			{
				"absolute", 0, 30 * time.Minute, time.Hour, 30 * time.Minute, 30 * time.Minute,
				0, none, 65 * time.Minute, 65 * time.Minute,
			},
			{
				"no idle", none, 0, none, 10 * time.Hour, 10 * time.Hour,
				0, 11 * time.Hour, 11 * time.Hour, 11 * time.Hour,
			},
			{"no absolute", 0, none, time.Hour, none, time.Hour, none, 0, 0, 0},
			{"neither", none, none, none, none, 0, time.Hour, 0, 65 * time.Minute, 65 * time.Minute},
			{
				"microseconds", time.Hour + time.Microsecond, none, time.Hour + time.Microsecond, none,
				time.Hour + time.Microsecond, 0, time.Hour - time.Microsecond,
				time.Hour - time.Microsecond, time.Hour - time.Microsecond,
			},
			{
				"a century", 876_000 * time.Hour, 875_999*time.Hour + time.Microsecond, 876_000 * time.Hour,
				875_999*time.Hour + time.Microsecond, 875_999*time.Hour + time.Microsecond,
				none, none, 0, 0,
			},
		} {
			c.set(t, now)
			want := func(step string, s pgsession.Session, after time.Duration) {
				t.Helper()
				at := now.Add(after)
				if after == 0 {
					at = year9999
				}
				if !s.ExpiresAt.Equal(at) || !s.CreatedAt.Equal(now) {
					t.Errorf("%s: %s: created at %v, ends at %v; want %v and %v",
						given.name, step, s.CreatedAt, s.ExpiresAt, now, at)
				}
			}
			token, s := w.create(t, pgsession.Session{IdleTimeout: given.idle, AbsoluteTimeout: given.absolute})
			want("created", s, given.wantExpiry)
			s, err := w.Get(ctx, token)
			must(t, err)
			want("read", s, given.wantExpiry)
			if s.IdleTimeout != given.wantIdle || s.AbsoluteTimeout != given.wantAbsolute {
				t.Errorf("%s: timeouts %v and %v, want %v and %v", given.name,
					s.IdleTimeout, s.AbsoluteTimeout, given.wantIdle, given.wantAbsolute)
			}
			c.advance(t, 5*time.Minute)
			_, err = w.Set(ctx, token, pgsession.Session{
				Data: []byte("2"), IdleTimeout: given.thenIdle, AbsoluteTimeout: given.thenAbsolute,
			})
			must(t, err)
			s, err = w.Get(ctx, token)
			must(t, err)
			want("changed", s, given.wantExpiry2)
			_, err = w.Set(ctx, token, s) // as it was read
			must(t, err)
			s, err = w.Set(ctx, token, pgsession.Session{Data: []byte("3")})
			must(t, err)
			want("kept", s, given.wantExpiry3)

			// However much it was shrunk, prune knows.
			if given.wantExpiry3 != 0 {
				c.set(t, s.ExpiresAt.Add(2*time.Minute))
				if w.prune(t); w.row(t, token) != "" {
					t.Errorf("%s: it is there two minutes after it ended", given.name)
				}
			}
		}
	})
}

func TestTheTimeoutsFunctionGoesBeforeTheSessionsOwn(t *testing.T) {
	t.Parallel()
	timeouts := func(s pgsession.Session) (idle, absolute time.Duration) {
		switch s.Subject {
		case "ada":
			return 2 * time.Hour, 0
		case "bob":
			return -1, 3 * time.Hour
		}
		return 0, 0
	}
	w := onPool(t, pgsession.Config{Timeouts: timeouts})
	token, s := w.create(t, pgsession.Session{IdleTimeout: time.Hour, AbsoluteTimeout: time.Hour})
	for _, want := range []struct {
		subject        string
		idle, absolute time.Duration
	}{{"", time.Hour, time.Hour}, {"ada", 2 * time.Hour, time.Hour}, {"bob", -1, 3 * time.Hour}, {"", -1, 3 * time.Hour}} {
		s.Subject = want.subject
		var err error
		if s, err = w.Set(t.Context(), token, s); err != nil || s.IdleTimeout != want.idle || s.AbsoluteTimeout != want.absolute {
			t.Errorf("of %q: %v and %v, %v; want %v and %v",
				want.subject, s.IdleTimeout, s.AbsoluteTimeout, err, want.idle, want.absolute)
		}
	}
}

func TestATouchMovesTheIdleDeadlineAndNothingElse(t *testing.T) {
	t.Parallel()
	const rest = `select to_jsonb(t) - 'expires_at' #>> '{}' from {table} as t where t.id = $1::text`
	c := newClock(t)
	cfg := pgsession.Config{IdleTimeout: time.Hour, AbsoluteTimeout: 100 * time.Minute, TouchInterval: time.Minute}
	c.everyWay(t, cfg, func(t *testing.T, w *way) {
		ctx, start := t.Context(), c.now(t)
		token, loaded := w.create(t, pgsession.Session{Subject: "ada", Data: []byte("\x00\xff")})
		var before, after string
		w.scan(t, &before, rest, string(loaded.ID))
		for _, touch := range []struct{ at, want time.Duration }{
			{time.Minute - time.Microsecond, 60 * time.Minute}, // not worth a write
			{time.Minute, 61 * time.Minute},
			{30*time.Minute + time.Microsecond, 90*time.Minute + time.Microsecond},
			{50 * time.Minute, 100 * time.Minute}, // the absolute deadline
			{99 * time.Minute, 100 * time.Minute},
		} {
			c.set(t, start.Add(touch.at))
			at, err := w.Touch(ctx, token)
			if err != nil || !at.Equal(start.Add(touch.want)) {
				t.Errorf("touched after %v: ends at %v, %v; want %v", touch.at, at, err, start.Add(touch.want))
			}
			if s, err := w.Get(ctx, token); err != nil || !s.ExpiresAt.Equal(start.Add(touch.want)) {
				t.Errorf("touched after %v: got %+v, %v", touch.at, s, err)
			}
			// Neither does a set of what was loaded before take back what the touch gave.
			s, err := w.Set(ctx, token, loaded)
			if err != nil || s.Version != loaded.Version || !s.ExpiresAt.Equal(start.Add(touch.want)) {
				t.Errorf("set after %v: %+v, %v", touch.at, s, err)
			}
		}
		if w.scan(t, &after, rest, string(loaded.ID)); after != before {
			t.Errorf("touches changed %s to %s", before, after)
		}

		c.set(t, start.Add(100*time.Minute))
		expired := w.row(t, token)
		_, err := w.Touch(ctx, token)
		wantError(t, "an expired session", err, pgsession.ErrNotFound)
		if row := w.row(t, token); row != expired {
			t.Errorf("a touch changed the expired %s to %s", expired, row)
		}
		_, err = w.Touch(ctx, "missing")
		wantError(t, "a missing session", err, pgsession.ErrNotFound)
		if row := w.row(t, "missing"); row != "" {
			t.Errorf("a touch created %s", row)
		}
		ended, _ := w.create(t, pgsession.Session{})
		_, err = w.Destroy(ctx, ended)
		must(t, err)
		tombstone := w.row(t, ended)
		c.advance(t, 2*time.Minute)
		_, err = w.Touch(ctx, ended)
		wantError(t, "an ended session", err, pgsession.ErrRevoked)
		if row := w.row(t, ended); row != tombstone {
			t.Errorf("a touch changed the tombstone %s to %s", tombstone, row)
		}
	})
}

func TestVersionsAndDeadlinesGrowAlsoWhenTheClockStandsStillOrGoesBack(t *testing.T) {
	t.Parallel()
	c := newClock(t)
	w := enter(t, doors[0], c.admin, c.url, pgsession.Config{IdleTimeout: time.Hour})
	token, last := w.create(t, pgsession.Session{})
	for i, step := range []time.Duration{0, time.Minute, 0, -time.Hour, 0, 30 * time.Minute, -2 * time.Hour} {
		c.advance(t, step)
		s, err := w.Set(t.Context(), token, pgsession.Session{Data: []byte{byte(i)}})
		if err != nil || s.Version <= last.Version || s.ExpiresAt.Before(last.ExpiresAt) {
			t.Errorf("after the clock went by %v: %+v, %v; it was %+v", step, s, err, last)
		}
		last = s
		if at, err := w.Touch(t.Context(), token); err != nil || at.Before(last.ExpiresAt) {
			t.Errorf("after the clock went by %v a touch moved the end from %v to %v, %v", step, last.ExpiresAt, at, err)
		}
	}
}

func TestASetThatChangesNothingIsATouch(t *testing.T) {
	t.Parallel()
	c := newClock(t)
	w := enter(t, doors[0], c.admin, c.url, pgsession.Config{IdleTimeout: time.Hour, TouchInterval: time.Minute})
	token, s := w.create(t, pgsession.Session{Subject: "ada", Data: []byte("1")})
	for _, set := range []struct{ after, want time.Duration }{
		{time.Minute - time.Microsecond, time.Hour}, {time.Minute, 61 * time.Minute},
	} {
		c.set(t, s.CreatedAt.Add(set.after))
		got, err := w.Set(t.Context(), token, s)
		if err != nil || got.Version != s.Version || !got.ExpiresAt.Equal(s.CreatedAt.Add(set.want)) {
			t.Errorf("after %v: %+v, %v; want it to end after %v", set.after, got, err, set.want)
		}
	}
	if n := w.store.Stats().Unchanged; n != 2 {
		t.Errorf("%d sets changed nothing, want 2", n)
	}
}

func TestWithTouchesDisabledADeadlineStays(t *testing.T) {
	t.Parallel()
	c := newClock(t)
	w := enter(t, doors[0], c.admin, c.url, pgsession.Config{IdleTimeout: time.Hour, TouchInterval: -1})
	token, s := w.create(t, pgsession.Session{})
	c.advance(t, 59*time.Minute)
	if at, err := w.Touch(t.Context(), token); err != nil || !at.Equal(s.ExpiresAt) {
		t.Errorf("a touch moved the end from %v to %v, %v", s.ExpiresAt, at, err)
	}
	for _, data := range []string{"", "other"} {
		s.Data, s.Version = []byte(data), 0
		if got, err := w.Set(t.Context(), token, s); err != nil || !got.ExpiresAt.Equal(s.ExpiresAt) {
			t.Errorf("a set moved the end from %v to %v, %v", s.ExpiresAt, got.ExpiresAt, err)
		}
	}
}

// updates are the table's counters of updated rows, once they count at least that many. A backend
// reports them at its end, if not before.
func (c *clock) updates(t *testing.T, w *way, atLeast int64) (updates, hot int64) {
	t.Helper()
	eventually(t, "the statistics are in", func() bool {
		must(t, c.admin.QueryRow(t.Context(), `
			select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relid = $1::regclass`, w.table).
			Scan(&updates, &hot))
		return updates >= atLeast
	})
	return updates, hot
}

func TestATouchWithinTheIntervalWritesNothing(t *testing.T) {
	t.Parallel()
	c := newClock(t)
	// One connection, so that its counters come in together: the last touch is the one that writes.
	conn, err := pgx.Connect(t.Context(), c.url)
	must(t, err)
	w := enter(t, doors[0], c.admin, c.url, pgsession.Config{IdleTimeout: time.Hour})
	store := setUp(t, conn.Query, pgsession.Config{Schema: w.schema, IdleTimeout: time.Hour})
	token, _, err := store.Create(t.Context(), pgsession.Session{})
	must(t, err)
	for range 100 {
		c.advance(t, 1799*time.Millisecond) // 100 of them are less than a twentieth of an hour
		_, err := store.Touch(t.Context(), token)
		must(t, err)
	}
	c.advance(t, time.Second)
	_, err = store.Touch(t.Context(), token)
	must(t, err)
	must(t, store.Close())
	must(t, conn.Close(t.Context()))
	if updates, _ := c.updates(t, w, 1); updates != 1 {
		t.Errorf("101 touches wrote %d times, want once", updates)
	}
}

func TestTouchesAreHeapOnlyAlsoAcrossMinutesAndPrunes(t *testing.T) {
	t.Parallel()
	const sessions, rounds = 60, 60
	// A server to itself: transactions elsewhere hold back what the pages may be cleared of.
	server := pgtest.PrivateServer(t, postgres.Options{Settings: map[string]string{"autovacuum": "off"}})
	c := stopClock(t, server.URL())
	conn, err := pgx.Connect(t.Context(), c.url)
	must(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	w := enter(t, doors[0], c.admin, c.url, pgsession.Config{IdleTimeout: time.Hour})
	store := setUp(t, conn.Query, pgsession.Config{Schema: w.schema, IdleTimeout: time.Hour, TouchInterval: time.Second})
	tokens := make([]pgsession.Token, sessions)
	for i := range tokens {
		tokens[i], _, err = store.Create(t.Context(), pgsession.Session{Data: []byte(strings.Repeat("x", 300))})
		must(t, err)
	}
	var deleted, moved, touches int64
	for range rounds {
		c.advance(t, 150*time.Second)
		for _, token := range tokens {
			_, err := store.Touch(t.Context(), token)
			must(t, err)
			touches++
		}
		var d, m int64
		must(t, conn.QueryRow(t.Context(), w.fill(`select deleted, moved from {schema}.session_prune()`)).Scan(&d, &m))
		deleted, moved = deleted+d, moved+m
	}
	must(t, conn.Close(t.Context()))
	// In two and a half hours each row came past its prune_after twice.
	if deleted != 0 || moved != 2*sessions {
		t.Errorf("prunes deleted %d rows and moved %d, want 0 and %d", deleted, moved, 2*sessions)
	}
	updates, hot := c.updates(t, w, touches+moved)
	if updates != touches+moved || hot < touches*99/100 {
		t.Errorf("%d touches and %d moves made %d updates, %d of them heap-only; want 99 %% of the touches",
			touches, moved, updates, hot)
	}
}

func TestTimeZonesChangeNoDeadline(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]time.Time{
		"spring": time.Date(2030, 3, 30, 12, 0, 0, 0, time.UTC),
		"autumn": time.Date(2030, 10, 26, 12, 0, 0, 0, time.UTC),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClock(t)
			database := c.admin.Config().ConnConfig.Database
			_, err := c.admin.Exec(t.Context(), `alter database `+database+` set timezone = 'Europe/Berlin'`)
			must(t, err)
			elsewhere := func(zone string) pgsession.QueryFunc {
				return pgtest.Connect(t, withParameter(t, c.url, "timezone", zone)).Query
			}
			east, west := elsewhere("Pacific/Kiritimati"), elsewhere("America/St_Johns")
			cfg := pgsession.Config{IdleTimeout: 24 * time.Hour, AbsoluteTimeout: 72 * time.Hour}
			c.everyWay(t, cfg, func(t *testing.T, w *way) {
				c.set(t, start)
				cfg.Schema = w.schema
				client, cleaner := w.Sessions, w.see
				if !w.inTx {
					client, cleaner = setUp(t, east, cfg), west
				}
				token, s := w.create(t, pgsession.Session{})
				if want := start.Add(24 * time.Hour); !s.ExpiresAt.Equal(want) || s.ExpiresAt.Location() != time.UTC {
					t.Errorf("ends at %v, want %v", s.ExpiresAt, want)
				}
				c.advance(t, 23*time.Hour)
				if at, err := client.Touch(t.Context(), token); err != nil || !at.Equal(start.Add(47*time.Hour)) {
					t.Errorf("a touch from the east moved the end to %v, %v", at, err)
				}
				s, err := w.Get(t.Context(), token)
				if err != nil || s.IdleTimeout != 24*time.Hour || s.AbsoluteTimeout != 72*time.Hour || !s.CreatedAt.Equal(start) {
					t.Errorf("read as %+v, %v", s, err)
				}
				w.see = cleaner
				c.set(t, s.ExpiresAt.Add(-time.Microsecond))
				if n := w.prune(t); n != 0 {
					t.Errorf("a cleaner from the west deleted a live session")
				}
				c.set(t, s.ExpiresAt.Add(2*time.Minute))
				if n := w.prune(t); n != 1 {
					t.Errorf("a cleaner from the west deleted %d sessions, want 1", n)
				}
			})
		})
	}
}
