package ginstore_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"testing"

	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/tester"
	"github.com/gin-gonic/gin"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/ginstore"
	"github.com/pgsession/pgsession/gorillastore"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
	"github.com/pgsession/pgsession/internal/webtest"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	gin.DefaultWriter = io.Discard
	pgtest.Main(m)
}

// open opens a store for gin's sessions on a database.
func open(tb testing.TB, database string, cfg pgsession.Config) (store *ginstore.Store, pg *pgsession.Store) {
	tb.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	pg, err := pgsession.Open(tb.Context(), database, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { pg.Close() })
	if err := pg.Setup(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	store, err = ginstore.New(pg, gorillastore.Config{}, []byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		tb.Fatal(err)
	}
	return store, pg
}

// app is the application that [webtest.Framework] describes. It knows nothing of errors of the load.
func app(store sessions.Store, gate *webtest.Gate) http.Handler {
	e := gin.New()
	e.Use(sessions.Sessions("session", store))
	whoami := func(c *gin.Context) {
		user, _ := sessions.Default(c).Get("user").(string)
		if user == "" {
			user = "nobody"
		}
		c.String(http.StatusOK, user)
	}
	// saved answers an error of Save, but for that of a session that was ended meanwhile.
	saved := func(c *gin.Context) bool {
		err := sessions.Default(c).Save()
		if err != nil && !errors.Is(err, pgsession.ErrRevoked) {
			c.String(http.StatusServiceUnavailable, "try again later")
			return false
		}
		return true
	}
	count := func(c *gin.Context) int {
		visits, _ := sessions.Default(c).Get("visits").(int)
		sessions.Default(c).Set("visits", visits+1)
		return visits + 1
	}
	e.GET("/whoami", whoami)
	e.POST("/login", func(c *gin.Context) {
		ginstore.Renew(sessions.Default(c))
		sessions.Default(c).Set("user", c.Query("user"))
		if saved(c) {
			whoami(c)
		}
	})
	e.POST("/renew", func(c *gin.Context) {
		ginstore.Renew(sessions.Default(c))
		if saved(c) {
			whoami(c)
		}
	})
	e.POST("/logout", func(c *gin.Context) {
		session := sessions.Default(c)
		session.Clear()
		if saved(c) {
			whoami(c)
		}
	})
	e.POST("/count", func(c *gin.Context) {
		if visits := count(c); saved(c) {
			c.String(http.StatusOK, fmt.Sprint(visits))
		}
	})
	e.GET("/slow", func(c *gin.Context) {
		sessions.Default(c).Flashes() // marks the session as written, and changes nothing
		gate.Pass()
		if saved(c) {
			whoami(c)
		}
	})
	e.POST("/slow", func(c *gin.Context) {
		visits := count(c)
		gate.Pass()
		if saved(c) {
			c.String(http.StatusOK, fmt.Sprint(visits))
		}
	})
	return e
}

func TestBrowsersMeetAnApplicationOnGin(t *testing.T) {
	t.Parallel()
	webtest.Scenarios(t, webtest.Framework{
		Open: func(tb testing.TB, database string, gate *webtest.Gate) (http.Handler, func()) {
			store, pg := open(tb, database, pgsession.Config{})
			return app(store, gate), func() { pg.Close() }
		},
		Cookie: http.Cookie{
			Name: "session", Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: 30 * 86400,
		},
	})
}

// gin publishes tests for stores.
func TestTheStorePassesGinsOwnTests(t *testing.T) {
	t.Parallel()
	fresh := func(t *testing.T) sessions.Store {
		store, _ := open(t, pgtest.Database(t), pgsession.Config{})
		return store
	}
	for name, test := range map[string]func(*testing.T, func(*testing.T) sessions.Store){
		"GetSet":     func(t *testing.T, f func(*testing.T) sessions.Store) { tester.GetSet(t, f) },
		"DeleteKey":  func(t *testing.T, f func(*testing.T) sessions.Store) { tester.DeleteKey(t, f) },
		"Flashes":    func(t *testing.T, f func(*testing.T) sessions.Store) { tester.Flashes(t, f) },
		"Clear":      func(t *testing.T, f func(*testing.T) sessions.Store) { tester.Clear(t, f) },
		"Options":    func(t *testing.T, f func(*testing.T) sessions.Store) { tester.Options(t, f) },
		"Many":       func(t *testing.T, f func(*testing.T) sessions.Store) { tester.Many(t, f) },
		"ManyStores": func(t *testing.T, f func(*testing.T) sessions.Store) { tester.ManyStores(t, f) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, fresh)
		})
	}
}

// The outage is over before the save: only what the load left behind can hold it off.
func TestASaveAfterALoadThatFailedReturnsItsError(t *testing.T) {
	t.Parallel()
	server := pgtest.PrivateServer(t, postgres.Options{})
	store, _ := open(t, server.URL(), pgsession.Config{Cache: pgsession.Cache{Mode: pgsession.CacheOff}})
	between := make(chan func(), 1)
	e := gin.New()
	e.Use(sessions.Sessions("session", store))
	e.GET("/login", func(c *gin.Context) {
		sessions.Default(c).Set("user", "ada")
		c.String(http.StatusOK, fmt.Sprint(sessions.Default(c).Save()))
	})
	e.GET("/read", func(c *gin.Context) {
		if err := ginstore.LoadError(sessions.Default(c)); err != nil {
			c.AbortWithStatus(http.StatusServiceUnavailable)
			return
		}
		c.String(http.StatusOK, fmt.Sprint(sessions.Default(c).Get("user")))
	})
	e.GET("/write", func(c *gin.Context) {
		session := sessions.Default(c)
		session.Set("visits", 1) // loads, and fails
		(<-between)()
		if err := session.Save(); err == nil || !errors.Is(err, ginstore.LoadError(session)) {
			t.Errorf("the save says %v, the load %v", err, ginstore.LoadError(session))
		}
		c.String(http.StatusOK, "")
	})
	address := webtest.Serve(t, e)
	ada := webtest.NewBrowser(t)
	ada.Want(http.MethodGet, address+"/login", "<nil>")
	cookie := ada.Cookie(address, "session")

	if err := server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := ada.Get(address + "/read"); r.Status != http.StatusServiceUnavailable {
		t.Errorf("while it is down: %d %q", r.Status, r.Body)
	}
	between <- func() {
		if err := server.Restart(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if r := ada.Want(http.MethodGet, address+"/write", ""); len(r.Cookies) != 0 {
		t.Errorf("it sets the cookie %v", r.Cookies)
	}
	if ada.Cookie(address, "session") != cookie {
		t.Error("the browser has another cookie")
	}
	for range 100 { // connections that the pool has yet to find broken
		if r := ada.Get(address + "/read"); r.Status == http.StatusOK {
			break
		}
	}
	ada.Want(http.MethodGet, address+"/read", "ada")
}
