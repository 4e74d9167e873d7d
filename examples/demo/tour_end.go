package main

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/pgsession/pgsession"
)

// expire waits for the deadline that the server reports, and looks right after it.
func (t *tour) expire(ctx context.Context, s *step) error {
	got, err := t.tablet.post(ctx, t.a, "/login", url.Values{"name": {"carol"}, "idle": {"1s"}})
	if err != nil {
		return err
	}
	expect(s, "who is logged in", "carol", got.Me.Subject)
	expect(s, "the idle timeout", time.Second, got.Me.Idle)
	deadline := got.Me.ExpiresAt

	left, err := t.db.until(ctx, deadline)
	if err != nil {
		return err
	}
	expect(s, "whether the deadline is within the second", true, left > 0 && left <= time.Second)
	if err := sleep(ctx, left); err != nil {
		return err
	}
	// A timer of this machine may be ahead of the server's clock by a little.
	for left > 0 {
		if left, err = t.db.until(ctx, deadline); err != nil {
			return err
		}
	}
	for _, server := range []*instance{t.b, t.a} {
		n, err := server.store.Count(ctx, pgsession.Filter{Subject: "carol"})
		if err != nil {
			return err
		}
		expect(s, "carol's sessions by server "+server.name, int64(0), n)
	}
	got, err = t.tablet.get(ctx, t.b)
	if err != nil {
		return err
	}
	expect(s, "status", http.StatusOK, got.status)
	expect(s, "carol's session", "", string(got.Me.ID))
	s.say("Carol's session ends when it is not used for 1 s. Past the deadline it is gone for every reader, " +
		"though its row is still there.")
	return t.expectRows(ctx, s, census{rows: 5, live: 1, expired: 1, tombstones: 3})
}

func (t *tour) prune(ctx context.Context, s *step) error {
	before, err := t.db.census(ctx)
	if err != nil {
		return err
	}
	expect(s, "rows before", census{rows: 5, live: 1, expired: 1, tombstones: 3}, before)
	if err := t.db.letPass(ctx); err != nil {
		return err
	}
	n, err := t.a.store.Prune(ctx)
	if err != nil {
		return err
	}
	expect(s, "rows deleted", int64(before.expired+before.tombstones), n)
	ada, err := t.laptop.get(ctx, t.b)
	if err != nil {
		return err
	}
	expect(s, "who is logged in on the laptop", "ada", ada.Me.Subject)
	expect(s, "visits on the laptop", 4, ada.Me.Visits)
	s.say("%d rows: %d live, %d expired, %d tombstones. The demo makes the dead ones ten minutes older, since "+
		"tombstones are kept for five. Then prune deletes %d rows, and ada on the laptop is left, with her 4 visits.",
		before.rows, before.live, before.expired, before.tombstones, n)
	return t.expectRows(ctx, s, census{rows: 1, live: 1})
}
