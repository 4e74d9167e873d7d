package fiberstorage_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	fiberv2 "github.com/gofiber/fiber/v2"
	sessionv2 "github.com/gofiber/fiber/v2/middleware/session"
	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/session"
	"go.uber.org/goleak"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/fiberstorage"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/webtest"
)

var (
	_ fiber.Storage   = (*fiberstorage.Storage)(nil)
	_ fiberv2.Storage = (*fiberstorage.Storage)(nil)

	_ fiberstorage.Store = (*pgsession.Store)(nil)
)

// What fiber leaves behind: clocks for the life of the process, and a worker pool that notices within ten
// seconds that it was stopped. Their names depend on what the compiler inlines.
func TestMain(m *testing.M) {
	var ignored []goleak.Option
	for _, name := range []string{
		"github.com/valyala/fasthttp.(*workerPool).Start.func2",
		"github.com/valyala/fasthttp.updateServerDate.func1",
		"github.com/gofiber/utils/v2.StartTimeStampUpdater.func1",
		"github.com/gofiber/utils/v2.StartTimeStampUpdater.func1.1",
		"github.com/gofiber/fiber/v2/utils.StartTimeStampUpdater.func1.1",
		"github.com/gofiber/fiber/v2/middleware/cache.New.func2",
		"github.com/gofiber/fiber/v2/middleware/cache.New.func1",
		"github.com/gofiber/fiber/v2/middleware/limiter.FixedWindow.New.StartTimeStampUpdater.func2.1",
	} {
		ignored = append(ignored, goleak.IgnoreAnyFunction(name))
	}
	pgtest.Main(m, ignored...)
}

// cookieName is what both versions call the session's cookie.
const cookieName = "session_id"

// gate is where the slow requests of an application wait, after they have read their session.
type gate struct{ arrived, open chan struct{} }

// settings of an application. The routes are the same in both versions of fiber:
//
//	GET /            counts the visits and says who one is: "ada 3"
//	POST /login/ada  regenerates the session
//	GET /slow        counts too, but waits at the gate in between
//	GET /read        waits at the gate, and changes nothing
//	GET /who         changes nothing
//	POST /empty      takes everything out
//	GET /slowempty   waits at the gate, and takes everything out
//	POST /reset      Session.Reset
//	POST /logout     Session.Destroy
//	POST /all        Store.Reset: ends everybody's
type settings struct {
	storage    *fiberstorage.Storage
	expiration time.Duration
	gate       gate
}

// versions are the two versions of fiber, each with how to listen with the routes on it.
var versions = map[string]func(settings, net.Listener) (shutdown func(context.Context) error){
	"v2": serveV2,
	"v3": serveV3,
}

func serveV2(s settings, listener net.Listener) func(context.Context) error {
	store := sessionv2.New(sessionv2.Config{
		Storage: s.storage, Expiration: s.expiration, KeyGenerator: rand.Text,
		CookieHTTPOnly: true, CookieSecure: false, CookieSameSite: "Strict", CookiePath: "/",
	})
	app := fiberv2.New(fiberv2.Config{DisableStartupMessage: true})
	// in calls f with the session, then saves it.
	in := func(f func(*fiberv2.Ctx, *sessionv2.Session) error) fiberv2.Handler {
		return func(c *fiberv2.Ctx) error {
			sess, err := store.Get(c)
			if err != nil {
				return err
			}
			if err := f(c, sess); err != nil {
				return err
			}
			err = sess.Save()
			if errors.Is(err, pgsession.ErrRevoked) {
				c.Response().Header.DelCookie(cookieName)
				return nil
			}
			return err
		}
	}
	visit := func(c *fiberv2.Ctx, sess *sessionv2.Session) error {
		visits, _ := sess.Get("visits").(int)
		sess.Set("visits", visits+1)
		return c.SendString(fmt.Sprintf("%v %d", sess.Get("user"), visits+1))
	}
	app.Get("/", in(visit))
	app.Get("/slow", in(func(c *fiberv2.Ctx, sess *sessionv2.Session) error {
		s.gate.wait()
		return visit(c, sess)
	}))
	app.Get("/read", in(func(c *fiberv2.Ctx, sess *sessionv2.Session) error {
		s.gate.wait()
		return c.SendString(fmt.Sprint(sess.Get("user")))
	}))
	app.Get("/who", in(func(c *fiberv2.Ctx, sess *sessionv2.Session) error {
		return c.SendString(fmt.Sprint(sess.Get("user")))
	}))
	empty := func(_ *fiberv2.Ctx, sess *sessionv2.Session) error {
		for _, key := range sess.Keys() {
			sess.Delete(key)
		}
		return nil
	}
	app.Post("/empty", in(empty))
	app.Get("/slowempty", in(func(c *fiberv2.Ctx, sess *sessionv2.Session) error {
		s.gate.wait()
		return empty(c, sess)
	}))
	app.Post("/login/:user", in(func(c *fiberv2.Ctx, sess *sessionv2.Session) error {
		if err := sess.Regenerate(); err != nil {
			return err
		}
		sess.Set("user", string([]byte(c.Params("user"))))
		return nil
	}))
	app.Post("/reset", in(func(_ *fiberv2.Ctx, sess *sessionv2.Session) error { return sess.Reset() }))
	app.Post("/logout", func(c *fiberv2.Ctx) error {
		sess, err := store.Get(c)
		if err != nil {
			return err
		}
		return sess.Destroy()
	})
	app.Post("/all", func(*fiberv2.Ctx) error { return store.Reset() })
	go func() { _ = app.Listener(listener) }()
	return app.ShutdownWithContext
}

func serveV3(s settings, listener net.Listener) func(context.Context) error {
	middleware, store := session.NewWithStore(session.Config{
		Storage: s.storage, IdleTimeout: s.expiration, KeyGenerator: rand.Text,
		CookieHTTPOnly: true, CookieSameSite: "Strict", CookiePath: "/",
		ErrorHandler: func(c fiber.Ctx, err error) {
			if errors.Is(err, pgsession.ErrRevoked) {
				c.Response().Header.DelCookie(cookieName)
				return
			}
			session.DefaultErrorHandler(c, err)
		},
	})
	app := fiber.New()
	app.Post("/all", func(c fiber.Ctx) error { return store.Reset(c) })
	app.Use(middleware)
	visit := func(c fiber.Ctx) error {
		sess := session.FromContext(c)
		visits, _ := sess.Get("visits").(int)
		sess.Set("visits", visits+1)
		return c.SendString(fmt.Sprintf("%v %d", sess.Get("user"), visits+1))
	}
	app.Get("/", visit)
	app.Get("/slow", func(c fiber.Ctx) error {
		s.gate.wait()
		return visit(c)
	})
	app.Get("/read", func(c fiber.Ctx) error {
		s.gate.wait()
		return c.SendString(fmt.Sprint(session.FromContext(c).Get("user")))
	})
	app.Get("/who", func(c fiber.Ctx) error { return c.SendString(fmt.Sprint(session.FromContext(c).Get("user"))) })
	empty := func(c fiber.Ctx) error {
		sess := session.FromContext(c)
		for _, key := range sess.Keys() {
			sess.Delete(key)
		}
		return nil
	}
	app.Post("/empty", empty)
	app.Get("/slowempty", func(c fiber.Ctx) error {
		s.gate.wait()
		return empty(c)
	})
	app.Post("/login/:user", func(c fiber.Ctx) error {
		sess := session.FromContext(c)
		if err := sess.Regenerate(); err != nil {
			return err
		}
		sess.Set("user", string([]byte(c.Params("user"))))
		return nil
	})
	app.Post("/reset", func(c fiber.Ctx) error { return session.FromContext(c).Reset() })
	app.Post("/logout", func(c fiber.Ctx) error { return session.FromContext(c).Destroy() })
	go func() { _ = app.Listener(listener, fiber.ListenConfig{DisableStartupMessage: true}) }()
	return app.ShutdownWithContext
}

// wait says that a request has arrived, and waits until the gate opens.
func (g gate) wait() {
	g.arrived <- struct{}{}
	<-g.open
}

// app is an application that listens.
type app struct {
	settings
	url      string
	shutdown func(context.Context) error
}

// start starts an application of a version of fiber on a storage. It is stopped when the test ends, at
// the latest.
func start(t *testing.T, version string, storage *fiberstorage.Storage, expiration time.Duration) *app {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &app{
		settings: settings{
			storage: storage, expiration: expiration,
			gate: gate{make(chan struct{}), make(chan struct{})},
		},
		url: "http://" + listener.Addr().String(),
	}
	a.shutdown = versions[version](a.settings, listener)
	t.Cleanup(a.stop)
	return a
}

func (a *app) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = a.shutdown(ctx) // a second time it is an error
}

// openStore opens a store on a schema, with a cache, as Open does.
func openStore(t *testing.T, schema string, cfg pgsession.Config) *pgsession.Store {
	t.Helper()
	cfg.Schema = schema
	store, err := pgsession.Open(t.Context(), pgtest.URL(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	if err := store.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	return store
}

func sessions(t *testing.T, store fiberstorage.Store) *fiberstorage.Storage {
	t.Helper()
	storage, err := fiberstorage.Sessions(store, fiberstorage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return storage
}

// sessionCookie is the session's cookie that an answer sets, or nil.
func sessionCookie(r webtest.Response) *http.Cookie {
	for _, cookie := range r.Cookies {
		if cookie.Name == cookieName {
			return cookie
		}
	}
	return nil
}

// post does a request that must succeed.
func post(t *testing.T, b *webtest.Browser, url string) {
	t.Helper()
	if r := b.Post(url); r.Status != http.StatusOK {
		t.Errorf("POST %s: %d %q", url, r.Status, r.Body)
	}
}
