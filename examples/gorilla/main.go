// Gorilla keeps the sessions of gorilla/sessions on the PostgreSQL that DATABASE_URL names.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/gorillastore"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	pg, err := pgsession.Open(ctx, os.Getenv("DATABASE_URL"), pgsession.Config{})
	if err != nil {
		log.Fatal(err)
	}
	if err := pg.Setup(ctx); err != nil {
		log.Fatal(err)
	}
	key := []byte(os.Getenv("SESSION_KEY")) // 32 random bytes; to rotate it put a new pair in front: new, nil, old
	if len(key) == 0 {
		log.Print("SESSION_KEY is not set: cookies are signed with a random key, and worth nothing after a restart")
		key = make([]byte, 32)
		rand.Read(key)
	}
	store, err := gorillastore.New(pg, gorillastore.Config{
		Subject: func(values map[any]any) string { user, _ := values["user"].(string); return user },
	}, key)
	if err != nil {
		log.Fatal(err)
	}

	mux := http.NewServeMux()
	// serve answers with what do says of the session, and saves it.
	serve := func(pattern string, do func(values map[any]any, renew func()) string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			session, _ := store.Get(r, "session")
			login := false
			text := do(session.Values, func() { session.ID, login = "", true })
			switch err := session.Save(r, w); {
			case errors.Is(err, pgsession.ErrRevoked) && login:
				http.Error(w, "you were logged out meanwhile: log in again", http.StatusConflict)
			case err != nil && !errors.Is(err, pgsession.ErrRevoked): // it was ended meanwhile: the answer stands
				http.Error(w, "try again later", http.StatusServiceUnavailable)
			default:
				fmt.Fprintln(w, text)
			}
		})
	}
	serve("GET /{$}", func(values map[any]any, _ func()) string {
		visits, _ := values["visits"].(int)
		values["visits"] = visits + 1
		user, _ := values["user"].(string)
		return fmt.Sprintf("visit %d of %s", visits+1, cmp.Or(user, "nobody"))
	})
	serve("POST /login", func(values map[any]any, renew func()) string {
		renew() // a new token: one that was planted before is worth nothing
		values["user"] = "ada"
		return "logged in"
	})
	serve("POST /logout", func(values map[any]any, _ func()) string {
		clear(values) // an empty session is ended by its save
		return "logged out"
	})

	handler := http.NewCrossOriginProtection().Handler(mux)
	server := &http.Server{Addr: cmp.Or(os.Getenv("ADDR"), "localhost:8080"), Handler: handler}
	done := make(chan error)
	context.AfterFunc(ctx, func() { stop(); done <- server.Shutdown(context.Background()) })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	if err := errors.Join(<-done, pg.Close()); err != nil {
		log.Fatal(err)
	}
}
