// Quickstart counts visits, in sessions on the PostgreSQL that DATABASE_URL names.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"

	"github.com/pgsession/pgsession"
)

type visitor struct{ Visits int }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	store, err := pgsession.Open(ctx, os.Getenv("DATABASE_URL"), pgsession.Config{})
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Setup(ctx); err != nil { // creates the table, where there is none yet
		log.Fatal(err)
	}
	visitors := pgsession.JSON[visitor](store)

	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		visit := func(s *pgsession.TypedSession[visitor]) error { s.Value.Visits++; return nil }
		token := cookieToken(r)
		session, err := visitors.Update(r.Context(), token, visit)
		if gone(err) { // a first visit, or one after a logout
			session.Value.Visits = 1
			token, session, err = visitors.Create(r.Context(), session)
		}
		if err != nil { // a database that does not answer logs nobody out
			http.Error(w, "try again later", http.StatusServiceUnavailable)
			return
		}
		setCookie(w, token, 0)
		fmt.Fprintf(w, "visit %d\n", session.Value.Visits)
	})
	http.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		if _, err := store.Destroy(r.Context(), cookieToken(r)); err != nil && !gone(err) {
			http.Error(w, "try again later", http.StatusServiceUnavailable)
			return
		}
		setCookie(w, "", -1)
		fmt.Fprintln(w, "logged out")
	})

	handler := http.NewCrossOriginProtection().Handler(http.DefaultServeMux)
	server := &http.Server{Addr: cmp.Or(os.Getenv("ADDR"), "localhost:8080"), Handler: handler}
	done := make(chan error)
	context.AfterFunc(ctx, func() { stop(); done <- server.Shutdown(context.Background()) })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	if err := errors.Join(<-done, store.Close()); err != nil {
		log.Fatal(err)
	}
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

func gone(err error) bool { // ErrInvalidToken: there was no cookie
	return errors.Is(err, pgsession.ErrNotFound) || errors.Is(err, pgsession.ErrRevoked) ||
		errors.Is(err, pgsession.ErrInvalidToken)
}
