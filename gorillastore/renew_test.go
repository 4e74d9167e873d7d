package gorillastore_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/gorillastore"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/webtest"
)

// user is a Config.Subject.
func user(values map[any]any) string { name, _ := values["user"].(string); return name }

// renew returns a handler that changes the session "s", if change is not nil, and saves it under a new token.
func renew(store *gorillastore.Store, change func(r *http.Request, values map[any]any)) handler {
	return func(w http.ResponseWriter, r *http.Request) string {
		session, err := store.Get(r, "s")
		if err != nil {
			return err.Error()
		}
		if change != nil {
			change(r, session.Values)
		}
		fmt.Sscan(r.FormValue("age"), &session.Options.MaxAge)
		session.ID = ""
		switch err := session.Save(r, w); {
		case errors.Is(err, pgsession.ErrTooManySessions):
			return "too many"
		case err != nil:
			return err.Error()
		}
		return "saved"
	}
}

func TestARenewalAtTheLimitOfSessionsEndsNobodysSession(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1, 2} {
		for name, overflow := range map[string]pgsession.Overflow{
			"reject": pgsession.OverflowReject, "evict the oldest": pgsession.OverflowEvictOldest,
		} {
			t.Run(fmt.Sprint(most, " ", name), func(t *testing.T) {
				t.Parallel()
				pg := open(t, pgtest.Database(t), pgsession.Config{MaxPerSubject: most, Overflow: overflow})
				store := newStore(t, pg, gorillastore.Config{Subject: user})
				address := serve(t, map[string]handler{
					"/visit": put(store, "cart", "tea"),
					"/login": renew(store, func(r *http.Request, values map[any]any) {
						values["user"] = "ada"
						values["at"] = r.FormValue("at")
					}),
					"/who": get(store, "user"), "/at": get(store, "at"), "/cart": get(store, "cart"),
				})
				devices := make([]*webtest.Browser, most)
				for i := range devices {
					devices[i] = webtest.NewBrowser(t)
					devices[i].Want(http.MethodGet, address+"/login?at=1", "saved")
				}
				for again := range 3 {
					at := fmt.Sprint("again ", again)
					thief := devices[0].Copy(address)
					devices[0].Want(http.MethodGet, address+"/login?at="+strings.ReplaceAll(at, " ", "+"), "saved")
					devices[0].Want(http.MethodGet, address+"/at", at+"<nil>")
					thief.Want(http.MethodGet, address+"/who", "<nil><nil>")
				}
				for _, device := range devices {
					device.Want(http.MethodGet, address+"/who", "ada<nil>")
				}
				if n := count(t, pg, pgsession.Filter{Subject: "ada"}); n != int64(most) {
					t.Errorf("ada has %d sessions, want %d", n, most)
				}

				// A login, by contrast, is one more.
				late := webtest.NewBrowser(t)
				late.Want(http.MethodGet, address+"/visit", "<nil> <nil>")
				if overflow == pgsession.OverflowReject {
					late.Want(http.MethodGet, address+"/login", "too many")
					late.Want(http.MethodGet, address+"/cart", "tea<nil>")
					late.Want(http.MethodGet, address+"/who", "<nil><nil>")
				} else {
					late.Want(http.MethodGet, address+"/login", "saved")
					late.Want(http.MethodGet, address+"/who", "ada<nil>")
					devices[0].Want(http.MethodGet, address+"/who", "<nil><nil>")
				}
				if n := count(t, pg, pgsession.Filter{Subject: "ada"}); n != int64(most) {
					t.Errorf("after one more login ada has %d sessions, want %d", n, most)
				}
			})
		}
	}
}

func TestARenewalWritesWhatASaveWrites(t *testing.T) {
	t.Parallel()
	pg := open(t, pgtest.Database(t), pgsession.Config{
		IdleTimeout: 3 * time.Hour, Columns: []pgsession.Column{{Name: "plan", Type: "text"}},
	})
	store := newStore(t, pg, gorillastore.Config{
		Subject: user,
		Columns: func(values map[any]any) map[string]any { return map[string]any{"plan": values["plan"]} },
	})
	set := func(r *http.Request, values map[any]any) {
		values["user"], values["plan"] = r.FormValue("user"), r.FormValue("plan")
	}
	address := serve(t, map[string]handler{
		"/visit": put(store, "cart", "tea"), "/renew": renew(store, set), "/cart": get(store, "cart"),
	})
	ada := webtest.NewBrowser(t)
	ada.Want(http.MethodGet, address+"/visit", "<nil> <nil>")
	var began time.Time
	for i, step := range []struct {
		subject, plan string
		age           int
		idle          time.Duration
	}{
		{"", "none", 3600, time.Hour},
		{"ada", "gold", 7200, 2 * time.Hour},
		{"ada", "gold", 0, 3 * time.Hour}, // as a new session
		{"ada", "lead", 60, time.Minute},
		{"", "none", 60, time.Minute}, // nobody's from now on
	} {
		ada.Want(http.MethodGet, fmt.Sprintf("%s/renew?user=%s&plan=%s&age=%d", address, step.subject, step.plan, step.age), "saved")
		var there []pgsession.Session
		for s, err := range pg.All(t.Context(), pgsession.Filter{}) {
			if err != nil {
				t.Fatal(err)
			}
			there = append(there, s)
		}
		if len(there) != 1 {
			t.Fatalf("step %d: %d sessions", i, len(there))
		}
		s := there[0]
		if s.Subject != step.subject || s.Columns["plan"] != step.plan || s.IdleTimeout != step.idle {
			t.Errorf("step %d: %+v, want %+v", i, s, step)
		}
		if i > 0 && !s.CreatedAt.Equal(began) {
			t.Errorf("step %d: it began at %v, and before at %v", i, s.CreatedAt, began)
		}
		began = s.CreatedAt
		ada.Want(http.MethodGet, address+"/cart", "tea<nil>")
	}
}

func TestARenewalThatMeetsAWriteLosesNothing(t *testing.T) {
	t.Parallel()
	pg := open(t, pgtest.Database(t), pgsession.Config{})
	store := newStore(t, pg, gorillastore.Config{})
	between := make(chan struct{})
	wait := func(*http.Request, map[any]any) { between <- struct{}{}; <-between }
	address := serve(t, map[string]handler{
		"/put": put(store, "n", 1), "/more": put(store, "m", 2), "/n": get(store, "n"), "/m": get(store, "m"),
		"/renew": renew(store, wait),
		"/change": renew(store, func(r *http.Request, values map[any]any) {
			values["n"] = 3
			wait(r, values)
		}),
	})
	for path, want := range map[string]string{"/renew": "2<nil>", "/change": "<nil><nil>"} { // the last save wins
		ada := webtest.NewBrowser(t)
		ada.Want(http.MethodGet, address+"/put", "<nil> <nil>")
		answer := make(chan webtest.Response)
		go func() { answer <- ada.Get(address + path) }()
		<-between
		ada.Copy(address).Want(http.MethodGet, address+"/more", "<nil> <nil>")
		between <- struct{}{}
		if r := <-answer; r.Body != "saved" {
			t.Fatalf("%s: %s", path, r.Body)
		}
		ada.Want(http.MethodGet, address+"/m", want)
		if path == "/change" {
			ada.Want(http.MethodGet, address+"/n", "3<nil>")
		}
	}
}

// What fails after the token is a new one must not cost the user the session.
func TestARenewalThatFailsLogsNobodyOut(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	var fail atomic.Value // the function to fail after, or before with a "!"
	fail.Store("")
	cfg := pgsession.Config{Schema: pgtest.Schema(t), Columns: []pgsession.Column{{Name: "plan", Type: "text"}}}
	pg, err := pgsession.New(func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
		name, before := strings.CutPrefix(fail.Load().(string), "!")
		if name == "" || !strings.Contains(sql, `"session_`+name+`"`) {
			return pool.Query(ctx, sql, args...)
		}
		if !before {
			rows, err := pool.Query(ctx, sql, args...)
			if err != nil {
				return nil, err
			}
			rows.Close()
		}
		return nil, errors.New("the connection was lost")
	}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pg.Close() })
	if err := pg.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	store := newStore(t, pg, gorillastore.Config{
		Subject: user, Columns: func(values map[any]any) map[string]any { return map[string]any{"plan": values["plan"]} },
	})
	address := serve(t, map[string]handler{
		"/put": put(store, "cart", "tea"), "/cart": get(store, "cart"), "/who": get(store, "user"),
		"/login": renew(store, func(_ *http.Request, values map[any]any) { values["user"] = "ada" }),
	})
	for failing, who := range map[string]string{"set": "ada", "renew": "ada", "!set": "ada", "!renew": "<nil>"} {
		ada := webtest.NewBrowser(t)
		ada.Want(http.MethodGet, address+"/put", "<nil> <nil>")
		fail.Store(failing)
		got := ada.Get(address + "/login").Body
		fail.Store("")
		if saved := got == "saved"; saved != (failing == "renew") {
			t.Errorf("%s: %s", failing, got)
		}
		ada.Want(http.MethodGet, address+"/who", who+"<nil>")
		ada.Want(http.MethodGet, address+"/cart", "tea<nil>")
	}
}
