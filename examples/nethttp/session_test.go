package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/webtest"
)

func TestMain(m *testing.M) {
	pgtest.Main(m)
}

// serve serves the example over a database that does not answer for as many statements as down says.
func serve(t *testing.T, cfg pgsession.Config) (store *pgsession.Store, url string, down *atomic.Int32) {
	t.Helper()
	down = new(atomic.Int32)
	pool := pgtest.Pool(t)
	cfg.Schema, cfg.Logger = pgtest.Schema(t), slog.New(slog.DiscardHandler)
	cfg.Cleanup.Mode = pgsession.CleanupOff
	query := func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
		if down.Add(-1) >= 0 {
			return nil, errors.New("the database does not answer")
		}
		return pool.Query(ctx, sql, args...)
	}
	store, err := pgsession.New(query, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	if err := store.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler(store))
	t.Cleanup(server.Close)
	return store, server.URL, down
}

// sessions is how many there are.
func sessions(t *testing.T, store *pgsession.Store) int64 {
	t.Helper()
	n, err := store.Count(t.Context(), pgsession.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAVisitorWithNothingToRememberLeavesNothing(t *testing.T) {
	t.Parallel()
	store, url, _ := serve(t, pgsession.Config{})
	bot := webtest.NewBrowser(t)
	bot.SetCookie(url, "session", "of long ago")
	for range 3 {
		if r := bot.Want(http.MethodGet, url+"/", "nobody's cart:\n"); len(r.Cookies) != 0 {
			t.Errorf("it sets the cookies %v", r.Cookies)
		}
	}
	if n := sessions(t, store); n != 0 {
		t.Errorf("there are %d sessions", n)
	}
}

// Pages that only read are a use as well.
func TestASessionThatIsOnlyReadLivesOn(t *testing.T) {
	t.Parallel()
	store, url, _ := serve(t, pgsession.Config{TouchInterval: time.Microsecond})
	ada := webtest.NewBrowser(t)
	ada.Want(http.MethodPost, url+"/cart/tea", "in the cart\n")
	deadline := func() time.Time {
		session, err := store.GetFresh(t.Context(), pgsession.Token(ada.Cookie(url, "session")))
		if err != nil {
			t.Fatal(err)
		}
		return session.ExpiresAt
	}
	before := deadline()
	ada.Want(http.MethodGet, url+"/", "nobody's cart: \"tea\"\n")
	if after := deadline(); !after.After(before) {
		t.Errorf("it ends at %v, and before it was read at %v", after, before)
	}
}

func TestAnOutageReplacesNoSession(t *testing.T) {
	t.Parallel()
	store, url, down := serve(t, pgsession.Config{})
	ada := webtest.NewBrowser(t)
	ada.Want(http.MethodPost, url+"/cart/tea", "in the cart\n")
	for _, path := range []string{"/cart/pear", "/login/ada", "/logout"} {
		down.Store(1) // it is back for the next statement
		if r := ada.Post(url + path); r.Status != http.StatusServiceUnavailable || len(r.Cookies) != 0 {
			t.Errorf("%s: %d %q, cookies %v", path, r.Status, r.Body, r.Cookies)
		}
	}
	down.Store(0)
	ada.Want(http.MethodGet, url+"/", "nobody's cart: \"tea\"\n")
	if n := sessions(t, store); n != 1 {
		t.Errorf("there are %d sessions", n)
	}
}

func TestALoginBeginsASessionOrTakesTheVisitorsOver(t *testing.T) {
	t.Parallel()
	store, url, _ := serve(t, pgsession.Config{})
	empty, _, err := store.Create(t.Context(), pgsession.Session{}) // nothing was written
	if err != nil {
		t.Fatal(err)
	}
	for what, token := range map[string]string{"none": "", "an empty one": string(empty), "one of long ago": "of long ago"} {
		b := webtest.NewBrowser(t)
		if token != "" {
			b.SetCookie(url, "session", token)
		}
		b.Want(http.MethodPost, url+"/login/ada", "logged in\n")
		b.Want(http.MethodGet, url+"/", "ada's cart:\n")
		if b.Cookie(url, "session") == token {
			t.Errorf("%s: the token is what it was", what)
		}
	}

	ada := webtest.NewBrowser(t)
	ada.Want(http.MethodPost, url+"/cart/tea", "in the cart\n")
	planted := ada.Copy(url)
	ada.Want(http.MethodPost, url+"/login/ada", "logged in\n")
	ada.Want(http.MethodGet, url+"/", "ada's cart: \"tea\"\n")
	planted.Want(http.MethodGet, url+"/", "nobody's cart:\n")

	again := ada.Copy(url)
	ada.Want(http.MethodPost, url+"/login/ada", "logged in\n")
	ada.Want(http.MethodGet, url+"/", "ada's cart: \"tea\"\n")
	if again.Cookie(url, "session") == ada.Cookie(url, "session") {
		t.Error("the token is what it was")
	}

	// The second of two logins, whose browser did not get the answer of the first.
	twice := planted.Copy(url)
	twice.Want(http.MethodPost, url+"/login/ada", "logged in\n")
	twice.Want(http.MethodGet, url+"/", "ada's cart: \"tea\"\n")

	thief := ada.Copy(url)
	ada.Want(http.MethodPost, url+"/login/bob", "logged in\n")
	ada.Want(http.MethodGet, url+"/", "bob's cart:\n")
	thief.Want(http.MethodGet, url+"/", "nobody's cart:\n")
}

// The answer to a request that came by the old token must not take the new one's cookie away.
func TestARequestByATokenInItsGraceLeavesTheCookieAlone(t *testing.T) {
	t.Parallel()
	store, url, _ := serve(t, pgsession.Config{})
	old, _, err := store.Create(t.Context(), pgsession.Session{Subject: "ada", Data: []byte(" tea")})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := store.Renew(t.Context(), old, pgsession.Renewal{}); err != nil {
		t.Fatal(err)
	}
	late := webtest.NewBrowser(t)
	late.SetCookie(url, "session", string(old))
	for _, r := range []webtest.Response{
		late.Want(http.MethodGet, url+"/", "ada's cart: tea\n"),
		late.Want(http.MethodPost, url+"/cart/pear", "in the cart\n"),
	} {
		if len(r.Cookies) != 0 {
			t.Errorf("%q sets the cookies %v", r.Body, r.Cookies)
		}
	}
}
