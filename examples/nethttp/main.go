// Nethttp has a cart that a login takes along, on net/http without a framework: session.go is all that
// the sessions take.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/examples/visits"
)

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
	return visits.ServeHandler(ctx, handler(store))
}

func handler(store *pgsession.Store) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", page(store, func(_ *http.Request, session *pgsession.Session) http.Handler {
		return text("%s's cart:%s\n", cmp.Or(session.Subject, "nobody"), session.Data)
	}))
	mux.Handle("POST /cart/{item}", page(store, func(r *http.Request, session *pgsession.Session) http.Handler {
		session.Data = fmt.Appendf(session.Data, " %q", r.PathValue("item"))
		return text("in the cart\n")
	}))
	// A password would be checked here.
	mux.HandleFunc("POST /login/{user}", func(w http.ResponseWriter, r *http.Request) {
		token, err := login(r.Context(), store, cookieToken(r), r.PathValue("user"))
		if err != nil {
			http.Error(w, "try again later", http.StatusServiceUnavailable)
			return
		}
		setCookie(w, token, 0)
		fmt.Fprintln(w, "logged in")
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		if err := logout(w, r, store); err != nil {
			http.Error(w, "try again later", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "logged out")
	})
	return mux
}

// text is an answer.
func text(format string, values ...any) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, format, values...) })
}
