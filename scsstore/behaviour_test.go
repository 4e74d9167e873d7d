package scsstore_test

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/webtest"
	"github.com/pgsession/pgsession/scsstore"
)

// profile is a type that an application declares, which only gob can code.
type profile struct {
	Name  string
	Roles map[string]bool
}

func init() {
	gob.Register(profile{})
	gob.Register(map[string]string{}) // for scs.GobCodec
}

// serve serves routes that do something with the session and answer with a text.
func serve(t *testing.T, m *scs.SessionManager, routes map[string]func(ctx context.Context) string) string {
	t.Helper()
	mux := http.NewServeMux()
	for path, do := range routes {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, do(r.Context())) })
	}
	return webtest.Serve(t, m.LoadAndSave(mux))
}

// only returns the one session that there is.
func only(t *testing.T, store *pgsession.Store) pgsession.Session {
	t.Helper()
	var found []pgsession.Session
	for s, err := range store.All(t.Context(), pgsession.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, s)
	}
	if len(found) != 1 {
		t.Fatalf("%d sessions, want 1", len(found))
	}
	return found[0]
}

func near(a, b time.Duration) bool { return (a - b).Abs() < 2*time.Second }

func TestAHundredRequestsThatOnlyReadWriteNoData(t *testing.T) {
	t.Parallel()
	for name, codec := range map[string]scs.Codec{"Codec": scsstore.Codec{}, "scs.GobCodec": scs.GobCodec{}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := open(t, pgtest.Database(t), pgsession.Config{})
			m := manage(t, store, scsstore.Options{})
			m.Codec = codec
			address := serve(t, m, map[string]func(context.Context) string{
				"/fill": func(ctx context.Context) string {
					roles := map[string]bool{}
					for i := range 10 {
						m.Put(ctx, fmt.Sprint("value ", i), i)
						roles[fmt.Sprint(i)] = true
					}
					m.Put(ctx, "settings", map[string]string{"a": "1", "b": "2", "c": "3", "d": "4"})
					m.Put(ctx, "profile", profile{"ada", roles})
					return ""
				},
				"/read": func(ctx context.Context) string { return m.Get(ctx, "profile").(profile).Name },
			})
			ada := webtest.NewBrowser(t)
			ada.Want(http.MethodGet, address+"/fill", "")
			before, written := only(t, store), store.Stats()
			for range 100 {
				if r := ada.Want(http.MethodGet, address+"/read", "ada"); len(r.Cookies) != 1 {
					t.Fatal("scs did not commit: this test shows nothing")
				}
			}
			after := store.Stats()
			if n := (after.Sets - after.Unchanged) - (written.Sets - written.Unchanged); n != 0 {
				t.Errorf("%d of 100 requests wrote data", n)
			}
			if now := only(t, store); now.Version != before.Version {
				t.Errorf("the version was %d and is %d", before.Version, now.Version)
			}
			t.Logf("%d touches, %d sets", after.Touches-written.Touches, after.Sets-written.Sets)
		})
	}
}

func TestTheExpiryOfSCSDecides(t *testing.T) {
	t.Parallel()
	store := open(t, pgtest.Database(t), pgsession.Config{})
	m := manage(t, store, scsstore.Options{})
	deadline := make(chan time.Time, 1)
	address := serve(t, m, map[string]func(context.Context) string{
		"/put": func(ctx context.Context) string {
			m.Put(ctx, "n", m.GetInt(ctx, "n")+1)
			return fmt.Sprint(m.GetInt(ctx, "n"))
		},
		"/read":     func(ctx context.Context) string { return fmt.Sprint(m.GetInt(ctx, "n")) },
		"/deadline": func(ctx context.Context) string { m.SetDeadline(ctx, <-deadline); return "" },
	})
	ada := webtest.NewBrowser(t)
	ada.Want(http.MethodGet, address+"/put", "1")
	s := only(t, store)
	if s.IdleTimeout != 20*time.Minute || !near(s.AbsoluteTimeout, 12*time.Hour) ||
		!near(s.ExpiresAt.Sub(s.CreatedAt), 20*time.Minute) {
		t.Errorf("new: idle %v, absolute %v, expires %v", s.IdleTimeout, s.AbsoluteTimeout, s.ExpiresAt)
	}
	absolute := s.AbsoluteTimeout
	ada.Want(http.MethodGet, address+"/put", "2")
	if s = only(t, store); s.IdleTimeout != 20*time.Minute || s.AbsoluteTimeout != absolute {
		t.Errorf("changed: idle %v, absolute %v, was %v", s.IdleTimeout, s.AbsoluteTimeout, absolute)
	}

	m.IdleTimeout = time.Hour
	ada.Want(http.MethodGet, address+"/read", "2")
	if s = only(t, store); s.IdleTimeout != time.Hour || !near(time.Until(s.ExpiresAt), time.Hour) {
		t.Errorf("with an idle timeout of an hour: %v, expires %v", s.IdleTimeout, s.ExpiresAt)
	}
	m.IdleTimeout = 0
	ada.Want(http.MethodGet, address+"/put", "3")
	if s = only(t, store); s.IdleTimeout != -1 || !near(time.Until(s.ExpiresAt), 12*time.Hour) {
		t.Errorf("without one: %v, expires %v", s.IdleTimeout, s.ExpiresAt)
	}

	deadline <- time.Now().Add(24 * time.Hour)
	ada.Want(http.MethodGet, address+"/deadline", "")
	if s = only(t, store); !near(s.AbsoluteTimeout, 24*time.Hour) || !near(time.Until(s.ExpiresAt), 24*time.Hour) {
		t.Errorf("with a later deadline: absolute %v, expires %v", s.AbsoluteTimeout, s.ExpiresAt)
	}
	deadline <- time.Now().Add(time.Hour)
	ada.Want(http.MethodGet, address+"/deadline", "")
	if s = only(t, store); !near(time.Until(s.ExpiresAt), time.Hour) {
		t.Errorf("with an earlier deadline: absolute %v, expires %v", s.AbsoluteTimeout, s.ExpiresAt)
	}
	deadline <- time.Now().AddDate(200, 0, 0)
	ada.Want(http.MethodGet, address+"/deadline", "")
	if s = only(t, store); s.AbsoluteTimeout != -1 {
		t.Errorf("with a deadline that is none: absolute %v", s.AbsoluteTimeout)
	}
	ada.Want(http.MethodGet, address+"/put", "4")
	deadline <- time.Now().Add(-time.Second)
	ada.Want(http.MethodGet, address+"/deadline", "")
	ada.Want(http.MethodGet, address+"/read", "0")
}

func TestSessionsEndWhenNotUsedAndAtTheirDeadline(t *testing.T) {
	t.Parallel()
	store := open(t, pgtest.Database(t), pgsession.Config{})
	for name, set := range map[string]func(m *scs.SessionManager){
		"idle":     func(m *scs.SessionManager) { m.IdleTimeout = 400 * time.Millisecond },
		"deadline": func(m *scs.SessionManager) { m.IdleTimeout, m.Lifetime = 0, 400*time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := manage(t, store, scsstore.Options{})
			set(m)
			address := serve(t, m, map[string]func(context.Context) string{
				"/put":  func(ctx context.Context) string { m.Put(ctx, "user", "ada"); return m.Token(ctx) },
				"/read": func(ctx context.Context) string { return m.GetString(ctx, "user") },
			})
			ada := webtest.NewBrowser(t)
			begun := time.Now()
			ada.Get(address + "/put")
			token := pgsession.Token(ada.Cookie(address, "session"))
			if _, err := store.Get(t.Context(), token); err != nil && time.Since(begun) < 400*time.Millisecond {
				t.Fatal(err)
			}
			for {
				if _, err := store.GetFresh(t.Context(), token); errors.Is(err, pgsession.ErrNotFound) {
					break
				} else if err != nil || time.Since(begun) > 10*time.Second {
					t.Fatalf("it does not end: %v", err)
				}
			}
			if lived := time.Since(begun); lived < 390*time.Millisecond {
				t.Errorf("it ended after %v", lived)
			}
			ada.SetCookie(address, "session", string(token)) // whatever the browser thinks
			ada.Want(http.MethodGet, address+"/read", "")
		})
	}
}

func TestIterateSeesAllSessionsAndEndsAndChangesThem(t *testing.T) {
	t.Parallel()
	store := open(t, pgtest.Database(t), pgsession.Config{})
	m := manage(t, store, scsstore.Options{})
	keys := make(chan string, 10)
	address := serve(t, m, map[string]func(context.Context) string{
		"/ada":  func(ctx context.Context) string { m.Put(ctx, "user", "ada"); return "ada" },
		"/bob":  func(ctx context.Context) string { m.Put(ctx, "user", "bob"); return "bob" },
		"/read": func(ctx context.Context) string { return m.GetString(ctx, "user") + m.GetString(ctx, "role") },
		"/ban": func(ctx context.Context) string {
			err := m.Iterate(ctx, func(ctx context.Context) error {
				keys <- m.Token(ctx)
				if m.GetString(ctx, "user") == "bob" {
					return m.Destroy(ctx)
				}
				m.Put(ctx, "role", " the admin")
				_, _, err := m.Commit(ctx)
				return err
			})
			return fmt.Sprint(err)
		},
		"/merge": func(ctx context.Context) string { return fmt.Sprint(m.MergeSession(ctx, <-keys)) },
	})
	ada, bob, admin := webtest.NewBrowser(t), webtest.NewBrowser(t), webtest.NewBrowser(t)
	admin.Want(http.MethodGet, address+"/ban", "<nil>") // an empty table
	ada.Want(http.MethodGet, address+"/ada", "ada")
	bob.Want(http.MethodGet, address+"/bob", "bob")
	admin.Want(http.MethodGet, address+"/ban", "<nil>")
	ada.Want(http.MethodGet, address+"/read", "ada the admin")
	bob.Want(http.MethodGet, address+"/read", "")

	// Whoever reads the database, or such a page, has keys, and is not let in by them.
	n := len(keys)
	if n < 2 {
		t.Fatalf("%d keys", n)
	}
	for range n {
		key := <-keys
		if !strings.HasPrefix(key, "id:") {
			continue // the empty session of the admin's second visit
		}
		for _, value := range []string{key, strings.TrimPrefix(key, "id:")} {
			thief := webtest.NewBrowser(t)
			thief.SetCookie(address, "session", value)
			thief.Want(http.MethodGet, address+"/read", "")
		}
		keys <- key
		thief := webtest.NewBrowser(t)
		thief.Want(http.MethodGet, address+"/merge", "<nil>")
		thief.Want(http.MethodGet, address+"/read", "")
	}
	ada.Want(http.MethodGet, address+"/read", "ada the admin")
}

func TestASessionThatIterateSawAndThatHasEndedIsNotBroughtBack(t *testing.T) {
	t.Parallel()
	store := open(t, pgtest.Database(t), pgsession.Config{})
	m := manage(t, store, scsstore.Options{})
	address := serve(t, m, map[string]func(context.Context) string{
		"/ada": func(ctx context.Context) string { m.Put(ctx, "user", "ada"); return "" },
		"/all": func(ctx context.Context) string {
			return fmt.Sprint(m.Iterate(ctx, func(ctx context.Context) error {
				if _, err := store.Clear(ctx); err != nil {
					return err
				}
				m.Put(ctx, "role", "admin")
				_, _, err := m.Commit(ctx)
				if !errors.Is(err, pgsession.ErrRevoked) {
					return fmt.Errorf("the commit says %w", err)
				}
				return nil
			}))
		},
	})
	webtest.NewBrowser(t).Want(http.MethodGet, address+"/ada", "")
	webtest.NewBrowser(t).Want(http.MethodGet, address+"/all", "<nil>")
	if n, err := store.Count(t.Context(), pgsession.Filter{}); n != 0 || err != nil {
		t.Errorf("%d sessions, %v", n, err)
	}
}

func TestSubjectAndColumnsComeFromTheValues(t *testing.T) {
	t.Parallel()
	store := open(t, pgtest.Database(t), pgsession.Config{
		Columns: []pgsession.Column{{Name: "plan", Type: "text"}, {Name: "visits", Type: "integer"}},
	})
	m := manage(t, store, scsstore.Options{
		Subject: func(values map[string]any) string { user, _ := values["user"].(string); return user },
		Columns: func(values map[string]any) map[string]any {
			return map[string]any{"plan": values["plan"], "visits": values["visits"]}
		},
	})
	address := serve(t, m, map[string]func(context.Context) string{
		"/visit": func(ctx context.Context) string { m.Put(ctx, "visits", m.GetInt(ctx, "visits")+1); return "" },
		"/login": func(ctx context.Context) string {
			if err := m.RenewToken(ctx); err != nil {
				return err.Error()
			}
			m.Put(ctx, "user", "ada")
			m.Put(ctx, "plan", "gold")
			return ""
		},
		"/read":   func(ctx context.Context) string { return m.GetString(ctx, "user") },
		"/forget": func(ctx context.Context) string { m.Remove(ctx, "user"); m.Remove(ctx, "plan"); return "" },
	})
	ada := webtest.NewBrowser(t)
	want := func(path, subject string, plan any) {
		t.Helper()
		ada.Get(address + path)
		if s := only(t, store); s.Subject != subject || s.Columns["plan"] != plan || s.Columns["visits"] != "1" {
			t.Errorf("after %s: %q, %v; want %q, %v", path, s.Subject, s.Columns, subject, plan)
		}
	}
	want("/visit", "", nil)
	want("/login", "ada", "gold")
	want("/read", "ada", "gold")
	if n, err := store.Count(t.Context(), pgsession.Filter{Subject: "ada"}); n != 1 || err != nil {
		t.Errorf("ada has %d sessions, %v", n, err)
	}
	want("/forget", "", nil)
	ada.Get(address + "/login")
	if _, err := store.Revoke(t.Context(), pgsession.Revocation{Subject: "ada"}); err != nil {
		t.Fatal(err)
	}
	ada.Want(http.MethodGet, address+"/read", "")
}

func TestTheManagersOwnOperations(t *testing.T) {
	t.Parallel()
	store := open(t, pgtest.Database(t), pgsession.Config{})
	m := manage(t, store, scsstore.Options{})
	m.Cookie.Persist = false
	tokens := make(chan string, 1)
	address := serve(t, m, map[string]func(context.Context) string{
		"/nothing":  func(context.Context) string { return "" },
		"/put":      func(ctx context.Context) string { m.Put(ctx, "flash", "saved"); return "" },
		"/pop":      func(ctx context.Context) string { return m.PopString(ctx, "flash") },
		"/remember": func(ctx context.Context) string { m.RememberMe(ctx, true); return "" },
		"/clear":    func(ctx context.Context) string { return fmt.Sprint(m.Clear(ctx)) },
		"/keys":     func(ctx context.Context) string { return strings.Join(m.Keys(ctx), " ") },
		"/token":    func(ctx context.Context) string { tokens <- m.Token(ctx); return "" },
		"/merge":    func(ctx context.Context) string { return fmt.Sprint(m.MergeSession(ctx, <-tokens)) },
		"/commit": func(ctx context.Context) string { // more than once in a request, and with a deadline
			m.Put(ctx, "again", true)
			_, _, err := m.Commit(ctx)
			limited, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			m.Put(ctx, "again", false)
			_, _, err2 := m.Commit(limited)
			return fmt.Sprint(errors.Join(err, err2))
		},
		"/restart": func(ctx context.Context) string { // a new session in the request of the logout
			err := m.Destroy(ctx)
			m.Put(ctx, "flash", "goodbye")
			return fmt.Sprint(err)
		},
	})
	ada := webtest.NewBrowser(t)
	if r := ada.Get(address + "/nothing"); len(r.Cookies) != 0 {
		t.Error("a visitor with nothing to remember is given a session")
	}
	if r := ada.Get(address + "/put"); len(r.Cookies) != 1 || r.Cookies[0].MaxAge != 0 {
		t.Errorf("without Persist the cookie is %v", r.Cookies)
	}
	if r := ada.Get(address + "/remember"); len(r.Cookies) != 1 || r.Cookies[0].MaxAge == 0 {
		t.Errorf("with RememberMe the cookie is %v", r.Cookies)
	}
	ada.Want(http.MethodGet, address+"/pop", "saved")
	ada.Want(http.MethodGet, address+"/pop", "")
	ada.Want(http.MethodGet, address+"/commit", "<nil>")
	ada.Want(http.MethodGet, address+"/keys", "__rememberMe again")

	bob := webtest.NewBrowser(t)
	bob.Want(http.MethodGet, address+"/put", "")
	ada.Want(http.MethodGet, address+"/token", "")
	bob.Want(http.MethodGet, address+"/merge", "<nil>")
	bob.Want(http.MethodGet, address+"/keys", "__rememberMe again flash")
	ada.Want(http.MethodGet, address+"/keys", "") // it was merged, and ended
	bob.Want(http.MethodGet, address+"/clear", "<nil>")
	bob.Want(http.MethodGet, address+"/keys", "")
	bob.Want(http.MethodGet, address+"/restart", "<nil>")
	bob.Want(http.MethodGet, address+"/keys", "flash")
	another := webtest.NewBrowser(t)
	another.Want(http.MethodGet, address+"/commit", "<nil>")
	another.Want(http.MethodGet, address+"/keys", "again")
}

func TestAChangeOfTheCodecLogsNobodyOut(t *testing.T) {
	t.Parallel()
	store := open(t, pgtest.Database(t), pgsession.Config{})
	m := manage(t, store, scsstore.Options{})
	m.Codec = scs.GobCodec{}
	routes := map[string]func(context.Context) string{
		"/put":  func(ctx context.Context) string { m.Put(ctx, "profile", profile{Name: "ada"}); return "" },
		"/read": func(ctx context.Context) string { p, _ := m.Get(ctx, "profile").(profile); return p.Name },
	}
	ada, address := webtest.NewBrowser(t), serve(t, m, routes)
	ada.Want(http.MethodGet, address+"/put", "")
	absolute := only(t, store).AbsoluteTimeout
	m = manage(t, store, scsstore.Options{})
	address = serve(t, m, routes)
	ada.Want(http.MethodGet, address+"/read", "ada")
	ada.Want(http.MethodGet, address+"/read", "ada")
	if s := only(t, store); s.AbsoluteTimeout != absolute || s.IdleTimeout.Round(time.Minute) != 20*time.Minute {
		t.Errorf("absolute %v, was %v; idle %v", s.AbsoluteTimeout, absolute, s.IdleTimeout)
	}
}

// A codec that the store was not told of is found out by the first commit.
func TestACodecThatTheStoreDoesNotKnowIsAnError(t *testing.T) {
	t.Parallel()
	store := open(t, pgtest.Database(t), pgsession.Config{})
	for _, known := range []bool{false, true} {
		options := scsstore.Options{}
		if known {
			options.Codec = reversed{}
		}
		m := manage(t, store, options)
		m.Codec = reversed{}
		said := make(chan error, 1)
		m.ErrorFunc = scsstore.ErrorFunc(func(_ http.ResponseWriter, _ *http.Request, err error) { said <- err })
		address := serve(t, m, map[string]func(context.Context) string{
			"/put": func(ctx context.Context) string { m.Put(ctx, "user", "ada"); return m.GetString(ctx, "user") },
		})
		for range 3 {
			webtest.NewBrowser(t).Want(http.MethodGet, address+"/put", "ada")
			select {
			case err := <-said:
				if known || !strings.Contains(err.Error(), "Options.Codec") {
					t.Errorf("the error is %v", err)
				}
			default:
				if !known {
					t.Error("no error")
				}
			}
		}
	}
}

// reversed is a codec of an application's own.
type reversed struct{ scs.GobCodec }

func (c reversed) Encode(deadline time.Time, values map[string]any) ([]byte, error) {
	b, err := c.GobCodec.Encode(deadline, values)
	return reverse(b), err
}

func (c reversed) Decode(b []byte) (time.Time, map[string]any, error) {
	return c.GobCodec.Decode(reverse(b))
}

func reverse(b []byte) []byte {
	r := make([]byte, len(b))
	for i := range b {
		r[len(b)-1-i] = b[i]
	}
	return r
}

func TestHashedTokensWork(t *testing.T) {
	t.Parallel()
	store := open(t, pgtest.Database(t), pgsession.Config{})
	m := manage(t, store, scsstore.Options{})
	m.HashTokenInStore = true
	address := serve(t, m, map[string]func(context.Context) string{
		"/put":    func(ctx context.Context) string { m.Put(ctx, "user", "ada"); return "" },
		"/read":   func(ctx context.Context) string { return m.GetString(ctx, "user") },
		"/logout": func(ctx context.Context) string { return fmt.Sprint(m.Destroy(ctx)) },
	})
	ada := webtest.NewBrowser(t)
	ada.Want(http.MethodGet, address+"/put", "")
	ada.Want(http.MethodGet, address+"/read", "ada")
	thief := ada.Copy(address)
	ada.Want(http.MethodGet, address+"/logout", "<nil>")
	thief.Want(http.MethodGet, address+"/read", "")
}

func TestWhatRequestsLoadedIsForgottenWhenTheyEnd(t *testing.T) {
	t.Parallel()
	pg := open(t, pgtest.Database(t), pgsession.Config{})
	m := manage(t, pg, scsstore.Options{})
	address := serve(t, m, map[string]func(context.Context) string{
		"/put": func(ctx context.Context) string { m.Put(ctx, "user", "ada"); return "" },
	})
	store := m.Store.(*scsstore.Store)
	for range 3 {
		ada := webtest.NewBrowser(t)
		for range 100 {
			ada.Want(http.MethodGet, address+"/put", "")
		}
		if n := store.Remembered(); n == 0 || n > 130 {
			t.Errorf("it remembers %d", n)
		}
	}
}

// What scs does not call where a store takes contexts, and what its documentation demands of a store.
func TestTheStoreKeepsTheContractOfSCS(t *testing.T) {
	t.Parallel()
	pg := open(t, pgtest.Database(t), pgsession.Config{})
	store, err := scsstore.New(pg, scsstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	encode := func(user string) []byte {
		b, err := scsstore.Codec{}.Encode(time.Now().Add(time.Hour), map[string]any{"user": user})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if all, err := store.All(); all == nil || len(all) != 0 || err != nil {
		t.Errorf("of an empty store: %v, %v", all, err)
	}
	for _, token := range []string{"missing", "", strings.Repeat("x", 5000), "id:", "id:x", "\x00\xff"} {
		if b, found, err := store.Find(token); b != nil || found || err != nil {
			t.Errorf("find of %.10q: %v, %v, %v", token, b, found, err)
		}
		if token != "id:" {
			check("delete of a missing session", store.Delete(token))
		}
	}
	first, second := encode("ada"), encode("bob")
	check("a new session", store.Commit("token", first, time.Now().Add(time.Hour)))
	check("one that is there", store.Commit("token", second, time.Now().Add(time.Minute)))
	if b, found, err := store.Find("token"); string(b) != string(second) || !found || err != nil {
		t.Errorf("found %q, %v, %v", b, found, err)
	}
	if s := only(t, pg); !near(s.ExpiresAt.Sub(s.CreatedAt), time.Minute) {
		t.Errorf("it expires at %v", s.ExpiresAt)
	}
	if all, err := store.All(); len(all) != 1 || err != nil {
		t.Errorf("all: %v, %v", all, err)
	}
	check("one that has expired", store.Commit("expired", first, time.Now().Add(-time.Second)))
	if _, found, err := store.Find("expired"); found || err != nil {
		t.Errorf("an expired session: %v, %v", found, err)
	}
	check("delete", store.Delete("token"))
	check("delete again", store.Delete("token"))
	if err := store.Commit("token", first, time.Now().Add(time.Hour)); !errors.Is(err, pgsession.ErrRevoked) {
		t.Errorf("a commit after the end: %v", err)
	}
	if err := store.Commit("", first, time.Now().Add(time.Hour)); !errors.Is(err, pgsession.ErrInvalidToken) {
		t.Errorf("a commit of no token: %v", err)
	}
	if _, err := scsstore.New(nil, scsstore.Options{}); !errors.Is(err, pgsession.ErrInvalid) {
		t.Errorf("without sessions: %v", err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := store.FindCtx(canceled, "another"); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}
