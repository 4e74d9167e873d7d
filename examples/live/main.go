// Live is a page that goes blank the moment its session is ended, wherever that is done.
//
//	DATABASE_URL=postgres://localhost/postgres go run .
//	DATABASE_URL=postgres://localhost/postgres ADDR=localhost:8081 go run .
//
// Open both addresses, log in on each, and end all sessions on one of them.
package main

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/pgsession/pgsession"
)

//go:embed page.html
var page []byte

// user is who logs in, on every device.
const user = "ada"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) (err error) {
	// Open listens by itself. With New it is Config.Listen that does.
	store, err := pgsession.Open(ctx, os.Getenv("DATABASE_URL"), pgsession.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := store.Setup(ctx); err != nil {
		return err
	}
	server := &http.Server{
		Addr:              cmp.Or(os.Getenv("ADDR"), "localhost:8080"),
		Handler:           handler(store),
		ReadHeaderTimeout: 5 * time.Second,
	}
	// Events are sent for as long as a page is open, so they are what the end has to end.
	server.BaseContext = func(net.Listener) context.Context { return ctx }
	closed := make(chan error, 1)
	context.AfterFunc(ctx, func() {
		shutdown, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		closed <- server.Shutdown(shutdown)
	})
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-closed
}

// handler serves the page, and what it needs.
func handler(store *pgsession.Store) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(page) })
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		token, _, err := store.Create(r.Context(), pgsession.Session{Subject: user})
		if err != nil {
			http.Error(w, "try again later", http.StatusServiceUnavailable)
			return
		}
		http.SetCookie(w, &http.Cookie{
			Name: "live", Value: string(token), Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode,
		})
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.HandleFunc("POST /end", func(w http.ResponseWriter, r *http.Request) {
		if _, err := store.Revoke(r.Context(), pgsession.Revocation{Subject: user}); err != nil {
			http.Error(w, "try again later", http.StatusServiceUnavailable)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		if err := watch(w, r, store); err != nil && r.Context().Err() == nil {
			log.Print(err)
		}
	})
	return http.NewCrossOriginProtection().Handler(mux)
}

// watch writes server-sent events: "here" with the session's id, and "gone" when it has ended.
func watch(w http.ResponseWriter, r *http.Request, store *pgsession.Store) error {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	send := func(event, data string) error {
		if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event, data); err != nil {
			return err
		}
		return out.Flush()
	}

	var token pgsession.Token
	if cookie, err := r.Cookie("live"); err == nil {
		token = pgsession.Token(cookie.Value)
	}
	// Subscribed before the first look: what happens in between is seen by the one or by the other. An
	// event is a hint to look again, so one that is waiting already is enough.
	look := make(chan struct{}, 1)
	id, _ := store.ID(token)
	stop := store.Subscribe(func(e pgsession.Event) {
		if e.ID != "" && e.ID != id {
			return // another session
		}
		select {
		case look <- struct{}{}:
		default:
		}
	})
	defer stop()
	// To open the page is a use. To leave it open is none: it goes blank as well when the session expires.
	if _, err := store.Touch(r.Context(), token); err != nil && !errors.Is(err, pgsession.ErrNotFound) &&
		!errors.Is(err, pgsession.ErrRevoked) {
		return err
	}
	for {
		session, err := store.Get(r.Context(), token)
		switch {
		case errors.Is(err, pgsession.ErrNotFound): // or there is no cookie
			return send("gone", "the session has ended")
		case err != nil:
			return err // the page tries again
		}
		if err := send("here", string(session.ID)); err != nil {
			return err
		}
		// It ends by itself too, when nobody uses it.
		expiry := time.NewTimer(max(time.Until(session.ExpiresAt), time.Second))
		select {
		case <-look:
		case <-expiry.C:
		case <-r.Context().Done():
			expiry.Stop()
			return r.Context().Err()
		}
		expiry.Stop()
	}
}
