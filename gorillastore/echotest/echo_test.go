package echotest_test

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"

	session4 "github.com/labstack/echo-contrib/session"
	session5 "github.com/labstack/echo-contrib/v5/session"
	echo4 "github.com/labstack/echo/v4"
	echo5 "github.com/labstack/echo/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/gorillastore"
	"github.com/pgsession/pgsession/gorillastore/internal/gorillatest"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/webtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// open opens a store for gorilla's sessions on a database.
func open(tb testing.TB, database string) (store *gorillastore.Store, stop func()) {
	tb.Helper()
	pg, err := pgsession.Open(tb.Context(), database, pgsession.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { pg.Close() })
	if err := pg.Setup(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	store, err = gorillastore.New(pg, gorillastore.Config{}, []byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		tb.Fatal(err)
	}
	return store, func() { pg.Close() }
}

func TestBrowsersMeetAnApplicationOnEcho4(t *testing.T) {
	t.Parallel()
	webtest.Scenarios(t, webtest.Framework{
		Open: func(tb testing.TB, database string, gate *webtest.Gate) (http.Handler, func()) {
			store, stop := open(tb, database)
			e := echo4.New()
			e.Use(session4.Middleware(store))
			for pattern, do := range gorillatest.Routes {
				method, path, _ := strings.Cut(pattern, " ")
				e.Add(method, path, func(c echo4.Context) (err error) {
					session, _ := session4.Get("session", c)
					do(&gorillatest.Visit{
						Session: session,
						Save:    func() error { return session.Save(c.Request(), c.Response()) },
						User:    c.QueryParam("user"),
						Write:   func(status int, text string) { err = c.String(status, text) },
						Gate:    gate,
					})
					return err
				})
			}
			return e, stop
		},
		Cookie: gorillatest.Cookie,
	})
}

func TestBrowsersMeetAnApplicationOnEcho5(t *testing.T) {
	t.Parallel()
	webtest.Scenarios(t, webtest.Framework{
		Open: func(tb testing.TB, database string, gate *webtest.Gate) (http.Handler, func()) {
			store, stop := open(tb, database)
			e := echo5.New()
			e.Use(session5.Middleware(store))
			for pattern, do := range gorillatest.Routes {
				method, path, _ := strings.Cut(pattern, " ")
				e.Add(method, path, func(c *echo5.Context) (err error) {
					session, _ := session5.Get("session", c)
					do(&gorillatest.Visit{
						Session: session,
						Save:    func() error { return session.Save(c.Request(), c.Response()) },
						User:    c.QueryParam("user"),
						Write:   func(status int, text string) { err = c.String(status, text) },
						Gate:    gate,
					})
					return err
				})
			}
			return e, stop
		},
		Cookie: gorillatest.Cookie,
	})
}
