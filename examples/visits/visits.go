// Package visits is the web application of those examples that show something else: it counts the
// visits of a session.
package visits

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/pgsession/pgsession"
)

type visitor struct{ Visits int }

// Serve serves at the address that ADDR names until the context ends.
func Serve(ctx context.Context, sessions pgsession.Sessions) error {
	return ServeHandler(ctx, Handler(sessions))
}

// ServeHandler serves a handler at the address that ADDR names until the context ends.
func ServeHandler(ctx context.Context, handler http.Handler) error {
	server := &http.Server{
		Addr:              cmp.Or(os.Getenv("ADDR"), "localhost:8080"),
		Handler:           http.NewCrossOriginProtection().Handler(handler),
		ReadHeaderTimeout: 5 * time.Second,
	}
	done := make(chan error, 1)
	context.AfterFunc(ctx, func() { done <- server.Shutdown(context.Background()) })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-done
}

// Handler counts at GET /, and ends the session at POST /logout.
func Handler(sessions pgsession.Sessions) http.Handler {
	visitors := pgsession.JSON[visitor](sessions)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		token := Token(r)
		session, err := visitors.Update(r.Context(), token, func(s *pgsession.TypedSession[visitor]) error {
			s.Value.Visits++
			return nil
		})
		if Gone(err) {
			session.Value.Visits = 1
			token, session, err = visitors.Create(r.Context(), session)
		}
		if err != nil {
			http.Error(w, "try again later", http.StatusServiceUnavailable)
			return
		}
		SetCookie(w, token, 0)
		fmt.Fprintf(w, "visit %d\n", session.Value.Visits)
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		if _, err := sessions.Destroy(r.Context(), Token(r)); err != nil && !Gone(err) {
			http.Error(w, "try again later", http.StatusServiceUnavailable)
			return
		}
		SetCookie(w, "", -1)
		fmt.Fprintln(w, "logged out")
	})
	return mux
}

// Token is the cookie's, or "".
func Token(r *http.Request) pgsession.Token {
	if cookie, err := r.Cookie("session"); err == nil {
		return pgsession.Token(cookie.Value)
	}
	return ""
}

// SetCookie sets the cookie, or with a negative age takes it away.
func SetCookie(w http.ResponseWriter, token pgsession.Token, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name: "session", Value: string(token), MaxAge: maxAge, Path: "/",
		HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

// Gone says that there is no session any more, or none yet.
func Gone(err error) bool {
	return errors.Is(err, pgsession.ErrNotFound) || errors.Is(err, pgsession.ErrRevoked)
}
