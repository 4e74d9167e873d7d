package pgsession_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

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
	token, _, err := store.Create(t.Context(), pgsession.Session{Data: []byte("1")})
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

func TestOfTouchesThatWaitedForOneOnlyThatWrites(t *testing.T) {
	t.Parallel()
	const others = 10
	c := newClock(t)
	w := enter(t, doors[0], c.admin, c.url, pgsession.Config{IdleTimeout: time.Hour})
	token, _ := w.create(t, pgsession.Session{})
	c.advance(t, 10*time.Minute)
	tx := w.begin(t)
	_, err := w.store.WithQuery(tx.query).Touch(t.Context(), token)
	must(t, err)
	written := make(chan string, others)
	for range others {
		conn := dial(t, c.url, nil)
		go func() {
			var status string
			err := conn.QueryRow(t.Context(), w.fill(`select r.status from {schema}.session_touch($1) as r`),
				string(w.id(t, token))).Scan(&status)
			if err != nil {
				status = err.Error()
			}
			written <- status
		}()
	}
	w.awaitWaiting(t, others)
	must(t, tx.commit())
	for range others {
		if status := <-written; status != "unchanged" {
			t.Errorf("a touch that waited says %q", status)
		}
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
