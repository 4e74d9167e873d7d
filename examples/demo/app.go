package main

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
)

const (
	// slowest is how long a slow request waits for somebody to let it go.
	slowest = 15 * time.Second
	// maxBody is far more than any form here sends.
	maxBody = 16 << 10
)

// data is what the application keeps in a session.
type data struct {
	Visits int    `json:"visits"`
	Device string `json:"device"`
}

// session is a session with that data.
type session = pgsession.TypedSession[data]

// app is the web application, as one of its servers runs it.
type app struct {
	name     string
	peer     link
	pool     *pgxpool.Pool // for the one transaction, that of a login
	store    *pgsession.Store
	sessions *pgsession.Typed[data]
	slow     *gate
	logger   *slog.Logger
}

func newApp(name string, pool *pgxpool.Pool, store *pgsession.Store, logger *slog.Logger) *app {
	return &app{
		name: name, pool: pool, store: store, sessions: pgsession.JSON[data](store), slow: newGate(), logger: logger,
	}
}

// handler returns all routes. What changes anything is a POST, and a POST from another site is
// refused: SameSite cookies alone would let the other ports of this host through.
func (a *app) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", a.home)
	mux.HandleFunc("GET /style.css", serveStyle)
	mux.Handle("POST /visit", a.change(a.visit))
	mux.Handle("POST /login", a.change(a.login))
	mux.Handle("POST /logout", a.change(a.logout))
	mux.Handle("POST /sessions/end", a.change(a.endOne))
	mux.Handle("POST /sessions/end-others", a.change(a.endOthers))
	mux.Handle("POST /slow", a.change(a.visitSlowly))
	mux.HandleFunc("POST /slow/release", a.release)

	protected := http.NewCrossOriginProtection().Handler(http.MaxBytesHandler(mux, maxBody))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Answered-By", a.name)
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src data:; "+
			"form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		protected.ServeHTTP(w, r)
	})
}

// refusal is an error that is the visitor's, with what to tell them.
type refusal struct {
	status int
	notice string
}

func (e *refusal) Error() string { return e.notice }

// change is a handler that changes something: where it succeeds the browser is sent to the page, so
// that reloading does not send the form again.
func (a *app) change(do func(w http.ResponseWriter, r *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := do(w, r); err != nil {
			a.fail(w, r, err)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
}

// load returns the request's session. Without one its ID is empty.
func (a *app) load(ctx context.Context, r *http.Request) (session, error) {
	s, err := a.sessions.Get(ctx, cookieToken(r))
	if gone(err) {
		return session{}, nil
	}
	return s, err
}
