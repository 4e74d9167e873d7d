package fiberstorage_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/fiberstorage"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/webtest"
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
		ada := webtest.NewBrowser(t)

		first := ada.Want(http.MethodGet, a.url+"/", "<nil> 1")
		c := sessionCookie(first)
		if c == nil || !c.HttpOnly || c.Secure || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.MaxAge != 3600 {
			t.Errorf("the cookie is %v", c)
		}
		anonymous := ada.Cookie(a.url, cookieName)
		planted := ada.Copy(a.url)
		ada.Want(http.MethodGet, a.url+"/", "<nil> 2")
		post(t, ada, a.url+"/login/ada")
		if id := ada.Cookie(a.url, cookieName); id == anonymous || id == "" {
			t.Errorf("the login left the id as it was: %q", id)
		}
		ada.Want(http.MethodGet, a.url+"/", "ada 3")
		planted.Want(http.MethodGet, a.url+"/", "<nil> 1")

		// The server is restarted, with another address, and forgets what it had in memory.
		a.stop()
		if err := a.storage.Close(); err != nil {
			t.Fatal(err)
		}
		store = openStore(t, schema, pgsession.Config{})
		a = start(t, version, sessions(t, store), time.Hour)
		ada.Want(http.MethodGet, a.url+"/", "ada 4")

		thief := ada.Copy(a.url)
		post(t, ada, a.url+"/logout")
		if id := ada.Cookie(a.url, cookieName); id != "" {
			t.Errorf("after the logout the browser has the id %q", id)
		}
		ada.Want(http.MethodGet, a.url+"/", "<nil> 1")
		thief.Want(http.MethodGet, a.url+"/", "<nil> 1")

		before := ada.Cookie(a.url, cookieName)
		post(t, ada, a.url+"/reset")
		if ada.Cookie(a.url, cookieName) == before {
			t.Error("Reset left the id as it was")
		}
		ada.Want(http.MethodGet, a.url+"/", "<nil> 1")
		post(t, ada, a.url+"/all")
		ada.Want(http.MethodGet, a.url+"/", "<nil> 1")
	})
}

// Fiber saves what every request has, also where nothing was put into it: a bot would leave a session with
// every request.
func TestASessionWithNothingInItMakesNoRow(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		schema := pgtest.Schema(t)
		store := openStore(t, schema, pgsession.Config{})
		rows := func(where string) (n int) {
			t.Helper()
			if err := pgtest.Pool(t).QueryRow(t.Context(), "select count(*) from "+schema+".session where "+where).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		a := start(t, version, sessions(t, store), time.Hour)
		for range 20 {
			webtest.NewBrowser(t).Want(http.MethodGet, a.url+"/who", "<nil>")
		}
		if n, sets := rows("true"), store.Stats().Sets; n != 0 || sets != 0 {
			t.Errorf("bots left %d rows by %d writes", n, sets)
		}
		ada := webtest.NewBrowser(t)
		ada.Want(http.MethodGet, a.url+"/who", "<nil>") // and has a cookie
		ada.Want(http.MethodGet, a.url+"/", "<nil> 1")
		ada.Want(http.MethodGet, a.url+"/", "<nil> 2")
		post(t, ada, a.url+"/empty")
		ada.Want(http.MethodGet, a.url+"/", "<nil> 1") // what is emptied is there, empty
		if n := rows("true"); n != 1 {
			t.Errorf("%d rows, want 1", n)
		}

		// One that is emptied by a slow request is not there any more after the logout.
		late := make(chan webtest.Response)
		go func() { late <- ada.Get(a.url + "/slowempty") }()
		<-a.gate.arrived
		post(t, ada, a.url+"/logout")
		a.gate.open <- struct{}{}
		if c := sessionCookie(<-late); c != nil {
			t.Errorf("the slow request sets the cookie %v", c)
		}
		if n := rows("revoked_at is null"); n != 0 {
			t.Errorf("%d sessions after the logout", n)
		}
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
				ada := webtest.NewBrowser(t)
				post(t, ada, a.url+"/login/ada")
				id := ada.Cookie(a.url, cookieName)
				thief := ada.Copy(a.url)

				answers := make(chan webtest.Response)
				go func() { answers <- ada.Get(a.url + slow) }()
				<-a.gate.arrived
				post(t, ada, b.url+end)
				after := ada.Cookie(b.url, cookieName)
				a.gate.open <- struct{}{}

				// It is answered as if nothing were, and leaves the browser's cookie alone.
				if late := <-answers; late.Status != http.StatusOK || len(late.Cookies) != 0 || !strings.HasPrefix(late.Body, "ada") {
					t.Errorf("%s during %s: %d %q, cookies %v", end, slow, late.Status, late.Body, late.Cookies)
				}
				if end != "/all" && ada.Cookie(a.url, cookieName) != after {
					t.Errorf("%s during %s: the browser's id became %q", end, slow, ada.Cookie(a.url, cookieName))
				}
				thief.Want(http.MethodGet, a.url+"/", "<nil> 1")
				thief.Want(http.MethodGet, b.url+"/", "<nil> 2")
				if thief.Cookie(a.url, cookieName) == id {
					t.Errorf("%s during %s: the id that was ended lives", end, slow)
				}
				if end == "/login/ada" {
					ada.Want(http.MethodGet, a.url+"/", "ada 1")
				}
			}
		}
	})
}

func TestFiftyParallelRequestsOfOneSession(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		a := start(t, version, sessions(t, openStore(t, pgtest.Schema(t), pgsession.Config{})), time.Hour)
		ada := webtest.NewBrowser(t)
		post(t, ada, a.url+"/login/ada")
		id := ada.Cookie(a.url, cookieName)
		var group sync.WaitGroup
		for range 50 {
			group.Go(func() {
				if got := ada.Get(a.url + "/"); got.Status != http.StatusOK || !strings.HasPrefix(got.Body, "ada ") {
					t.Errorf("%d %q", got.Status, got.Body)
				}
			})
		}
		group.Wait()
		if ada.Cookie(a.url, cookieName) != id {
			t.Error("the id has changed")
		}
		// What fiber loses in between are visits, since it saves whole sessions; the session is there.
		ada.Get(a.url + "/")
		post(t, ada, a.url+"/logout")
		ada.Want(http.MethodGet, a.url+"/", "<nil> 1")
	})
}

func TestASessionThatIsNotUsedExpires(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		store := openStore(t, pgtest.Schema(t), pgsession.Config{})
		a := start(t, version, sessions(t, store), time.Second) // fiber v2's shortest
		ada := webtest.NewBrowser(t)
		post(t, ada, a.url+"/login/ada")
		id := pgsession.Token(ada.Cookie(a.url, cookieName))
		session, err := store.Get(t.Context(), id)
		if err != nil || session.IdleTimeout != time.Second {
			t.Fatalf("idle timeout %v, %v; want 1s", session.IdleTimeout, err)
		}
		// The cookie's own life is the browser's affair: this one keeps it.
		thief := ada.Copy(a.url)
		poll := time.NewTicker(20 * time.Millisecond)
		defer poll.Stop()
		for err == nil {
			<-poll.C
			_, err = store.GetFresh(t.Context(), id)
		}
		if !errors.Is(err, pgsession.ErrNotFound) {
			t.Fatal(err)
		}
		thief.Want(http.MethodGet, a.url+"/", "<nil> 1")
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
		ada := webtest.NewBrowser(t)
		post(t, ada, a.url+"/login/ada")

		pool.Close()
		if got := ada.Get(a.url + "/"); got.Status != http.StatusInternalServerError || len(got.Cookies) != 0 {
			t.Errorf("with the database away: %d, cookies %v; want 500 and none", got.Status, got.Cookies)
		}
		a = start(t, version, sessions(t, openStore(t, schema, pgsession.Config{})), time.Hour)
		ada.Want(http.MethodGet, a.url+"/", "ada 1")
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
		laptop, phone, bob := webtest.NewBrowser(t), webtest.NewBrowser(t), webtest.NewBrowser(t)
		post(t, laptop, a.url+"/login/ada")
		post(t, phone, a.url+"/login/ada")
		post(t, bob, a.url+"/login/bob")
		if n, err := store.Revoke(t.Context(), pgsession.Revocation{Subject: "ada"}); n != 2 || err != nil {
			t.Fatalf("revoked %d, %v; want 2", n, err)
		}
		laptop.Want(http.MethodGet, a.url+"/", "<nil> 1")
		phone.Want(http.MethodGet, a.url+"/", "<nil> 1")
		bob.Want(http.MethodGet, a.url+"/", "bob 1")
	})
}

// Fiber does not know whose a session is. The application may, and says so while fiber has the session, or before.
func TestASaveKeepsWhatTheApplicationGaveTheSession(t *testing.T) {
	t.Parallel()
	schema := pgtest.Schema(t)
	cfg := pgsession.Config{Columns: []pgsession.Column{{Name: "plan", Type: "text"}}}
	store := openStore(t, schema, cfg)
	storage, another := sessions(t, store), sessions(t, openStore(t, schema, cfg))
	give := func(subject string) {
		t.Helper()
		_, err := store.Update(t.Context(), "key", func(s *pgsession.Session) error {
			s.Subject, s.Columns = subject, map[string]any{"plan": "of " + subject}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	save := func(storage *fiberstorage.Storage) {
		t.Helper()
		n++
		if err := storage.Set("key", fmt.Appendf(nil, "value %d", n), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	want := func(when, subject string) {
		t.Helper()
		s, err := store.GetFresh(t.Context(), "key")
		if err != nil || s.Subject != subject || s.Columns["plan"] != "of "+subject || string(s.Data) != fmt.Sprint("value ", n) {
			t.Errorf("%s: %q of %q, %v, %v", when, s.Data, s.Subject, s.Columns, err)
		}
	}
	save(storage)
	give("ada")
	save(storage)
	want("given after a save", "ada")
	give("bob")
	if _, err := storage.Get("key"); err != nil {
		t.Fatal(err)
	}
	sets := store.Stats().Sets
	save(storage)
	want("given before a load", "bob")
	if n := store.Stats().Sets - sets; n != 1 {
		t.Errorf("the save after a load took %d calls", n)
	}
	give("ada")
	save(another)
	want("saved by an instance that did not load it", "ada")
	save(storage)
	want("saved by two", "ada")
	if n, err := store.Revoke(t.Context(), pgsession.Revocation{Subject: "ada"}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	for _, s := range []*fiberstorage.Storage{storage, another} {
		if err := s.Set("key", []byte("late"), time.Hour); !errors.Is(err, pgsession.ErrRevoked) {
			t.Errorf("a save after the end: %v", err)
		}
	}
}

func TestASaveOfASessionThatHasExpiredBeginsItAnew(t *testing.T) {
	t.Parallel()
	storage := sessions(t, openStore(t, pgtest.Schema(t), pgsession.Config{}))
	if err := storage.Set("key", []byte("one"), time.Millisecond); err != nil {
		t.Fatal(err)
	}
	for value := []byte{1}; value != nil; {
		var err error
		if value, err = storage.Get("key"); err != nil {
			t.Fatal(err)
		}
	}
	if err := storage.Set("key", []byte("two"), time.Hour); err != nil {
		t.Fatal(err)
	}
	if value, err := storage.Get("key"); err != nil || string(value) != "two" {
		t.Errorf("%q, %v", value, err)
	}
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
