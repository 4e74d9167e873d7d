package webtest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

// Framework is an application on a framework. Its routes, by the framework's own means, are
//
//	GET  /whoami   the body is the user, or "nobody"; nothing is saved but what the framework saves
//	POST /login    ?user=: the user is logged in, under a new token
//	POST /renew    a new token for the same session
//	POST /logout   the session is ended
//	POST /count    one more visit is saved; the body is their number
//	GET  /slow     as /whoami, then waits at the gate, and then saves the session as it was
//	POST /slow     as /count, and waits at the gate before it saves
//
// Errors of the framework are answered as its users do, with a status from 500 on, but for the save of a
// session that was ended meanwhile, which is answered as if nothing had happened.
type Framework struct {
	// Open starts an instance of the application on a database: its handler, and what stops it.
	Open func(tb testing.TB, database string, gate *Gate) (http.Handler, func())

	// Cookie is the session's, as the application configured it, but for its value.
	Cookie http.Cookie
}

// Gate is where slow requests wait.
type Gate struct{ entered, left chan struct{} }

// Pass is called by the application, in a slow request.
func (g *Gate) Pass() {
	g.entered <- struct{}{}
	<-g.left
}

// site is an application that is being served.
type site struct {
	Framework
	tb       testing.TB
	database string
	gate     *Gate
	server   *httptest.Server
	stop     func()
}

// Serve serves a handler until the test ends.
func Serve(tb testing.TB, handler http.Handler) (url string) {
	server := httptest.NewServer(handler)
	tb.Cleanup(server.Close)
	return server.URL
}

func (f Framework) start(tb testing.TB, database string) *site {
	tb.Helper()
	s := &site{Framework: f, tb: tb, database: database, gate: &Gate{make(chan struct{}), make(chan struct{})}}
	s.open()
	tb.Cleanup(s.close)
	return s
}

func (s *site) open() {
	s.tb.Helper()
	var handler http.Handler
	handler, s.stop = s.Open(s.tb, s.database, s.gate)
	s.server = httptest.NewServer(handler)
}

func (s *site) close() {
	s.server.Close()
	s.stop()
}

func (s *site) url(path string) string { return s.server.URL + path }

// Scenarios runs all of them, each on a database of its own.
func Scenarios(t *testing.T, f Framework) {
	for _, scenario := range []struct {
		name string
		run  func(t *testing.T, s *site)
	}{
		{"fifty parallel requests share a session", parallel},
		{"a login changes the token, and the one before it is dead", login},
		{"a renewed session has a new token, and the old one is dead", renew},
		{"the cookie is as it was configured, and goes with the logout", cookie},
		{"sessions outlive the server", restart},
		{"a read that outlives the logout brings nothing back", outlives(http.MethodGet, "/logout", "nobody", false)},
		{"a write that outlives the logout brings nothing back", outlives(http.MethodPost, "/logout", "nobody", false)},
		{"a read that outlives the renewal leaves the new token alone", outlives(http.MethodGet, "/renew", "ada", false)},
		{"a write that outlives the renewal leaves the new token alone", outlives(http.MethodPost, "/renew", "ada", false)},
		{"a read that outlives the tombstone brings nothing back", outlives(http.MethodGet, "/logout", "nobody", true)},
		{"a write that outlives the tombstone brings nothing back", outlives(http.MethodPost, "/logout", "nobody", true)},
		{"a read that outlives a write does not undo it", overtaken},
		{"another session's logout ends nothing here", neighbours},
		{"a visitor with nothing to remember costs no statement and no row", nothing},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			t.Parallel()
			scenario.run(t, f.start(t, pgtest.Database(t)))
		})
	}
	t.Run("a database that does not answer logs nobody out", func(t *testing.T) {
		t.Parallel()
		outage(t, f)
	})
}

func parallel(t *testing.T, s *site) {
	ada := NewBrowser(t)
	ada.Want(http.MethodPost, s.url("/login?user=ada"), "ada")
	for _, request := range []struct{ method, path string }{
		{http.MethodGet, "/whoami"}, {http.MethodPost, "/count"},
	} {
		var group sync.WaitGroup
		for range 50 {
			group.Go(func() {
				if r := ada.Do(request.method, s.url(request.path)); r.Status != http.StatusOK ||
					request.path == "/whoami" && r.Body != "ada" {
					t.Errorf("%s: %d %q", request.path, r.Status, r.Body)
				}
			})
		}
		group.Wait()
		ada.Want(http.MethodGet, s.url("/whoami"), "ada")
	}
	if n := s.rows("revoked_at is null"); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
}

func login(t *testing.T, s *site) {
	victim := NewBrowser(t)
	victim.Want(http.MethodPost, s.url("/count"), "1") // an anonymous session
	before := victim.Cookie(s.url("/"), s.Cookie.Name)
	attacker := victim.Copy(s.url("/")) // who planted its token
	victim.Want(http.MethodPost, s.url("/login?user=ada"), "ada")
	victim.Want(http.MethodGet, s.url("/whoami"), "ada")
	victim.Want(http.MethodPost, s.url("/count"), "2") // what it held is still there
	attacker.Want(http.MethodGet, s.url("/whoami"), "nobody")
	if after := victim.Cookie(s.url("/"), s.Cookie.Name); before == "" || after == "" || before == after {
		t.Error("the cookie is the same")
	}
	if attacker.Cookie(s.url("/"), s.Cookie.Name) == victim.Cookie(s.url("/"), s.Cookie.Name) {
		t.Error("the attacker was given the new token")
	}
}

func renew(t *testing.T, s *site) {
	ada := NewBrowser(t)
	ada.Want(http.MethodPost, s.url("/login?user=ada"), "ada")
	old := ada.Copy(s.url("/"))
	ada.Want(http.MethodPost, s.url("/renew"), "ada")
	ada.Want(http.MethodGet, s.url("/whoami"), "ada")
	old.Want(http.MethodGet, s.url("/whoami"), "nobody")
}

func cookie(t *testing.T, s *site) {
	ada := NewBrowser(t)
	set := s.find(ada.Post(s.url("/login?user=ada")))
	if set == nil {
		t.Fatal("the login sets no cookie")
	}
	if set.Value == "" || set.HttpOnly != s.Cookie.HttpOnly || set.Secure != s.Cookie.Secure ||
		set.SameSite != s.Cookie.SameSite || set.Path != s.Cookie.Path || set.Domain != s.Cookie.Domain {
		t.Errorf("the cookie is %q", set.Raw)
	}
	if want := s.Cookie.MaxAge; set.MaxAge < want-5 || set.MaxAge > want+1 {
		t.Errorf("Max-Age is %d, want %d", set.MaxAge, want)
	}
	if off := time.Until(set.Expires) - time.Duration(set.MaxAge)*time.Second; set.MaxAge > 0 && off.Abs() > 5*time.Second {
		t.Errorf("Expires is %v off Max-Age", off)
	}
	gone := s.find(ada.Post(s.url("/logout")))
	if gone == nil || gone.MaxAge >= 0 || gone.Path != s.Cookie.Path {
		t.Errorf("the logout does not delete the cookie: %v", gone)
	}
	if value := ada.Cookie(s.url("/"), s.Cookie.Name); value != "" {
		t.Error("the browser still has the cookie")
	}
}

func restart(t *testing.T, s *site) {
	ada, bob := NewBrowser(t), NewBrowser(t)
	ada.Want(http.MethodPost, s.url("/login?user=ada"), "ada")
	bob.Want(http.MethodPost, s.url("/login?user=bob"), "bob")
	ada.Want(http.MethodPost, s.url("/count"), "1")
	bob.Want(http.MethodPost, s.url("/logout"), "nobody")
	s.close()
	s.open()
	ada.Want(http.MethodGet, s.url("/whoami"), "ada")
	ada.Want(http.MethodPost, s.url("/count"), "2")
	bob.Want(http.MethodGet, s.url("/whoami"), "nobody")
}

// outlives has a slow request that loads the session before another request ends or renews it, and
// saves it after that.
func outlives(slow, path, after string, tombstone bool) func(t *testing.T, s *site) {
	return func(t *testing.T, s *site) {
		ada := NewBrowser(t)
		ada.Want(http.MethodPost, s.url("/login?user=ada"), "ada")
		thief := ada.Copy(s.url("/")) // who kept the token

		answer := make(chan Response)
		go func() { answer <- ada.Do(slow, s.url("/slow")) }()
		<-s.gate.entered
		ada.Want(http.MethodPost, s.url(path), after)
		cookie := ada.Cookie(s.url("/"), s.Cookie.Name)
		if n := s.rows("revoked_at is not null"); n == 0 {
			t.Error("there is no tombstone")
		}
		if tombstone {
			s.execute("delete from pgsession.session where revoked_at is not null")
		}
		s.gate.left <- struct{}{}
		late := <-answer

		if late.Status != http.StatusOK {
			t.Errorf("the slow request gets %d %q", late.Status, late.Body)
		}
		if set := s.find(late); set != nil {
			t.Errorf("the slow request sets the cookie %q", set.Raw)
		}
		if ada.Cookie(s.url("/"), s.Cookie.Name) != cookie {
			t.Error("the browser has another cookie than before")
		}
		ada.Want(http.MethodGet, s.url("/whoami"), after)
		thief.Want(http.MethodGet, s.url("/whoami"), "nobody")
		want := 0
		if after == "ada" {
			want = 1
		}
		if n := s.rows("revoked_at is null"); n != want {
			t.Errorf("%d sessions, want %d", n, want)
		}
	}
}

// overtaken has a slow request save what it loaded, and did not change, after another one's write.
func overtaken(t *testing.T, s *site) {
	ada := NewBrowser(t)
	ada.Want(http.MethodPost, s.url("/login?user=ada"), "ada")
	ada.Want(http.MethodPost, s.url("/count"), "1")
	answer := make(chan Response)
	go func() { answer <- ada.Get(s.url("/slow")) }()
	<-s.gate.entered
	ada.Want(http.MethodPost, s.url("/count"), "2")
	s.gate.left <- struct{}{}
	if late := <-answer; late.Status != http.StatusOK || late.Body != "ada" {
		t.Errorf("the slow request gets %d %q", late.Status, late.Body)
	}
	ada.Want(http.MethodPost, s.url("/count"), "3")
}

func neighbours(t *testing.T, s *site) {
	ada, bob := NewBrowser(t), NewBrowser(t)
	ada.Want(http.MethodPost, s.url("/login?user=ada"), "ada")
	bob.Want(http.MethodPost, s.url("/login?user=bob"), "bob")
	bob.Want(http.MethodPost, s.url("/logout"), "nobody")
	bob.Want(http.MethodPost, s.url("/logout"), "nobody") // twice is no error
	ada.Want(http.MethodGet, s.url("/whoami"), "ada")
	// A token that somebody made up, and one that is no token at all.
	for _, value := range []string{"QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY", "id:x", "%00"} {
		forger := NewBrowser(t)
		forger.SetCookie(s.url("/"), s.Cookie.Name, value)
		forger.Want(http.MethodGet, s.url("/whoami"), "nobody")
		forger.Want(http.MethodPost, s.url("/count"), "1") // and it is given one of its own
		if got := forger.Cookie(s.url("/"), s.Cookie.Name); got == value {
			t.Errorf("the token %q was taken over", value)
		}
	}
}

// nothing has bots come, who bring no cookie, also to a page that saves its session as it was, and then one
// visitor with something to remember, who is all that the server has heard of.
func nothing(t *testing.T, s *site) {
	s.close()
	s.execute("do $$ begin execute format('alter database %I set track_functions = pl', current_database()); end $$")
	s.open()
	for range 10 {
		bot := NewBrowser(t)
		if r := bot.Want(http.MethodGet, s.url("/whoami"), "nobody"); s.find(r) != nil {
			t.Errorf("a bot is given the cookie %q", s.find(r).Raw)
		}
		answer := make(chan Response)
		go func() { answer <- bot.Get(s.url("/slow")) }()
		<-s.gate.entered
		s.gate.left <- struct{}{}
		if r := <-answer; r.Status != http.StatusOK || s.find(r) != nil {
			t.Errorf("a bot is answered %d, with the cookie %v", r.Status, s.find(r))
		}
	}
	if n := s.rows("true"); n != 0 {
		t.Errorf("bots left %d rows", n)
	}
	NewBrowser(t).Want(http.MethodPost, s.url("/count"), "1")
	s.close() // a connection that ends reports its calls

	const calls = `
		select coalesce(string_agg(f.funcname || ' ' || f.calls, ', ' order by f.funcname), '')
		  from pg_stat_user_functions as f
		 where not exists (select from pg_stat_activity as a
		                    where a.datname = current_database() and a.backend_type = 'client backend'
		                      and a.pid <> pg_backend_pid())
		   and f.schemaname = 'pgsession' and f.funcname in (
		       'session_get', 'session_set', 'session_touch', 'session_destroy', 'session_renew', 'session_patch')`
	var got string
	for deadline := time.Now().Add(30 * time.Second); got == "" && time.Now().Before(deadline); {
		s.query(&got, calls)
	}
	if got != "session_set 1" {
		t.Errorf("the calls are %q, want the visitor's set alone", got)
	}
}

// outage takes the database away and gives it back.
func outage(t *testing.T, f Framework) {
	database := pgtest.Database(t)
	config, err := pgx.ParseConfig(database)
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := postgres.NewProxy(fmt.Sprintf("%s:%d", config.Host, config.Port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	through, err := postgres.WithAddress(database, proxy.Address())
	if err != nil {
		t.Fatal(err)
	}
	s := f.start(t, through)
	ada := NewBrowser(t)
	ada.Want(http.MethodPost, s.url("/login?user=ada"), "ada")
	ada.Want(http.MethodPost, s.url("/count"), "1")
	cookie := ada.Cookie(s.url("/"), s.Cookie.Name)

	proxy.Reset()
	for _, path := range []string{"/count", "/logout"} {
		r := ada.Post(s.url(path))
		if r.Status < http.StatusInternalServerError {
			t.Errorf("%s without the database: %d %q", path, r.Status, r.Body)
		}
		if set := s.find(r); set != nil {
			t.Errorf("%s without the database sets the cookie %q", path, set.Raw)
		}
	}
	if ada.Cookie(s.url("/"), s.Cookie.Name) != cookie {
		t.Error("the browser has another cookie")
	}
	proxy.Forward()
	deadline := time.Now().Add(30 * time.Second)
	r := ada.Post(s.url("/count"))
	for r.Status != http.StatusOK && time.Now().Before(deadline) {
		r = ada.Post(s.url("/count"))
	}
	if r.Body != "2" {
		t.Errorf("when it is back: %d %q, want the second visit", r.Status, r.Body)
	}
	ada.Want(http.MethodGet, s.url("/whoami"), "ada")
}

// find returns the session's cookie, if a response sets it.
func (s *site) find(r Response) *http.Cookie {
	for _, c := range r.Cookies {
		if c.Name == s.Cookie.Name {
			return c
		}
	}
	return nil
}

// rows counts the table's rows for which a condition holds.
func (s *site) rows(where string) (n int) {
	s.tb.Helper()
	s.query(&n, "select count(*) from pgsession.session where "+where)
	return n
}

func (s *site) query(dest any, sql string) {
	s.tb.Helper()
	conn, err := pgx.Connect(s.tb.Context(), s.database)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer func() { _ = conn.Close(s.tb.Context()) }()
	if err := conn.QueryRow(s.tb.Context(), sql).Scan(dest); err != nil {
		s.tb.Fatal(err)
	}
}

func (s *site) execute(sql string) {
	s.tb.Helper()
	conn, err := pgx.Connect(s.tb.Context(), s.database)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer func() { _ = conn.Close(s.tb.Context()) }()
	if _, err := conn.Exec(s.tb.Context(), sql); err != nil {
		s.tb.Fatal(err)
	}
}
