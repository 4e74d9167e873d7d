package main

import (
	"context"
	"net/http"
	"net/url"

	"github.com/pgsession/pgsession"
)

func (t *tour) list(ctx context.Context, s *step) error {
	for _, look := range []struct {
		what    string
		device  *browser
		server  *instance
		current pgsession.ID
	}{
		{"from the laptop, by server B", t.laptop, t.b, t.laptopID},
		{"from the phone, by server A", t.phone, t.a, t.phoneID},
	} {
		got, err := look.device.get(ctx, look.server)
		if err != nil {
			return err
		}
		expect(s, "status", http.StatusOK, got.status)
		if !expect(s, "sessions "+look.what, 2, len(got.Devices)) {
			return nil
		}
		phone, laptop := got.Devices[0], got.Devices[1] // the newest first
		expect(s, "the first device", "Safari on iPhone", phone.Name)
		expect(s, "its User-Agent, from a column of its own", phoneAgent, phone.UserAgent)
		expect(s, "the second device", "Firefox on Linux", laptop.Name)
		for _, d := range got.Devices {
			expect(s, "whether "+d.Name+" is this device, "+look.what, d.ID == look.current, d.Current)
		}
	}
	s.say("Both devices see both: Safari on iPhone and Firefox on Linux. Each knows which one is itself.")
	return nil
}

func (t *tour) crossSite(ctx context.Context, s *step) error {
	form := url.Values{"id": {string(t.laptopID)}}
	header := http.Header{"Sec-Fetch-Site": {"cross-site"}, "Origin": {"https://evil.example"}}
	got, err := t.laptop.send(ctx, http.MethodPost, t.a.url+"/sessions/end", form, header)
	if err != nil {
		return err
	}
	expect(s, "status", http.StatusForbidden, got.status)
	s.say("A form on another site that would log ada out is refused: 403.")
	return t.expectRows(ctx, s, census{rows: 3, live: 2, tombstones: 1})
}

// stranger: ids are no secrets, so knowing one must not be enough.
func (t *tour) stranger(ctx context.Context, s *step) error {
	got, err := t.tablet.post(ctx, t.a, "/login", url.Values{"name": {"bob"}})
	if err != nil {
		return err
	}
	expect(s, "who is logged in on the tablet", "bob", got.Me.Subject)
	got, err = t.tablet.post(ctx, t.a, "/sessions/end", url.Values{"id": {string(t.laptopID)}})
	if err != nil {
		return err
	}
	expect(s, "status of bob's attempt", http.StatusNotFound, got.status)
	ada, err := t.laptop.get(ctx, t.a)
	if err != nil {
		return err
	}
	expect(s, "who is logged in on the laptop", "ada", ada.Me.Subject)
	got, err = t.tablet.post(ctx, t.b, "/logout", nil)
	if err != nil {
		return err
	}
	expect(s, "status of bob's logout", http.StatusOK, got.status)
	expect(s, "bob's session after his logout", "", string(got.Me.ID))
	expect(s, "whether bob still has a cookie", false, t.tablet.token(t.b) != "")
	s.say("Bob sends the id of ada's session to the logout of devices: 404, for it is not his. Ada notices " +
		"nothing, and bob logs out.")
	return t.expectRows(ctx, s, census{rows: 4, live: 2, tombstones: 2})
}

// beginSlow leaves a request behind that has loaded the phone's session and will save it later.
func (t *tour) beginSlow(ctx context.Context, s *step) (err error) {
	if t.late, err = t.phone.slowly(ctx, t.b, "/slow"); err != nil {
		return err
	}
	s.say("Server B has loaded the phone's session, and is held there until it is let go.")
	return nil
}

func (t *tour) endPhone(ctx context.Context, s *step) error {
	got, err := t.laptop.post(ctx, t.a, "/sessions/end", url.Values{"id": {string(t.phoneID)}})
	if err != nil {
		return err
	}
	expect(s, "status", http.StatusOK, got.status)
	if !expect(s, "ada's sessions", 1, len(got.Devices)) {
		return nil
	}
	expect(s, "the one that is left", t.laptopID, got.Devices[0].ID)
	if err := t.told(ctx); err != nil {
		return err
	}
	// The first server takes the dead cookie away, so the second is shown it anew.
	phone := newBrowser(phoneAgent)
	defer phone.close()
	for _, server := range []*instance{t.a, t.b} {
		if err := phone.use(server, t.phone.token(server)); err != nil {
			return err
		}
		got, err := phone.get(ctx, server)
		if err != nil {
			return err
		}
		expect(s, "the phone's session on server "+server.name, "", string(got.Me.ID))
	}
	s.say("The laptop asks server A to end the phone's session, by its id. Server A knows at once, and B when it is notified.")
	return t.expectRows(ctx, s, census{rows: 4, live: 1, tombstones: 3})
}

func (t *tour) lateSave(ctx context.Context, s *step) error {
	released, err := t.laptop.post(ctx, t.b, "/slow/release", nil)
	if err != nil {
		return err
	}
	expect(s, "status of the release", http.StatusNoContent, released.status)
	got, err := t.late()
	if err != nil {
		return err
	}
	expect(s, "status of the slow request", http.StatusConflict, got.status)
	expect(s, "what its save got", revokedNotice, got.Notice)
	expect(s, "the phone's session", "", string(got.Me.ID))
	tombstone, err := t.db.isTombstone(ctx, t.phoneID)
	if err != nil {
		return err
	}
	expect(s, "whether the phone's row is a tombstone, without data", true, tombstone)
	ada, err := t.laptop.get(ctx, t.b)
	if err != nil {
		return err
	}
	expect(s, "ada's sessions", 1, len(ada.Devices))
	s.say("Let go, it saves what it had loaded before the logout, and gets ErrRevoked. Nothing was written, and " +
		"nothing comes back.")
	return t.expectRows(ctx, s, census{rows: 4, live: 1, tombstones: 3})
}
