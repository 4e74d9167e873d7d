package main

import (
	"context"
	"net/http"
	"net/url"
)

// look: reading makes no session, so that crawlers and health checks fill no table.
func (t *tour) look(ctx context.Context, s *step) error {
	for _, server := range []*instance{t.a, t.b} {
		got, err := t.laptop.get(ctx, server)
		if err != nil {
			return err
		}
		expect(s, "status", http.StatusOK, got.status)
		expect(s, "the server that answers", server.name, got.server)
		expect(s, "the session", "", string(got.Me.ID))
		expect(s, "whether there is a cookie", false, t.laptop.token(server) != "")
	}
	s.say("Servers A and B answer. No visit yet: no cookie, and no row in the table.")
	return t.expectRows(ctx, s, census{})
}

func (t *tour) count(ctx context.Context, s *step) error {
	var last answer
	for i, server := range []*instance{t.a, t.b, t.a, t.b} {
		got, err := t.laptop.post(ctx, server, "/visit", nil)
		if err != nil {
			return err
		}
		expect(s, "status", http.StatusOK, got.status)
		expect(s, "whether it is sent back to the page", true, got.redirect)
		expect(s, "the server that answers", server.name, got.server)
		expect(s, "visits counted by server "+server.name, i+1, got.Me.Visits)
		if i > 0 {
			expect(s, "the session's id", last.Me.ID, got.Me.ID)
		}
		last = got
	}
	t.anonymous = t.laptop.token(t.b)
	id, err := t.a.store.ID(t.anonymous)
	if err != nil {
		return err
	}
	expect(s, "the session's id, a hash of the cookie", id, last.Me.ID)
	s.say("Server A says 1, B says 2, A says 3, B says 4. One cookie, one row, and the row's key is a hash of " +
		"the cookie, so that nobody can log in with what the table holds.")
	return t.expectRows(ctx, s, census{rows: 1, live: 1})
}

func (t *tour) logIn(ctx context.Context, s *step) error {
	before, err := t.laptop.get(ctx, t.a)
	if err != nil {
		return err
	}
	got, err := t.laptop.post(ctx, t.a, "/login", url.Values{"name": {"ada"}})
	if err != nil {
		return err
	}
	t.laptopID = got.Me.ID
	expect(s, "status", http.StatusOK, got.status)
	expect(s, "who is logged in", "ada", got.Me.Subject)
	expect(s, "visits, carried over", 4, got.Me.Visits)
	expect(s, "whether the token is a new one", true, t.laptop.token(t.a) != t.anonymous)
	expect(s, "whether the session is a new one", true, got.Me.ID != before.Me.ID)
	tombstone, err := t.db.isTombstone(ctx, before.Me.ID)
	if err != nil {
		return err
	}
	expect(s, "whether the old session left a tombstone", true, tombstone)
	s.say("Ada logs in on the laptop. Her 4 visits are in a new session with a new token; the anonymous one was " +
		"ended in the same transaction.")
	return t.expectRows(ctx, s, census{rows: 2, live: 1, tombstones: 1})
}

// replay plays whoever knows the token from before the login, having planted it (session fixation).
func (t *tour) replay(ctx context.Context, s *step) error {
	thief := newBrowser(laptopAgent)
	defer thief.close()
	if err := t.told(ctx); err != nil {
		return err
	}
	for _, server := range []*instance{t.a, t.b} {
		if err := thief.use(server, t.anonymous); err != nil {
			return err
		}
		got, err := thief.get(ctx, server)
		if err != nil {
			return err
		}
		expect(s, "status", http.StatusOK, got.status)
		expect(s, "the old token's session on server "+server.name, "", string(got.Me.ID))
		expect(s, "visits", 0, got.Me.Visits)
	}
	s.say("Whoever had the old token has nothing: neither server knows a session for it.")
	return t.expectRows(ctx, s, census{rows: 2, live: 1, tombstones: 1})
}

func (t *tour) secondDevice(ctx context.Context, s *step) error {
	got, err := t.phone.post(ctx, t.b, "/login", url.Values{"name": {"ada"}})
	if err != nil {
		return err
	}
	t.phoneID = got.Me.ID
	expect(s, "status", http.StatusOK, got.status)
	expect(s, "who is logged in", "ada", got.Me.Subject)
	expect(s, "the device's name", "Safari on iPhone", got.Me.Name)
	expect(s, "visits on the phone", 0, got.Me.Visits)
	expect(s, "whether the phone has a session of its own", true, got.Me.ID != t.laptopID)
	s.say("Ada logs in on a phone as well, by server B: a session of its own, named %s.", got.Me.Name)
	return t.expectRows(ctx, s, census{rows: 3, live: 2, tombstones: 1})
}
