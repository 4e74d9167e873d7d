package main

import (
	"html"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// startOne starts one server, and a browser to look at it with.
func startOne(t *testing.T) (*instance, *browser) {
	t.Helper()
	s := startInstances(t, pgtest.Schema(t))[0]
	return s, openBrowser(t)
}

func openBrowser(t *testing.T) *browser {
	t.Helper()
	b := newBrowser(laptopAgent)
	t.Cleanup(b.close)
	return b
}

func post(t *testing.T, b *browser, s *instance, path string, form url.Values) answer {
	t.Helper()
	a, err := b.post(t.Context(), s, path, form)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func logIn(t *testing.T, b *browser, s *instance, name string) answer {
	t.Helper()
	a := post(t, b, s, "/login", url.Values{"name": {name}})
	if a.status != http.StatusOK || a.Me.Subject != name {
		t.Fatalf("login as %q: status %d, %+v", name, a.status, a.page)
	}
	return a
}

// fetch sends a request as a browser that wants HTML does, and follows no redirect.
func fetch(t *testing.T, b *browser, method, address string) (status int, header http.Header, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := *b.client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header, string(content)
}

func TestTheCookieIsForHTTPAndThisSiteOnly(t *testing.T) {
	t.Parallel()
	s, b := startOne(t)
	status, header, _ := fetch(t, b, http.MethodPost, s.url+"/visit")
	if status != http.StatusSeeOther {
		t.Errorf("status %d, want a redirect", status)
	}
	cookies := header.Values("Set-Cookie")
	if len(cookies) != 1 {
		t.Fatalf("%d cookies, want one", len(cookies))
	}
	c, err := http.ParseSetCookie(cookies[0])
	if err != nil {
		t.Fatal(err)
	}
	if !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || c.Secure {
		t.Errorf("HttpOnly %v, SameSite %v, Path %q, Domain %q, Secure %v", c.HttpOnly, c.SameSite, c.Path, c.Domain, c.Secure)
	}
}

func TestThePageShowsNoTokenAndNoMarkupOfVisitors(t *testing.T) {
	t.Parallel()
	s, b := startOne(t)
	const name = `<b onclick="x">Eve</b>`
	b.agent = `Firefox/1 "><script>`
	logIn(t, b, s, name)
	_, header, body := fetch(t, b, http.MethodGet, s.url+"/")
	if !strings.Contains(body, html.EscapeString(name)) || strings.Contains(body, "<b onclick") || strings.Contains(body, "<script") {
		t.Errorf("the page should show the name as text:\n%s", body)
	}
	if strings.Contains(body, string(b.token(s))) {
		t.Error("the page shows the token")
	}
	if got := header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control %q: a shared computer would keep the page", got)
	}
}

func TestAnAnonymousVisitorEndsNobodysSession(t *testing.T) {
	t.Parallel()
	s, ada := startOne(t)
	id := logIn(t, ada, s, "ada").Me.ID
	visitor := openBrowser(t)
	post(t, visitor, s, "/visit", nil) // a session, without a subject
	for path, form := range map[string]url.Values{"/sessions/end": {"id": {string(id)}}, "/sessions/end-others": nil} {
		if a := post(t, visitor, s, path, form); a.status != http.StatusUnauthorized || len(a.Devices) != 0 {
			t.Errorf("%s: status %d with %d sessions to see, want 401 and none", path, a.status, len(a.Devices))
		}
	}
	if n, err := s.store.Count(t.Context(), pgsession.Filter{Subject: "ada"}); n != 1 || err != nil {
		t.Errorf("ada has %d sessions, %v; want 1", n, err)
	}
}

func TestLogOutEverywhereElse(t *testing.T) {
	t.Parallel()
	s, laptop := startOne(t)
	phone, bob := openBrowser(t), openBrowser(t)
	logIn(t, phone, s, "ada")
	logIn(t, bob, s, "bob")
	logIn(t, laptop, s, "ada")
	if a := post(t, laptop, s, "/sessions/end-others", nil); a.status != http.StatusOK || len(a.Devices) != 1 || !a.Devices[0].Current {
		t.Errorf("status %d, sessions %+v; want 200 and this one", a.status, a.Devices)
	}
	for _, test := range []struct {
		name string
		b    *browser
		want string
	}{{"the phone", phone, ""}, {"bob", bob, "bob"}} {
		if a, err := test.b.get(t.Context(), s); err != nil || a.Me.Subject != test.want {
			t.Errorf("%s is logged in as %q, %v; want %q", test.name, a.Me.Subject, err, test.want)
		}
	}
}

func TestEndingTheSessionOfThisDeviceIsALogout(t *testing.T) {
	t.Parallel()
	s, b := startOne(t)
	id := logIn(t, b, s, "ada").Me.ID
	a := post(t, b, s, "/sessions/end", url.Values{"id": {string(id)}})
	if a.status != http.StatusOK || a.Me.ID != "" || a.Notice != "" || b.token(s) != "" {
		t.Errorf("status %d, session %q, notice %q, cookie left: %v", a.status, a.Me.ID, a.Notice, b.token(s) != "")
	}
}

func TestALoginAsSomebodyElseCarriesNothingOver(t *testing.T) {
	t.Parallel()
	s, b := startOne(t)
	post(t, b, s, "/visit", nil)
	if a := logIn(t, b, s, "ada"); a.Me.Visits != 1 {
		t.Errorf("ada has %d visits, want the anonymous one", a.Me.Visits)
	}
	if a := logIn(t, b, s, "bob"); a.Me.Visits != 0 {
		t.Errorf("bob has %d visits of ada's", a.Me.Visits)
	}
	if n, err := s.store.Count(t.Context(), pgsession.Filter{Subject: "ada"}); n != 0 || err != nil {
		t.Errorf("ada has %d sessions, %v; want none", n, err)
	}
}

func TestFormsAreChecked(t *testing.T) {
	t.Parallel()
	s, b := startOne(t)
	for _, form := range []url.Values{
		{},
		{"name": {"   "}},
		{"name": {"a\x00b"}},
		{"name": {"\xff"}},
		{"name": {strings.Repeat("é", maxName+1)}},
		{"name": {"ada"}, "idle": {"soon"}},
		{"name": {"ada"}, "idle": {"-1s"}},
		{"name": {"ada"}, "idle": {"999h"}},
	} {
		if a := post(t, b, s, "/login", form); a.status != http.StatusBadRequest || a.Me.ID != "" {
			t.Errorf("login with %q: status %d, session %q; want 400 and none", form, a.status, a.Me.ID)
		}
	}
	logIn(t, b, s, strings.Repeat("é", maxName))
	for _, id := range []string{"", "\xff", strings.Repeat("x", 10_000), "a\x00b", "nobody's"} {
		if a := post(t, b, s, "/sessions/end", url.Values{"id": {id}}); a.status != http.StatusNotFound {
			t.Errorf("ending %.20q: status %d, want 404", id, a.status)
		}
	}
}

func TestAHostileCookieIsNoSession(t *testing.T) {
	t.Parallel()
	s, b := startOne(t)
	for _, token := range []string{"x", strings.Repeat("x", 3000), "' or true --"} {
		if err := b.use(s, pgsession.Token(token)); err != nil {
			t.Fatal(err)
		}
		if a, err := b.get(t.Context(), s); err != nil || a.status != http.StatusOK || a.Me.ID != "" {
			t.Errorf("cookie %.20q: status %d, session %q, %v; want 200 and none", token, a.status, a.Me.ID, err)
		}
	}
}

func TestAnOutageLogsNobodyOut(t *testing.T) {
	t.Parallel()
	s, b := startOne(t)
	logIn(t, b, s, "ada")
	s.pool.Close()
	token := b.token(s)
	a, err := b.get(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if a.status != http.StatusServiceUnavailable || b.token(s) != token {
		t.Errorf("status %d, cookie kept: %v; want 503 and the same cookie", a.status, b.token(s) == token)
	}
	if a := post(t, b, s, "/logout", nil); a.status != http.StatusServiceUnavailable || b.token(s) != token {
		t.Errorf("logout: status %d, cookie kept: %v; it must not claim to have logged out", a.status, b.token(s) == token)
	}
}

func TestAServerThatEndsLetsSlowRequestsGo(t *testing.T) {
	t.Parallel()
	s, b := startOne(t)
	post(t, b, s, "/visit", nil)
	wait, err := b.slowly(t.Context(), s, "/slow")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.server.Shutdown(t.Context()) }()
	// The redirect leads to a port that nobody listens on any more, which is an error: not of the
	// request that waited.
	if a, err := wait(); err == nil && a.status != http.StatusOK {
		t.Errorf("status %d", a.status)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	n := 0
	for session, err := range s.store.All(t.Context(), pgsession.Filter{}) {
		if err != nil || !strings.Contains(string(session.Data), `"visits":2`) {
			t.Errorf("%v; data %s, want 2 visits", err, session.Data)
		}
		n++
	}
	if n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
}

func TestDeviceNames(t *testing.T) {
	t.Parallel()
	for agent, want := range map[string]string{
		laptopAgent: "Firefox on Linux",
		phoneAgent:  "Safari on iPhone",
		tabletAgent: "Chrome on Android",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0": "Edge on Windows",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15":         "Safari on Mac",
		"curl/8.14.1": "curl",
		"":            "Unknown device",
		"Linux":       "Linux",
	} {
		if got := deviceName(agent); got != want {
			t.Errorf("deviceName(%q) = %q, want %q", agent, got, want)
		}
	}
}

func TestAUserAgentIsMadeFitForTheDatabase(t *testing.T) {
	t.Parallel()
	s, b := startOne(t)
	b.agent = "\xff\xfe" + strings.Repeat("é", 500)
	a := logIn(t, b, s, "ada")
	if want := "?" + strings.Repeat("é", maxUserAgent-1); a.Me.UserAgent != want {
		t.Errorf("stored as %q", a.Me.UserAgent)
	}
}
