package gorillastore_test

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/securecookie"
	gorilla "github.com/gorilla/sessions"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/gorillastore"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
	"github.com/pgsession/pgsession/internal/webtest"
)

// handler does something with a request and answers with a text.
type handler = func(w http.ResponseWriter, r *http.Request) string

func serve(t *testing.T, routes map[string]handler) string {
	t.Helper()
	mux := http.NewServeMux()
	for path, do := range routes {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, do(w, r)) })
	}
	return webtest.Serve(t, mux)
}

// put returns a handler that puts a value into the session "s" and saves it.
func put(store gorilla.Store, key, value any) handler {
	return func(w http.ResponseWriter, r *http.Request) string {
		session, err := store.Get(r, "s")
		session.Values[key] = value
		return fmt.Sprint(err, session.Save(r, w))
	}
}

// get returns a handler that answers with a value of the session, and does not save it.
func get(store gorilla.Store, key any) handler {
	return func(_ http.ResponseWriter, r *http.Request) string {
		session, err := store.Get(r, "s")
		return fmt.Sprintf("%v%v", session.Values[key], err)
	}
}

func count(t *testing.T, pg *pgsession.Store, filter pgsession.Filter) int64 {
	t.Helper()
	n, err := pg.Count(t.Context(), filter)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTheRegistryGivesARequestOneSessionOfAName(t *testing.T) {
	t.Parallel()
	pg := open(t, pgtest.Database(t), pgsession.Config{})
	store := newStore(t, pg, gorillastore.Config{})
	address := serve(t, map[string]handler{
		"/": func(w http.ResponseWriter, r *http.Request) string {
			a, errA := store.Get(r, "a")
			again, _ := store.Get(r, "a")
			alone, _ := store.New(r, "a")
			b, errB := store.Get(r, "b")
			if a != again || a == alone || a == b || a.Store() != gorilla.Store(store) || a.Name() != "a" {
				t.Errorf("%p, %p, %p, %p", a, again, alone, b)
			}
			if a.Options == b.Options || a.Options == alone.Options {
				t.Error("two sessions share their options")
			}
			was := fmt.Sprintln(a.IsNew, b.IsNew, a.Values["n"], b.Values["n"])
			a.Values["n"], b.Values["n"] = "of a", "of b"
			b.Options.MaxAge = 60
			err := gorilla.Save(r, w) // all of the request's
			if a.ID == "" || a.ID == b.ID {
				t.Errorf("the ids are %q and %q", a.ID, b.ID)
			}
			_, invalid := store.Get(r, "no cookie's name")
			if invalid == nil {
				t.Error("a name that no cookie can have is no error")
			}
			return fmt.Sprint(was, errA, errB, err)
		},
	})
	ada := webtest.NewBrowser(t)
	r := ada.Want(http.MethodGet, address, "true true <nil> <nil>\n<nil> <nil> <nil>")
	if len(r.Cookies) != 2 {
		t.Errorf("the cookies are %v", r.Cookies)
	}
	for _, c := range r.Cookies {
		if want := map[string]int{"a": 30 * 86400, "b": 60}[c.Name]; c.MaxAge != want {
			t.Errorf("%s: Max-Age is %d, want %d", c.Name, c.MaxAge, want)
		}
	}
	ada.Want(http.MethodGet, address, "false false of a of b\n<nil> <nil> <nil>")
	if n := count(t, pg, pgsession.Filter{}); n != 2 {
		t.Errorf("%d sessions, want 2", n)
	}
	// The cookie of one name is none of another.
	swapped := webtest.NewBrowser(t)
	swapped.SetCookie(address, "b", ada.Cookie(address, "a"))
	if got := swapped.Get(address).Body; !strings.HasPrefix(got, "true true <nil> <nil>") {
		t.Errorf("with the cookie of a for b: %s", got)
	}
}

func TestFlashesAreSeenOnce(t *testing.T) {
	t.Parallel()
	store := newStore(t, open(t, pgtest.Database(t), pgsession.Config{}), gorillastore.Config{})
	address := serve(t, map[string]handler{
		"/add": func(w http.ResponseWriter, r *http.Request) string {
			session, _ := store.Get(r, "s")
			session.Values["stays"] = 1
			session.AddFlash("saved")
			session.AddFlash(7, "other")
			return fmt.Sprint(session.Save(r, w))
		},
		"/show": func(w http.ResponseWriter, r *http.Request) string {
			session, _ := store.Get(r, "s")
			flashes := fmt.Sprint(session.Flashes(), session.Flashes("other"))
			return fmt.Sprint(flashes, session.Save(r, w))
		},
	})
	ada := webtest.NewBrowser(t)
	ada.Want(http.MethodGet, address+"/add", "<nil>")
	ada.Want(http.MethodGet, address+"/show", "[saved] [7]<nil>")
	ada.Want(http.MethodGet, address+"/show", "[] []<nil>")
}

func TestKeysRotate(t *testing.T) {
	t.Parallel()
	pg := open(t, pgtest.Database(t), pgsession.Config{})
	hash := [][]byte{[]byte(strings.Repeat("1", 64)), []byte(strings.Repeat("2", 32))}
	block := [][]byte{[]byte(strings.Repeat("a", 32)), []byte(strings.Repeat("b", 16))}
	old := newStore(t, pg, gorillastore.Config{}, hash[0], block[0])
	both := newStore(t, pg, gorillastore.Config{}, hash[1], block[1], hash[0], block[0])
	young := newStore(t, pg, gorillastore.Config{}, hash[1], block[1])
	address := map[string]string{}
	for name, store := range map[string]*gorillastore.Store{"old": old, "both": both, "young": young} {
		address[name] = serve(t, map[string]handler{
			"/put": put(store, "n", name), "/get": get(store, "n"),
		})
	}
	ada := webtest.NewBrowser(t)
	ada.Want(http.MethodGet, address["old"]+"/put", "<nil> <nil>")
	ada.Want(http.MethodGet, address["both"]+"/get", "old<nil>")
	// The new keys alone do not know the cookie: an error, with a new session, which may be saved.
	if got := ada.Get(address["young"] + "/get").Body; !strings.HasPrefix(got, "<nil>gorillastore: the cookie \"s\"") &&
		!strings.Contains(got, "securecookie") {
		t.Errorf("by the new keys alone: %s", got)
	}
	ada.Want(http.MethodGet, address["both"]+"/put", "<nil> <nil>") // signs it anew
	ada.Want(http.MethodGet, address["young"]+"/get", "both<nil>")
	bob := webtest.NewBrowser(t)
	bob.SetCookie(address["young"], "s", "forged")
	if got := bob.Get(address["young"] + "/put").Body; !strings.HasSuffix(got, " <nil>") || strings.HasPrefix(got, "<nil>") {
		t.Errorf("put over a forged cookie: %s", got)
	}
	bob.Want(http.MethodGet, address["young"]+"/get", "young<nil>")

	for name, keys := range map[string][][]byte{
		"none": nil, "an empty one": {{}}, "a block key of 5 bytes": {hash[0], []byte("12345")},
		"an empty second pair": {hash[0], nil, nil, nil},
	} {
		if _, err := gorillastore.New(pg, gorillastore.Config{}, keys...); !errors.Is(err, pgsession.ErrInvalid) {
			t.Errorf("with keys: %s: %v", name, err)
		}
	}
	if _, err := gorillastore.New(nil, gorillastore.Config{}, hash[0]); !errors.Is(err, pgsession.ErrInvalid) {
		t.Errorf("without sessions: %v", err)
	}
}

func TestTheDataMayBeLargerThanACookie(t *testing.T) {
	t.Parallel()
	pg := open(t, pgtest.Database(t), pgsession.Config{})
	store := newStore(t, pg, gorillastore.Config{})
	large := strings.Repeat("x", 500_000)
	address := serve(t, map[string]handler{
		"/put": put(store, "n", large), "/more": put(store, "m", strings.Repeat(large, 3)), "/get": get(store, "n"),
	})
	ada := webtest.NewBrowser(t)
	ada.Want(http.MethodGet, address+"/put", "<nil> <nil>")
	if n := len(ada.Cookie(address, "s")); n > 400 {
		t.Errorf("the cookie has %d bytes", n)
	}
	ada.Want(http.MethodGet, address+"/get", large+"<nil>")
	if got := ada.Get(address + "/more").Body; !strings.Contains(got, pgsession.ErrTooLarge.Error()) {
		t.Errorf("above MaxDataSize: %.200s", got)
	}
	ada.Want(http.MethodGet, address+"/get", large+"<nil>")
}

func TestMaxAgeIsTheIdleTimeout(t *testing.T) {
	t.Parallel()
	pg := open(t, pgtest.Database(t), pgsession.Config{IdleTimeout: 3 * time.Hour})
	store := newStore(t, pg, gorillastore.Config{})
	store.MaxAge(3600)
	row := func(cookie *http.Cookie) pgsession.Session {
		t.Helper()
		var token string
		if err := securecookie.DecodeMulti("s", cookie.Value, &token, securecookie.CodecsFromPairs(key)...); err != nil {
			t.Fatal(err)
		}
		s, err := pg.Get(t.Context(), pgsession.Token(token))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	address := serve(t, map[string]handler{
		"/put": put(store, "n", 1),
		"/age": func(w http.ResponseWriter, r *http.Request) string {
			session, _ := store.Get(r, "s")
			fmt.Sscan(r.FormValue("age"), &session.Options.MaxAge)
			return fmt.Sprint(session.Save(r, w))
		},
	})
	ada := webtest.NewBrowser(t)
	for _, step := range []struct {
		path, body string
		age        int
		idle       time.Duration
	}{
		{"/put", "<nil> <nil>", 3600, time.Hour},
		{"/age?age=7200", "<nil>", 7200, 2 * time.Hour},
		{"/age?age=0", "<nil>", 0, 2 * time.Hour}, // for as long as the browser runs
		{"/put", "<nil> <nil>", 3600, time.Hour},  // options are a request's, not a session's
		{"/age?age=6307200000", "<nil>", 6307200000, 99 * 365 * 24 * time.Hour},
	} {
		r := ada.Want(http.MethodGet, address+step.path, step.body)
		if len(r.Cookies) != 1 || r.Cookies[0].MaxAge != step.age {
			t.Fatalf("%s: the cookies are %v", step.path, r.Cookies)
		}
		if got := row(r.Cookies[0]).IdleTimeout; got != step.idle {
			t.Errorf("%s: the idle timeout is %v, want %v", step.path, got, step.idle)
		}
	}
	store.MaxAge(0)
	if r := webtest.NewBrowser(t).Want(http.MethodGet, address+"/put", "<nil> <nil>"); row(r.Cookies[0]).IdleTimeout != 3*time.Hour {
		t.Errorf("of a new session with MaxAge 0: %v", row(r.Cookies[0]).IdleTimeout)
	}
	r := ada.Want(http.MethodGet, address+"/age?age=-1", "<nil>")
	if len(r.Cookies) != 1 || r.Cookies[0].MaxAge >= 0 || ada.Cookie(address, "s") != "" {
		t.Errorf("with MaxAge -1 the cookies are %v", r.Cookies)
	}
	if n := count(t, pg, pgsession.Filter{}); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
}

// Other stores write the options that all requests share in every request: the race detector is what
// this test is for.
func TestOptionsAreSetWhileRequestsRun(t *testing.T) {
	t.Parallel()
	store := newStore(t, open(t, pgtest.Database(t), pgsession.Config{}), gorillastore.Config{})
	address := serve(t, map[string]handler{"/put": put(store, "n", 1)})
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			store.MaxAge(3600 + i)
			webtest.NewBrowser(t).Want(http.MethodGet, address+"/put", "<nil> <nil>")
			store.SetOptions(gorilla.Options{Path: "/", MaxAge: 60 + i})
		})
	}
	group.Wait()
}

func TestAnEmptySessionIsNotKept(t *testing.T) {
	t.Parallel()
	pg := open(t, pgtest.Database(t), pgsession.Config{})
	store := newStore(t, pg, gorillastore.Config{})
	address := serve(t, map[string]handler{
		"/put": put(store, "n", 1),
		"/save": func(w http.ResponseWriter, r *http.Request) string {
			session, _ := store.Get(r, "s")
			return fmt.Sprint(session.Save(r, w))
		},
		"/clear": func(w http.ResponseWriter, r *http.Request) string {
			session, _ := store.Get(r, "s")
			clear(session.Values)
			err := session.Save(r, w)
			session.Values["again"] = true // a new one, in the same request
			return fmt.Sprint(err, session.Save(r, w))
		},
	})
	ada := webtest.NewBrowser(t)
	if r := ada.Want(http.MethodGet, address+"/save", "<nil>"); len(r.Cookies) != 0 {
		t.Errorf("a visitor with nothing to remember gets %v", r.Cookies)
	}
	ada.Want(http.MethodGet, address+"/put", "<nil> <nil>")
	thief := ada.Copy(address)
	r := ada.Want(http.MethodGet, address+"/clear", "<nil> <nil>")
	if len(r.Cookies) != 2 || r.Cookies[0].MaxAge >= 0 || r.Cookies[1].Value == thief.Cookie(address, "s") {
		t.Errorf("the cookies are %v", r.Cookies)
	}
	if n := count(t, pg, pgsession.Filter{}); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
}

func TestAHundredSavesThatChangeNothingWriteNoData(t *testing.T) {
	t.Parallel()
	pg := open(t, pgtest.Database(t), pgsession.Config{})
	store := newStore(t, pg, gorillastore.Config{})
	gob.Register(declared{})
	address := serve(t, map[string]handler{
		"/fill": func(w http.ResponseWriter, r *http.Request) string {
			session, _ := store.Get(r, "s")
			for i := range 10 {
				session.Values[i] = fmt.Sprint(i)
				session.Values[fmt.Sprint(i)] = map[string]any{"a": 1, "b": 2, "c": []any{3}}
			}
			session.Values["declared"] = declared{map[string]int{"a": 1, "b": 2, "c": 3, "d": 4}}
			return fmt.Sprint(session.Save(r, w))
		},
		"/save": func(w http.ResponseWriter, r *http.Request) string {
			session, _ := store.Get(r, "s")
			return fmt.Sprint(session.Values[7], session.Save(r, w))
		},
	})
	ada := webtest.NewBrowser(t)
	ada.Want(http.MethodGet, address+"/fill", "<nil>")
	before := pg.Stats()
	for range 100 {
		ada.Want(http.MethodGet, address+"/save", "7<nil>")
	}
	after := pg.Stats()
	if after.Sets != before.Sets || after.Touches-before.Touches != 100 {
		t.Errorf("%d sets and %d touches", after.Sets-before.Sets, after.Touches-before.Touches)
	}
}

type declared struct{ M map[string]int }

func TestSubjectAndColumnsComeFromTheValues(t *testing.T) {
	t.Parallel()
	pg := open(t, pgtest.Database(t), pgsession.Config{Columns: []pgsession.Column{{Name: "plan", Type: "text"}}})
	store := newStore(t, pg, gorillastore.Config{
		Subject: func(values map[any]any) string { user, _ := values["user"].(string); return user },
		Columns: func(values map[any]any) map[string]any { return map[string]any{"plan": values["plan"]} },
	})
	address := serve(t, map[string]handler{
		"/plan": put(store, "plan", "gold"), "/user": put(store, "user", "ada"),
		"/get": get(store, "user"),
		"/renew": func(w http.ResponseWriter, r *http.Request) string {
			session, _ := store.Get(r, "s")
			session.ID = ""
			return fmt.Sprint(session.Save(r, w))
		},
	})
	ada := webtest.NewBrowser(t)
	ada.Want(http.MethodGet, address+"/plan", "<nil> <nil>")
	ada.Want(http.MethodGet, address+"/user", "<nil> <nil>")
	ada.Want(http.MethodGet, address+"/renew", "<nil>")
	if n := count(t, pg, pgsession.Filter{Subject: "ada", Columns: map[string]any{"plan": "gold"}}); n != 1 {
		t.Errorf("ada has %d sessions", n)
	}
	if _, err := pg.Revoke(t.Context(), pgsession.Revocation{Subject: "ada"}); err != nil {
		t.Fatal(err)
	}
	ada.Want(http.MethodGet, address+"/get", "<nil><nil>")
}

func TestARenewalThatOutlivesTheLogoutBringsNothingBack(t *testing.T) {
	t.Parallel()
	pg := open(t, pgtest.Database(t), pgsession.Config{})
	store := newStore(t, pg, gorillastore.Config{})
	between := make(chan func(), 1)
	address := serve(t, map[string]handler{
		"/put": put(store, "user", "ada"),
		"/renew": func(w http.ResponseWriter, r *http.Request) string {
			session, _ := store.Get(r, "s")
			(<-between)()
			session.ID = ""
			if err := session.Save(r, w); !errors.Is(err, pgsession.ErrRevoked) {
				t.Errorf("the save says %v", err)
			}
			return ""
		},
	})
	ada := webtest.NewBrowser(t)
	ada.Want(http.MethodGet, address+"/put", "<nil> <nil>")
	between <- func() {
		if _, err := pg.Clear(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if r := ada.Want(http.MethodGet, address+"/renew", ""); len(r.Cookies) != 0 {
		t.Errorf("the cookies are %v", r.Cookies)
	}
	if n := count(t, pg, pgsession.Filter{}); n != 0 {
		t.Errorf("%d sessions", n)
	}
}

// Handlers on gorilla ignore the error of Get: the outage is over before the save.
func TestASaveAfterALoadThatFailedReturnsItsError(t *testing.T) {
	t.Parallel()
	server := pgtest.PrivateServer(t, postgres.Options{})
	pg := open(t, server.URL(), pgsession.Config{Cache: pgsession.Cache{Mode: pgsession.CacheOff}})
	store := newStore(t, pg, gorillastore.Config{})
	between := make(chan func(), 1)
	address := serve(t, map[string]handler{
		"/put": put(store, "user", "ada"),
		"/get": get(store, "user"),
		"/write": func(w http.ResponseWriter, r *http.Request) string {
			session, err := store.Get(r, "s")
			if session == nil || !session.IsNew || err == nil || !errors.Is(store.LoadError(session), err) {
				t.Errorf("%v, %v, %v", session, err, store.LoadError(session))
			}
			(<-between)()
			session.Values["visits"] = 1
			if saved := session.Save(r, w); saved == nil || !errors.Is(saved, err) {
				t.Errorf("the save says %v, the load %v", saved, err)
			}
			return ""
		},
	})
	ada := webtest.NewBrowser(t)
	ada.Want(http.MethodGet, address+"/put", "<nil> <nil>")
	cookie := ada.Cookie(address, "s")
	if err := server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	between <- func() {
		if err := server.Restart(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if r := ada.Want(http.MethodGet, address+"/write", ""); len(r.Cookies) != 0 || ada.Cookie(address, "s") != cookie {
		t.Errorf("it sets the cookies %v", r.Cookies)
	}
	for range 100 { // connections that the pool has yet to find broken
		if ada.Get(address+"/get").Body == "ada<nil>" {
			break
		}
	}
	ada.Want(http.MethodGet, address+"/get", "ada<nil>")
}

func TestDataThatCannotBeDecodedIsNotOverwritten(t *testing.T) {
	t.Parallel()
	pg := open(t, pgtest.Database(t), pgsession.Config{})
	store := newStore(t, pg, gorillastore.Config{})
	address := serve(t, map[string]handler{
		"/put": put(store, "n", 1), "/get": get(store, "n"),
		"/logout": func(w http.ResponseWriter, r *http.Request) string {
			session, _ := store.Get(r, "s")
			session.Options.MaxAge = -1
			return fmt.Sprint(session.Save(r, w))
		},
	})
	sign := func(data []byte) string {
		token, _, err := pg.Create(t.Context(), pgsession.Session{Data: data})
		if err != nil {
			t.Fatal(err)
		}
		value, err := securecookie.EncodeMulti("s", string(token), securecookie.CodecsFromPairs(key)...)
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	ada := webtest.NewBrowser(t)
	ada.SetCookie(address, "s", sign([]byte("neither")))
	if got := ada.Get(address + "/put").Body; strings.Contains(got, "<nil>") || ada.Cookie(address, "s") == "" {
		t.Errorf("a put over what cannot be read: %s", got)
	}
	ada.Want(http.MethodGet, address+"/logout", "<nil>")
	if n := count(t, pg, pgsession.Filter{}); n != 0 {
		t.Errorf("%d sessions", n)
	}

	// A gob, as sessions of other stores are imported.
	var stream bytes.Buffer
	if err := gob.NewEncoder(&stream).Encode(map[any]any{"n": "imported"}); err != nil {
		t.Fatal(err)
	}
	ada.SetCookie(address, "s", sign(stream.Bytes()))
	ada.Want(http.MethodGet, address+"/get", "imported<nil>")
	ada.Want(http.MethodGet, address+"/put", "<nil> <nil>")
	ada.Want(http.MethodGet, address+"/get", "1<nil>")
}

// Sessions that the framework cannot make.
func TestSessionsThatTheStoreDidNotMake(t *testing.T) {
	t.Parallel()
	pg := open(t, pgtest.Database(t), pgsession.Config{})
	store := newStore(t, pg, gorillastore.Config{})
	address := serve(t, map[string]handler{
		"/own": func(w http.ResponseWriter, r *http.Request) string {
			session := gorilla.NewSession(store, "s")
			session.Values["n"] = 1
			session.Options = nil
			return fmt.Sprint(session.Save(r, w))
		},
		"/id": func(w http.ResponseWriter, r *http.Request) string {
			mine, _ := store.Get(r, "s")
			session := gorilla.NewSession(store, "s")
			session.ID, session.Values = mine.ID, mine.Values
			return fmt.Sprint(errors.Is(session.Save(r, w), pgsession.ErrInvalid))
		},
		"/end": func(w http.ResponseWriter, r *http.Request) string {
			session := gorilla.NewSession(store, "s")
			session.Options.MaxAge = -1
			return fmt.Sprint(session.Save(r, w))
		},
		"/get":     get(store, "n"),
		"/channel": put(store, "n", make(chan int)),
	})
	ada := webtest.NewBrowser(t)
	ada.Want(http.MethodGet, address+"/own", "<nil>")
	ada.Want(http.MethodGet, address+"/get", "1<nil>")
	ada.Want(http.MethodGet, address+"/id", "true") // what is in the database lets nobody in
	if got := ada.Get(address + "/channel").Body; !strings.Contains(got, "chan int") {
		t.Errorf("a value that cannot be coded: %s", got)
	}
	ada.Want(http.MethodGet, address+"/end", "<nil>")
	if n := count(t, pg, pgsession.Filter{}); n != 0 {
		t.Errorf("%d sessions", n)
	}
}

func TestStatesGoWithTheirSessions(t *testing.T) {
	t.Parallel()
	store := newStore(t, open(t, pgtest.Database(t), pgsession.Config{}), gorillastore.Config{})
	address := serve(t, map[string]handler{"/put": put(store, "n", 1)})
	ada := webtest.NewBrowser(t)
	for range 200 {
		ada.Want(http.MethodGet, address+"/put", "<nil> <nil>")
	}
	var left []int
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		runtime.GC()
		left = append(left, store.States())
		if left[len(left)-1] < 20 {
			return
		}
	}
	t.Errorf("after 200 requests there are states of %d sessions", slices.Min(left))
}
