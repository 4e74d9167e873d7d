package main

import (
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
)

const maxName = 40

// login gives the visitor a session with a new token, which carries on what the anonymous one held,
// and ends that one: a token that somebody planted before the login must be worth nothing after it.
// Both happen in one transaction, so that no failure leaves two sessions or none.
//
// There is no password. This demo is about what comes after it was checked.
func (a *app) login(w http.ResponseWriter, r *http.Request) error {
	name, err := subjectName(r.PostFormValue("name"))
	if err != nil {
		return err
	}
	idle, err := idleTimeout(r.PostFormValue("idle"))
	if err != nil {
		return err
	}
	var token pgsession.Token
	err = pgx.BeginFunc(r.Context(), a.pool, func(tx pgx.Tx) error {
		store := a.store.WithQuery(tx.Query)
		sessions := pgsession.JSON[data](store)
		fresh := newSession(r)
		fresh.Subject = name
		fresh.IdleTimeout = idle

		old, err := sessions.Get(r.Context(), cookieToken(r))
		switch {
		case gone(err):
		case err != nil:
			return err
		default:
			if old.Subject == "" { // else it is somebody's, and stays theirs
				fresh.Value.Visits = old.Value.Visits
			}
			if _, err := store.Destroy(r.Context(), cookieToken(r)); err != nil {
				return err
			}
		}
		token, _, err = sessions.Create(r.Context(), fresh)
		return err
	})
	if err != nil {
		return err
	}
	setCookie(w, token)
	return nil
}

// logout ends the session of this device.
func (a *app) logout(w http.ResponseWriter, r *http.Request) error {
	if _, err := a.store.Destroy(r.Context(), cookieToken(r)); err != nil && !gone(err) {
		return err
	}
	clearCookie(w)
	return nil
}

func subjectName(s string) (string, error) {
	s = strings.TrimSpace(s)
	if s == "" || utf8.RuneCountInString(s) > maxName || !utf8.ValidString(s) ||
		strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "", &refusal{http.StatusBadRequest, "A name has 1 to 40 characters that can be printed."}
	}
	return s, nil
}

// idleTimeout reads the form's choice. None is the store's default.
func idleTimeout(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Second || d > 24*time.Hour {
		return 0, &refusal{http.StatusBadRequest, "An idle timeout is from one second to one day."}
	}
	return d, nil
}
