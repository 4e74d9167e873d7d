// Node is a Go application that shares its sessions with express.mjs and koa.mjs beside it. All three
// count the visits, and log out; whoever logs in at one is known to the others.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"

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
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		// What Node has in the session beside these two, as its cookie, must stay.
		var value map[string]any
		_, err := store.Update(r.Context(), token(r), func(s *pgsession.Session) error {
			value = nil
			if err := json.Unmarshal(s.Data, &value); err != nil {
				return err
			}
			n, _ := value["visits"].(float64)
			value["visits"] = n + 1
			s.Codec = pgsession.CodecJSON
			var err error
			s.Data, err = json.Marshal(value)
			return err
		})
		switch {
		case errors.Is(err, pgsession.ErrNotFound), errors.Is(err, pgsession.ErrRevoked):
			http.Error(w, "log in first", http.StatusUnauthorized)
		case err != nil:
			http.Error(w, "try again later", http.StatusServiceUnavailable)
		default:
			fmt.Fprintf(w, "%v %v", value["user"], value["visits"])
		}
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		if _, err := store.Destroy(r.Context(), token(r)); err != nil && !visits.Gone(err) {
			http.Error(w, "try again later", http.StatusServiceUnavailable)
		}
	})
	return visits.ServeHandler(ctx, mux)
}

// token is what Node knows the session by. Express signs it in its cookie, "s:TOKEN.SIGNATURE"; koa has
// the signature in another cookie. The signature adds nothing to a token that cannot be guessed.
func token(r *http.Request) pgsession.Token {
	if cookie, err := r.Cookie("connect.sid"); err == nil {
		value, _ := url.QueryUnescape(cookie.Value)
		sid, _, _ := strings.Cut(strings.TrimPrefix(value, "s:"), ".")
		return pgsession.Token(sid)
	}
	if cookie, err := r.Cookie("koa.sess"); err == nil {
		return pgsession.Token(cookie.Value)
	}
	return ""
}
