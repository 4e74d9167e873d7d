package fiberstorage_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/fiberstorage"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// each runs a test with each version of fiber.
func each(t *testing.T, f func(t *testing.T, version string)) {
	t.Parallel()
	for version := range versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			f(t, version)
		})
	}
}

func TestABrowsersDay(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		schema := pgtest.Schema(t)
		store := openStore(t, schema, pgsession.Config{})
		a := start(t, version, sessions(t, store), time.Hour)
		ada := newBrowser(t)

		first := ada.want(http.MethodGet, a.url+"/", "<nil> 1")
		c := first.cookie
		if c == nil || !c.HttpOnly || c.Secure || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.MaxAge != 3600 {
			t.Errorf("the cookie is %v", c)
		}
		anonymous := ada.id(a.url)
		planted := ada.thief(a.url)
		ada.want(http.MethodGet, a.url+"/", "<nil> 2")
		ada.want(http.MethodPost, a.url+"/login/ada", "*")
		if id := ada.id(a.url); id == anonymous || id == "" {
			t.Errorf("the login left the id as it was: %q", id)
		}
		ada.want(http.MethodGet, a.url+"/", "ada 3")
		planted.want(http.MethodGet, a.url+"/", "<nil> 1")

		// The server is restarted, with another address, and forgets what it had in memory.
		a.stop()
		if err := a.storage.Close(); err != nil {
			t.Fatal(err)
		}
		store = openStore(t, schema, pgsession.Config{})
		a = start(t, version, sessions(t, store), time.Hour)
		ada.want(http.MethodGet, a.url+"/", "ada 4")

		thief := ada.thief(a.url)
		ada.want(http.MethodPost, a.url+"/logout", "*")
		if id := ada.id(a.url); id != "" {
			t.Errorf("after the logout the browser has the id %q", id)
		}
		ada.want(http.MethodGet, a.url+"/", "<nil> 1")
		thief.want(http.MethodGet, a.url+"/", "<nil> 1")

		before := ada.id(a.url)
		ada.want(http.MethodPost, a.url+"/reset", "*")
		if ada.id(a.url) == before {
			t.Error("Reset left the id as it was")
		}
		ada.want(http.MethodGet, a.url+"/", "<nil> 1")
		ada.want(http.MethodPost, a.url+"/all", "*")
		ada.want(http.MethodGet, a.url+"/", "<nil> 1")
	})
}

func TestASlowRequestDoesNotBringASessionBack(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		schema := pgtest.Schema(t)
		// Two instances: the logout comes to the other one.
		a := start(t, version, sessions(t, openStore(t, schema, pgsession.Config{})), time.Hour)
		b := start(t, version, sessions(t, openStore(t, schema, pgsession.Config{})), time.Hour)
		for _, end := range []string{"/logout", "/login/ada", "/reset", "/all"} {
			for _, slow := range []string{"/slow", "/read"} {
				ada := newBrowser(t)
				ada.want(http.MethodPost, a.url+"/login/ada", "*")
				id := ada.id(a.url)
				thief := ada.thief(a.url)

				answers := make(chan answer)
				go func() { answers <- ada.do(http.MethodGet, a.url+slow) }()
				<-a.gate.arrived
				ada.want(http.MethodPost, b.url+end, "*")
				after := ada.id(b.url)
				a.gate.open <- struct{}{}

				// It is answered as if nothing were, and leaves the browser's cookie alone.
				if late := <-answers; late.err != nil || late.status != http.StatusOK || late.cookie != nil ||
					!strings.HasPrefix(late.body, "ada") {
					t.Errorf("%s during %s: %d %q, %v, cookie %v", end, slow, late.status, late.body, late.err, late.cookie)
				}
				if end != "/all" && ada.id(a.url) != after {
					t.Errorf("%s during %s: the browser's id became %q", end, slow, ada.id(a.url))
				}
				thief.want(http.MethodGet, a.url+"/", "<nil> 1")
				thief.want(http.MethodGet, b.url+"/", "<nil> 2")
				if thief.id(a.url) == id {
					t.Errorf("%s during %s: the id that was ended lives", end, slow)
				}
				if end == "/login/ada" {
					ada.want(http.MethodGet, a.url+"/", "ada 1")
				}
			}
		}
	})
}

func TestFiftyParallelRequestsOfOneSession(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		a := start(t, version, sessions(t, openStore(t, pgtest.Schema(t), pgsession.Config{})), time.Hour)
		ada := newBrowser(t)
		ada.want(http.MethodPost, a.url+"/login/ada", "*")
		id := ada.id(a.url)
		var group sync.WaitGroup
		for range 50 {
			group.Go(func() {
				if got := ada.do(http.MethodGet, a.url+"/"); got.status != http.StatusOK || !strings.HasPrefix(got.body, "ada ") {
					t.Errorf("%d %q, %v", got.status, got.body, got.err)
				}
			})
		}
		group.Wait()
		if ada.id(a.url) != id {
			t.Error("the id has changed")
		}
		// What fiber loses in between are visits, since it saves whole sessions; the session is there.
		ada.want(http.MethodGet, a.url+"/", "*")
		ada.want(http.MethodPost, a.url+"/logout", "*")
		ada.want(http.MethodGet, a.url+"/", "<nil> 1")
	})
}

func TestASessionThatIsNotUsedExpires(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		store := openStore(t, pgtest.Schema(t), pgsession.Config{})
		a := start(t, version, sessions(t, store), time.Second) // fiber v2's shortest
		ada := newBrowser(t)
		ada.want(http.MethodPost, a.url+"/login/ada", "*")
		id := pgsession.Token(ada.id(a.url))
		session, err := store.Get(t.Context(), id)
		if err != nil || session.IdleTimeout != time.Second {
			t.Fatalf("idle timeout %v, %v; want 1s", session.IdleTimeout, err)
		}
		// The cookie's own life is the browser's affair: this one keeps it.
		thief := ada.thief(a.url)
		poll := time.NewTicker(20 * time.Millisecond)
		defer poll.Stop()
		for err == nil {
			<-poll.C
			_, err = store.GetFresh(t.Context(), id)
		}
		if !errors.Is(err, pgsession.ErrNotFound) {
			t.Fatal(err)
		}
		thief.want(http.MethodGet, a.url+"/", "<nil> 1")
	})
}

func TestADatabaseThatDoesNotAnswerLogsNobodyOut(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		schema := pgtest.Schema(t)
		pool := pgtest.Connect(t, pgtest.URL(t))
		store, err := pgsession.New(pool.Query, pgsession.Config{Schema: schema})
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Setup(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = store.Close() })
		a := start(t, version, sessions(t, store), time.Hour)
		ada := newBrowser(t)
		ada.want(http.MethodPost, a.url+"/login/ada", "*")

		pool.Close()
		if got := ada.do(http.MethodGet, a.url+"/"); got.status != http.StatusInternalServerError || got.cookie != nil {
			t.Errorf("with the database away: %d, cookie %v; want 500 and none", got.status, got.cookie)
		}
		a = start(t, version, sessions(t, openStore(t, schema, pgsession.Config{})), time.Hour)
		ada.want(http.MethodGet, a.url+"/", "ada 1")
	})
}

func TestACallEndsThatTheDatabaseDoesNotAnswer(t *testing.T) {
	t.Parallel()
	schema := pgtest.Schema(t)
	openStore(t, schema, pgsession.Config{})
	pool := pgtest.Pool(t)
	store, err := pgsession.New(pool.Query, pgsession.Config{Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	storage, err := fiberstorage.Sessions(store, fiberstorage.Options{Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	lock, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Rollback(context.Background()) }()
	if _, err := lock.Exec(t.Context(), "lock table "+schema+".session"); err != nil {
		t.Fatal(err)
	}
	if _, err := storage.Get("key"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Get: %v, want a deadline's error", err)
	}
	if err := storage.Set("key", []byte("value"), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Set: %v, want a deadline's error", err)
	}
}

func TestSessionsAreDescribed(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		store := openStore(t, pgtest.Schema(t), pgsession.Config{})
		storage, err := fiberstorage.Sessions(store, fiberstorage.Options{Describe: func(s *pgsession.Session) error {
			if strings.Contains(string(s.Data), "ada") { // an application would decode its gob
				s.Subject = "ada"
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		a := start(t, version, storage, time.Hour)
		laptop, phone, bob := newBrowser(t), newBrowser(t), newBrowser(t)
		laptop.want(http.MethodPost, a.url+"/login/ada", "*")
		phone.want(http.MethodPost, a.url+"/login/ada", "*")
		bob.want(http.MethodPost, a.url+"/login/bob", "*")
		if n, err := store.Revoke(t.Context(), pgsession.Revocation{Subject: "ada"}); n != 2 || err != nil {
			t.Fatalf("revoked %d, %v; want 2", n, err)
		}
		laptop.want(http.MethodGet, a.url+"/", "<nil> 1")
		phone.want(http.MethodGet, a.url+"/", "<nil> 1")
		bob.want(http.MethodGet, a.url+"/", "bob 1")
	})
}

func TestADescriptionThatFailsIsAnError(t *testing.T) {
	t.Parallel()
	failure := errors.New("no such user")
	storage, err := fiberstorage.Sessions(openStore(t, pgtest.Schema(t), pgsession.Config{}), fiberstorage.Options{
		Describe: func(*pgsession.Session) error { return failure },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := storage.Set("key", []byte("value"), 0); !errors.Is(err, failure) {
		t.Errorf("Set: %v, want %v", err, failure)
	}
	if value, err := storage.Get("key"); value != nil || err != nil {
		t.Errorf("Get: %q, %v; want nothing", value, err)
	}
}
