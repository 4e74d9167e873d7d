package scsstore_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"go.uber.org/goleak"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/webtest"
	"github.com/pgsession/pgsession/scsstore"
)

func TestMain(m *testing.M) {
	// scs.New starts a store with a goroutine that never ends, which another store replaces.
	pgtest.Main(m, goleak.IgnoreTopFunction("github.com/alexedwards/scs/v2/memstore.(*MemStore).startCleanup"))
}

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

// manage returns scs's manager over a store, with an idle timeout: every request saves its session.
func manage(tb testing.TB, sessions pgsession.Sessions, options scsstore.Options) *scs.SessionManager {
	tb.Helper()
	store, err := scsstore.New(sessions, options)
	if err != nil {
		tb.Fatal(err)
	}
	manager := scs.New()
	manager.IdleTimeout = 20 * time.Minute
	manager.Lifetime = 12 * time.Hour
	manager.Store = store
	manager.Codec = scsstore.Codec{}
	manager.ErrorFunc = scsstore.ErrorFunc(nil)
	return manager
}

// app is the application that [webtest.Framework] describes.
func app(m *scs.SessionManager, gate *webtest.Gate) http.Handler {
	whoami := func(w http.ResponseWriter, r *http.Request) {
		user := m.GetString(r.Context(), "user")
		if user == "" {
			user = "nobody"
		}
		fmt.Fprint(w, user)
	}
	check := func(w http.ResponseWriter, err error) bool {
		if err != nil {
			http.Error(w, "try again later", http.StatusServiceUnavailable)
		}
		return err == nil
	}
	count := func(r *http.Request) int {
		visits := m.GetInt(r.Context(), "visits") + 1
		m.Put(r.Context(), "visits", visits)
		return visits
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /whoami", whoami)
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		if check(w, m.RenewToken(r.Context())) {
			m.Put(r.Context(), "user", r.FormValue("user"))
			whoami(w, r)
		}
	})
	mux.HandleFunc("POST /renew", func(w http.ResponseWriter, r *http.Request) {
		if check(w, m.RenewToken(r.Context())) {
			whoami(w, r)
		}
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		if check(w, m.Destroy(r.Context())) {
			whoami(w, r)
		}
	})
	mux.HandleFunc("POST /count", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, count(r)) })
	mux.HandleFunc("GET /slow", func(w http.ResponseWriter, r *http.Request) { gate.Pass(); whoami(w, r) })
	mux.HandleFunc("POST /slow", func(w http.ResponseWriter, r *http.Request) {
		visits := count(r)
		gate.Pass()
		fmt.Fprint(w, visits)
	})
	return m.LoadAndSave(mux)
}

// The scenarios with scs's idle timeout are those in which other stores bring sessions back.
func TestBrowsersMeetAnApplicationOnSCS(t *testing.T) {
	t.Parallel()
	webtest.Scenarios(t, webtest.Framework{
		Open: func(tb testing.TB, database string, gate *webtest.Gate) (http.Handler, func()) {
			store := open(tb, database, pgsession.Config{})
			return app(manage(tb, store, scsstore.Options{}), gate), func() { store.Close() }
		},
		Cookie: http.Cookie{
			Name: "session", Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: 20 * 60,
		},
	})
}
