package pgsession_test

import (
	"testing"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

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
