package main

import (
	"errors"
	"net/http"

	"github.com/pgsession/pgsession"
)

// cookieName is the demo's own, since every server of a host shares its cookies, on whatever port.
// In production call it __Host-something, which browsers take by HTTPS and for this host alone.
const cookieName = "pgsession_demo"

// cookieToken returns the token that a request brings, or none.
func cookieToken(r *http.Request) pgsession.Token {
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return ""
	}
	return pgsession.Token(cookie.Value)
}

func setCookie(w http.ResponseWriter, token pgsession.Token) { writeCookie(w, string(token), 0) }

func clearCookie(w http.ResponseWriter) { writeCookie(w, "", -1) }

// writeCookie gives the cookie no age, or ends it by a negative one: how long the session lasts is
// the store's business, and it is not for the browser to know.
func writeCookie(w http.ResponseWriter, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name:     cookieName,
		Value:    value,
		Path:     "/",
		MaxAge:   maxAge,
		HttpOnly: true,
		SameSite: http.SameSiteLaxMode,
		// Secure is left off for this demo alone, which talks plain HTTP on the loopback interface. Set
		// it in production.
	})
}

// gone says that there is no session: the cookie is missing or malformed, or its session has ended,
// be it during the request. A database that does not answer is something else: nobody is logged out
// by an outage.
func gone(err error) bool {
	return errors.Is(err, pgsession.ErrNotFound) || errors.Is(err, pgsession.ErrRevoked) ||
		errors.Is(err, pgsession.ErrInvalidToken)
}
