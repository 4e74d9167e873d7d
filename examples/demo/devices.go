package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/pgsession/pgsession"
)

// userAgentColumn is a promoted column: a column of its own in the table, where reports and filters
// find it without reading anybody's data.
const userAgentColumn = "user_agent"

const maxUserAgent = 200

// endOne logs one of the user's devices out. The id comes from a form, and whoever knows ids could
// send any: with the subject beside it, the store ends only what is the user's own.
func (a *app) endOne(w http.ResponseWriter, r *http.Request) error {
	me, err := a.user(r)
	if err != nil {
		return err
	}
	id := pgsession.ID(r.PostFormValue("id"))
	n, err := a.store.Revoke(r.Context(), pgsession.Revocation{IDs: []pgsession.ID{id}, Subject: me.Subject})
	if errors.Is(err, pgsession.ErrInvalid) || err == nil && n == 0 {
		return &refusal{http.StatusNotFound, "No such session of yours."}
	}
	if err != nil {
		return err
	}
	if id == me.ID {
		clearCookie(w)
	}
	return nil
}

// endOthers logs all of the user's devices out but this one.
func (a *app) endOthers(_ http.ResponseWriter, r *http.Request) error {
	me, err := a.user(r)
	if err != nil {
		return err
	}
	_, err = a.store.Revoke(r.Context(), pgsession.Revocation{Subject: me.Subject, Except: []pgsession.ID{me.ID}})
	return err
}

// user returns the session of somebody who is logged in. It must not let an anonymous visitor pass:
// to the store an empty subject is no restriction at all.
func (a *app) user(r *http.Request) (session, error) {
	s, err := a.load(r.Context(), r)
	if err == nil && s.Subject == "" {
		err = &refusal{http.StatusUnauthorized, "You are not logged in."}
	}
	return s, err
}

// devices returns the sessions of a subject, the newest first.
func (a *app) devices(ctx context.Context, subject string, current pgsession.ID) ([]device, error) {
	if subject == "" {
		return nil, nil // as above: it would be everybody's
	}
	var devices []device
	for s, err := range a.store.All(ctx, pgsession.Filter{Subject: subject}) {
		if err != nil {
			return nil, err
		}
		typed := session{Session: s}
		if err := json.Unmarshal(s.Data, &typed.Value); err != nil {
			return nil, fmt.Errorf("session %s: %w", s.ID, err)
		}
		devices = append(devices, newDevice(typed, current))
	}
	slices.SortFunc(devices, func(a, b device) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return devices, nil
}

// userAgent returns the header as the database can keep it: HTTP allows bytes that are no UTF-8.
func userAgent(r *http.Request) string {
	agent := strings.ToValidUTF8(r.UserAgent(), "?")
	if runes := []rune(agent); len(runes) > maxUserAgent {
		agent = string(runes[:maxUserAgent])
	}
	return agent
}

// deviceName makes of a User-Agent what people call their device. Browsers claim to be their rivals,
// so the order matters.
func deviceName(agent string) string {
	browser := firstIn(agent, [][2]string{
		{"Edg", "Edge"},
		{"OPR/", "Opera"},
		{"Firefox/", "Firefox"},
		{"FxiOS/", "Firefox"},
		{"Chrom", "Chrome"},
		{"CriOS/", "Chrome"},
		{"Safari/", "Safari"},
		{"curl/", "curl"},
	})
	system := firstIn(agent, [][2]string{
		{"iPhone", "iPhone"},
		{"iPad", "iPad"},
		{"Android", "Android"},
		{"CrOS", "ChromeOS"},
		{"Windows", "Windows"},
		{"Mac OS X", "Mac"},
		{"Linux", "Linux"},
	})
	switch {
	case browser == "" && system == "":
		return "Unknown device"
	case browser == "":
		return system
	case system == "":
		return browser
	}
	return browser + " on " + system
}

func firstIn(agent string, names [][2]string) string {
	for _, name := range names {
		if strings.Contains(agent, name[0]) {
			return name[1]
		}
	}
	return ""
}
