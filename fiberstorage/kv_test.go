package fiberstorage_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	fiberv2 "github.com/gofiber/fiber/v2"
	cachev2 "github.com/gofiber/fiber/v2/middleware/cache"
	limiterv2 "github.com/gofiber/fiber/v2/middleware/limiter"
	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/cache"
	"github.com/gofiber/fiber/v3/middleware/limiter"
	"github.com/gofiber/fiber/v3/middleware/session"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/fiberstorage"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/webtest"
)

// limited serves "/", at most three times a minute, and "/clock", which counts what it computes and is
// cached.
var limited = map[string]func(*fiberstorage.Storage, net.Listener) (shutdown func(context.Context) error){
	"v2": func(s *fiberstorage.Storage, listener net.Listener) func(context.Context) error {
		app := fiberv2.New(fiberv2.Config{DisableStartupMessage: true})
		var computed atomic.Int64
		app.Get("/clock", cachev2.New(cachev2.Config{Storage: s, Expiration: time.Hour}), func(c *fiberv2.Ctx) error {
			return c.SendString(fmt.Sprint(computed.Add(1)))
		})
		app.Use(limiterv2.New(limiterv2.Config{Storage: s, Max: 3, Expiration: time.Minute}))
		app.Get("/", func(c *fiberv2.Ctx) error { return c.SendString("welcome") })
		go func() { _ = app.Listener(listener) }()
		return app.ShutdownWithContext
	},
	"v3": func(s *fiberstorage.Storage, listener net.Listener) func(context.Context) error {
		app := fiber.New()
		var computed atomic.Int64
		app.Get("/clock", cache.New(cache.Config{Storage: s, Expiration: time.Hour}), func(c fiber.Ctx) error {
			return c.SendString(fmt.Sprint(computed.Add(1)))
		})
		app.Use(limiter.New(limiter.Config{Storage: s, Max: 3, Expiration: time.Minute}))
		app.Get("/", func(c fiber.Ctx) error { return c.SendString("welcome") })
		go func() { _ = app.Listener(listener, fiber.ListenConfig{DisableStartupMessage: true}) }()
		return app.ShutdownWithContext
	},
}

func TestTheRateLimiterAndTheCacheAreSharedByInstances(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		schema := pgtest.Schema(t)
		serve := func() (string, *fiberstorage.Storage) {
			t.Helper()
			storage, _ := kv(t, schema)
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			shutdown := limited[version](storage, listener)
			t.Cleanup(func() { _ = shutdown(context.Background()) })
			return "http://" + listener.Addr().String(), storage
		}
		a, storage := serve()
		b, _ := serve()
		client := webtest.NewBrowser(t)

		client.Want(http.MethodGet, a+"/", "welcome")
		client.Want(http.MethodGet, b+"/", "welcome")
		client.Want(http.MethodGet, a+"/", "welcome")
		for _, url := range []string{a, b} {
			if got := client.Get(url + "/"); got.Status != http.StatusTooManyRequests {
				t.Errorf("a fourth request: %d, want 429", got.Status)
			}
		}
		for _, url := range []string{a, b, a} { // b has computed nothing yet
			client.Want(http.MethodGet, url+"/clock", "1")
		}
		// Forgiven: the counters begin anew under the same keys, at once.
		if err := storage.Reset(); err != nil {
			t.Fatal(err)
		}
		client.Want(http.MethodGet, b+"/", "welcome")
		client.Want(http.MethodGet, a+"/clock", "2")
	})
}

// Version 3 hands its fiber.Ctx to the storage, which has no deadline; the request's context has.
func TestTheRequestsDeadlineIsKept(t *testing.T) {
	t.Parallel()
	schema := pgtest.Schema(t)
	openStore(t, schema, pgsession.Config{})
	pool := pgtest.Pool(t)
	store, err := pgsession.New(pool.Query, pgsession.Config{Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	failed := make(chan error, 1)
	app := fiber.New()
	app.Use(func(c fiber.Ctx) error {
		ctx, cancel := context.WithTimeout(c.Context(), 50*time.Millisecond)
		defer cancel()
		c.SetContext(ctx)
		return c.Next()
	}, session.New(session.Config{
		Storage:      sessions(t, store),
		ErrorHandler: func(_ fiber.Ctx, err error) { failed <- err },
	}))
	app.Get("/", func(fiber.Ctx) error { return nil })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = app.Listener(listener, fiber.ListenConfig{DisableStartupMessage: true}) }()
	t.Cleanup(func() { _ = app.ShutdownWithContext(context.Background()) })

	lock, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Rollback(context.Background()) }()
	if _, err := lock.Exec(t.Context(), "lock table "+schema+".session"); err != nil {
		t.Fatal(err)
	}
	webtest.NewBrowser(t).Want(http.MethodGet, "http://"+listener.Addr().String()+"/", "") // the new session cannot be saved
	if err := <-failed; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the save failed with %v, want a deadline's error", err)
	}
}
