package main

import (
	"errors"
	"net/http"

	"github.com/pgsession/pgsession"
)

// sessions are the sessions of net/http, their values of type T.
type sessions[T any] struct{ *pgsession.Typed[T] }

func token(r *http.Request) pgsession.Token { // "", where there is no cookie: ErrNotFound to the store
	if cookie, err := r.Cookie("session"); err == nil {
		return pgsession.Token(cookie.Value)
	}
	return ""
}

// begin begins a session of a subject, a login's, in place of the one that the visitor had.
func (s sessions[T]) begin(w http.ResponseWriter, r *http.Request, subject string, value T) error {
	t, _, err := s.Create(r.Context(), pgsession.TypedSession[T]{Session: pgsession.Session{Subject: subject}, Value: value})
	if err == nil && token(r) != "" { // what was planted before the login is worth nothing after it
		_, err = s.Destroy(r.Context(), token(r))
	}
	if err != nil && !errors.Is(err, pgsession.ErrInvalidToken) { // a cookie that was never ours
		return err
	}
	http.SetCookie(w, &http.Cookie{Name: "session", Value: string(t), Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
	return nil
}

// end ends the session. Where that fails the browser keeps its cookie, to try again with.
func (s sessions[T]) end(w http.ResponseWriter, r *http.Request) error {
	_, err := s.Destroy(r.Context(), token(r))
	if err == nil || errors.Is(err, pgsession.ErrNotFound) {
		http.SetCookie(w, &http.Cookie{Name: "session", Path: "/", MaxAge: -1})
	}
	return err
}
