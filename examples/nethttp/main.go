// Nethttp has logins on net/http without a framework: session.go is all that it takes.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/examples/visits"
)

type user struct{ Visits int }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	store, err := pgsession.Open(ctx, os.Getenv("DATABASE_URL"), pgsession.Config{})
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.Setup(ctx); err != nil {
		return err
	}
	users := sessions[user]{pgsession.JSON[user](store)}

	mux := http.NewServeMux()
	handle := func(pattern string, f func(w http.ResponseWriter, r *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			switch err := f(w, r); {
			case errors.Is(err, pgsession.ErrNotFound), errors.Is(err, pgsession.ErrRevoked):
				http.Error(w, "log in first", http.StatusUnauthorized)
			case err != nil:
				http.Error(w, "try again later", http.StatusServiceUnavailable)
			}
		})
	}
	handle("GET /{$}", func(w http.ResponseWriter, r *http.Request) error {
		session, err := users.Update(r.Context(), token(r), func(s *pgsession.TypedSession[user]) error {
			s.Value.Visits++
			return nil
		})
		if err == nil {
			fmt.Fprintf(w, "%s, visit %d\n", session.Subject, session.Value.Visits)
		}
		return err
	})
	// A password would be checked here.
	handle("POST /login/{user}", func(w http.ResponseWriter, r *http.Request) error {
		return users.begin(w, r, r.PathValue("user"), user{})
	})
	handle("POST /logout", users.end)
	return visits.ServeHandler(ctx, mux)
}
