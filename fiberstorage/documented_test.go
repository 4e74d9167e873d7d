package fiberstorage_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	fiberv2 "github.com/gofiber/fiber/v2"
	csrfv2 "github.com/gofiber/fiber/v2/middleware/csrf"
	sessionv2 "github.com/gofiber/fiber/v2/middleware/session"
	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/extractors"
	"github.com/gofiber/fiber/v3/middleware/csrf"
	"github.com/gofiber/fiber/v3/middleware/idempotency"
	"github.com/gofiber/fiber/v3/middleware/session"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/webtest"
)

// listen serves an application of either version until the test ends.
func listen(t *testing.T, serve func(net.Listener), shutdown func(context.Context) error) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go serve(listener)
	t.Cleanup(func() { _ = shutdown(context.Background()) })
	return "http://" + listener.Addr().String()
}

func listenV3(t *testing.T, app *fiber.App) string {
	t.Helper()
	return listen(t, func(l net.Listener) {
		_ = app.Listener(l, fiber.ListenConfig{DisableStartupMessage: true})
	}, app.ShutdownWithContext)
}

func listenV2(t *testing.T, app *fiberv2.App) string {
	t.Helper()
	return listen(t, func(l net.Listener) { _ = app.Listener(l) }, app.ShutdownWithContext)
}

// request does a request with headers, by turns names and values.
func request(t *testing.T, method, url string, headers ...string) (status int, header http.Header, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header, string(text)
}

func TestASessionsOwnExpirationIsKept(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		store := openStore(t, pgtest.Schema(t), pgsession.Config{})
		var url string
		if version == "v2" {
			sessions := sessionv2.New(sessionv2.Config{Storage: sessions(t, store)})
			app := fiberv2.New(fiberv2.Config{DisableStartupMessage: true})
			app.Get("/", func(c *fiberv2.Ctx) error {
				s, err := sessions.Get(c)
				if err != nil {
					return err
				}
				s.Set("user", "ada")
				s.SetExpiry(2 * time.Hour)
				return s.Save()
			})
			url = listenV2(t, app)
		} else {
			app := fiber.New()
			app.Use(session.New(session.Config{Storage: sessions(t, store)}))
			app.Get("/", func(c fiber.Ctx) error {
				session.FromContext(c).Set("user", "ada")
				session.FromContext(c).Session.SetIdleTimeout(2 * time.Hour)
				return nil
			})
			url = listenV3(t, app)
		}
		ada := webtest.NewBrowser(t)
		if c := sessionCookie(ada.Get(url)); c == nil || c.MaxAge != 7200 {
			t.Fatalf("the cookie is %v", c)
		}
		s, err := store.Get(t.Context(), pgsession.Token(ada.Cookie(url, cookieName)))
		if err != nil || s.IdleTimeout != 2*time.Hour {
			t.Errorf("idle timeout %v, %v; want 2h", s.IdleTimeout, err)
		}
	})
}

func TestASessionsIDInAHeader(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		const name = "X-Session"
		storage := sessions(t, openStore(t, pgtest.Schema(t), pgsession.Config{}))
		var url string
		if version == "v2" {
			sessions := sessionv2.New(sessionv2.Config{Storage: storage, KeyLookup: "header:" + name})
			app := fiberv2.New(fiberv2.Config{DisableStartupMessage: true})
			app.Get("/", func(c *fiberv2.Ctx) error {
				s, err := sessions.Get(c)
				if err != nil {
					return err
				}
				fresh := s.Fresh()
				s.Set("user", "ada")
				if err := s.Save(); err != nil {
					return err
				}
				return c.SendString(fmt.Sprint(fresh))
			})
			url = listenV2(t, app)
		} else {
			app := fiber.New()
			app.Use(session.New(session.Config{Storage: storage, Extractor: extractors.FromHeader(name)}))
			app.Get("/", func(c fiber.Ctx) error {
				session.FromContext(c).Set("user", "ada")
				return c.SendString(fmt.Sprint(session.FromContext(c).Fresh()))
			})
			url = listenV3(t, app)
		}
		_, first, body := request(t, http.MethodGet, url)
		id := first.Get(name)
		if body != "true" || id == "" || first.Get("Set-Cookie") != "" {
			t.Errorf("the first answer is %q, with the id %q and the cookie %q", body, id, first.Get("Set-Cookie"))
		}
		if _, second, body := request(t, http.MethodGet, url, name, id); body != "false" || second.Get(name) != id {
			t.Errorf("the second answer is %q, and another id: %t", body, second.Get(name) != id)
		}
		// An id that somebody made up is not taken.
		if _, third, body := request(t, http.MethodGet, url, name, "planted"); body != "true" || third.Get(name) == "planted" {
			t.Errorf("with an id made up the answer is %q, and the id %q", body, third.Get(name))
		}
	})
}

// Version 3 has an absolute timeout of its own, which it keeps in the session.
func TestFibersAbsoluteTimeout(t *testing.T) {
	t.Parallel()
	app := fiber.New()
	app.Use(session.New(session.Config{
		Storage:     sessions(t, openStore(t, pgtest.Schema(t), pgsession.Config{})),
		IdleTimeout: time.Second, AbsoluteTimeout: time.Second,
	}))
	app.Get("/", func(c fiber.Ctx) error {
		s := session.FromContext(c)
		visits, _ := s.Get("visits").(int)
		s.Set("visits", visits+1)
		return c.SendString(fmt.Sprint(visits + 1))
	})
	url := listenV3(t, app)
	ada := webtest.NewBrowser(t)
	ada.Want(http.MethodGet, url, "1")
	id, begun := ada.Cookie(url, cookieName), time.Now()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for ada.Get(url).Body != "1" { // each extends the idle timeout
		<-poll.C
	}
	if took := time.Since(begun); took < 990*time.Millisecond || ada.Cookie(url, cookieName) == id {
		t.Errorf("a session that was used all the time ended after %v, and its id is the same: %t",
			took, ada.Cookie(url, cookieName) == id)
	}
}

// Version 3 reaches sessions by their ids, too: an administrator's logout.
func TestASessionIsReachedByItsID(t *testing.T) {
	t.Parallel()
	handler, sessions := session.NewWithStore(session.Config{
		Storage: sessions(t, openStore(t, pgtest.Schema(t), pgsession.Config{})), KeyGenerator: rand.Text,
	})
	app := fiber.New()
	app.Use(handler)
	app.Get("/", func(c fiber.Ctx) error {
		s := session.FromContext(c)
		keys := s.Keys()
		s.Set("user", "ada")
		return c.SendString(fmt.Sprint(keys))
	})
	url := listenV3(t, app)
	ada := webtest.NewBrowser(t)
	ada.Want(http.MethodGet, url, "[]")
	ada.Want(http.MethodGet, url, "[user]")
	id := ada.Cookie(url, cookieName)
	s, err := sessions.GetByID(t.Context(), id)
	if err != nil || s.Get("user") != "ada" {
		t.Fatalf("GetByID: %v", err)
	}
	s.Release()
	if err := sessions.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := sessions.GetByID(t.Context(), id); !errors.Is(err, session.ErrSessionIDNotFoundInStore) {
		t.Errorf("GetByID after Delete: %v", err)
	}
	ada.Want(http.MethodGet, url, "[]")
}

// A token of the CSRF middleware is deleted and set as it goes.
func TestCSRFTokensInAKV(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		storage, _ := kv(t, pgtest.Schema(t))
		var url string
		if version == "v2" {
			app := fiberv2.New(fiberv2.Config{DisableStartupMessage: true})
			app.Use(csrfv2.New(csrfv2.Config{Storage: storage, SingleUseToken: true}))
			app.All("/", func(*fiberv2.Ctx) error { return nil })
			url = listenV2(t, app)
		} else {
			app := fiber.New()
			app.Use(csrf.New(csrf.Config{Storage: storage, SingleUseToken: true}))
			app.All("/", func(fiber.Ctx) error { return nil })
			url = listenV3(t, app)
		}
		token := func() string {
			t.Helper()
			_, first, _ := request(t, http.MethodGet, url)
			cookie, err := http.ParseSetCookie(first.Get("Set-Cookie"))
			if err != nil || cookie.Name != "csrf_" {
				t.Fatalf("the cookie is %v, %v", cookie, err)
			}
			return cookie.Value
		}()
		headers := []string{"X-Csrf-Token", token, "Cookie", "csrf_=" + token, "Origin", url}
		for n, want := range []int{http.StatusOK, http.StatusForbidden} { // it is for one use
			if status, _, body := request(t, http.MethodPost, url, headers...); status != want {
				t.Errorf("use %d of the token: %d %q, want %d", n+1, status, body, want)
			}
		}
		headers[1] = rand.Text()
		if status, _, _ := request(t, http.MethodPost, url, headers...); status != http.StatusForbidden {
			t.Errorf("a token made up: %d, want 403", status)
		}
	})
}

func TestIdempotencyKeysInAKV(t *testing.T) {
	t.Parallel()
	storage, _ := kv(t, pgtest.Schema(t))
	var orders atomic.Int64
	app := fiber.New()
	app.Use(idempotency.New(idempotency.Config{Storage: storage}))
	app.Post("/", func(c fiber.Ctx) error { return c.SendString(fmt.Sprint("order ", orders.Add(1))) })
	url := listenV3(t, app)
	key := strings.Repeat("k", 36)
	for range 3 {
		if _, _, body := request(t, http.MethodPost, url, "X-Idempotency-Key", key); body != "order 1" {
			t.Errorf("the answer is %q, want that of the first", body)
		}
	}
}
