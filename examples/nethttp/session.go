package main

import (
	"bytes"
	"context"
	"errors"
	"net/http"

	"github.com/pgsession/pgsession"
)

// page calls serve with the visitor's session, stores what it made of that, and then answers: a cookie
// has to come first.
func page(store *pgsession.Store, serve func(*http.Request, *pgsession.Session) http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		token := cookieToken(r)
		session, err := store.Get(r.Context(), token)
		if err != nil && !gone(err) { // nor may a new session take the place of one that could not be read
			http.Error(w, "try again later", http.StatusServiceUnavailable)
			return
		}
		before := bytes.Clone(session.Data) // gone: an anonymous visitor, and session is the zero Session
		answer := serve(r, &session)
		switch changed := !bytes.Equal(session.Data, before); {
		case changed && session.Version == 0:
			if token, _, err = store.Create(r.Context(), session); err == nil {
				setCookie(w, token, 0)
			}
		case changed:
			_, err = store.Set(r.Context(), token, session)
		case session.Version != 0: // it was used
			_, err = store.Touch(r.Context(), token)
		}
		if err != nil && !gone(err) { // gone: it was ended meanwhile, or there is nothing to store
			http.Error(w, "try again later", http.StatusServiceUnavailable)
			return
		}
		answer.ServeHTTP(w, r)
	}
}

// login makes the visitor's session the user's, under a new token, or begins one where there is none.
func login(ctx context.Context, store *pgsession.Store, old pgsession.Token, user string) (pgsession.Token, error) {
	session, err := store.Get(ctx, old)
	if err == nil && session.Subject != "" && session.Subject != user { // what is another user's stays behind
		_, err = store.Destroy(ctx, old)
	}
	if err != nil && !gone(err) {
		return "", err
	}
	token, session, err := store.Renew(ctx, old, pgsession.Renewal{Subject: user})
	if gone(err) { // with ErrRenewed the same login came twice, and session is what the first one made: a copy
		session.Subject = user
		token, _, err = store.Create(ctx, session)
	}
	return token, err
}

// logout ends the session. Where that fails the browser keeps its cookie, to try again with.
func logout(w http.ResponseWriter, r *http.Request, store *pgsession.Store) error {
	if _, err := store.Destroy(r.Context(), cookieToken(r)); err != nil && !gone(err) {
		return err
	}
	setCookie(w, "", -1)
	return nil
}

func cookieToken(r *http.Request) pgsession.Token {
	if cookie, err := r.Cookie("session"); err == nil {
		return pgsession.Token(cookie.Value)
	}
	return ""
}

func setCookie(w http.ResponseWriter, token pgsession.Token, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name: "session", Value: string(token), MaxAge: maxAge, Path: "/",
		HttpOnly: true, SameSite: http.SameSiteLaxMode, // and Secure: true, over HTTPS
	})
}

func gone(err error) bool { // ErrInvalidToken, which is no cookie, is ErrNotFound; ErrRenewed is ErrRevoked
	return errors.Is(err, pgsession.ErrNotFound) || errors.Is(err, pgsession.ErrRevoked)
}
