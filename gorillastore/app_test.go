package gorillastore_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"testing"

	gorilla "github.com/gorilla/sessions"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/gorillastore"
	"github.com/pgsession/pgsession/gorillastore/internal/gorillatest"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/webtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

var key = []byte("0123456789abcdef0123456789abcdef")

// open opens a store on a database.
func open(tb testing.TB, database string, cfg pgsession.Config) *pgsession.Store {
	tb.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	store, err := pgsession.Open(tb.Context(), database, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { store.Close() })
	if err := store.Setup(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return store
}

func newStore(tb testing.TB, over pgsession.Sessions, config gorillastore.Config, keys ...[]byte) *gorillastore.Store {
	tb.Helper()
	if len(keys) == 0 {
		keys = [][]byte{key}
	}
	store, err := gorillastore.New(over, config, keys...)
	if err != nil {
		tb.Fatal(err)
	}
	return store
}

// app is the application on nothing but gorilla/sessions.
func app(store gorilla.Store, gate *webtest.Gate) http.Handler {
	mux := http.NewServeMux()
	for pattern, do := range gorillatest.Routes {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			session, _ := store.Get(r, "session")
			do(&gorillatest.Visit{
				Session: session,
				Save:    func() error { return session.Save(r, w) },
				User:    r.FormValue("user"),
				Write:   func(status int, text string) { w.WriteHeader(status); fmt.Fprint(w, text) },
				Gate:    gate,
			})
		})
	}
	return mux
}

func TestBrowsersMeetAnApplicationOnGorilla(t *testing.T) {
	t.Parallel()
	webtest.Scenarios(t, webtest.Framework{
		Open: func(tb testing.TB, database string, gate *webtest.Gate) (http.Handler, func()) {
			store := open(tb, database, pgsession.Config{})
			return app(newStore(tb, store, gorillastore.Config{}), gate), func() { store.Close() }
		},
		Cookie: gorillatest.Cookie,
	})
}
