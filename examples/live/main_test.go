package main

import (
	"bufio"
	"context"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// start starts one instance on a database.
func start(t *testing.T, database string) *httptest.Server {
	t.Helper()
	store, err := pgsession.Open(t.Context(), database, pgsession.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	if err := store.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler(store))
	t.Cleanup(server.Close)
	return server
}

// browser is a client with cookies, good for all ports as a browser's are.
type browser struct {
	*http.Client
	t *testing.T
}

func newBrowser(t *testing.T) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{&http.Client{Jar: jar}, t}
}

func (b *browser) post(address string) {
	b.t.Helper()
	response, err := b.Post(address, "", nil)
	if err != nil {
		b.t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		b.t.Fatalf("POST %s: %s", address, response.Status)
	}
}

// events returns the next event's name, each time it is called.
func (b *browser) events(ctx context.Context, address string) (next func() string) {
	b.t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	response, err := b.Do(request)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = response.Body.Close() })
	lines := bufio.NewScanner(response.Body)
	return func() string {
		for lines.Scan() {
			if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				return name
			}
		}
		return "the end"
	}
}

func TestThePageGoesBlankWhenItsSessionIsRevokedElsewhere(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	database := pgtest.Database(t)
	a, b := start(t, database), start(t, database)
	laptop, stranger := newBrowser(t), newBrowser(t)

	if name := stranger.events(ctx, a.URL+"/events")(); name != "gone" {
		t.Errorf("without a session the first event is %q", name)
	}
	laptop.post(a.URL + "/login")
	next := laptop.events(ctx, a.URL+"/events")
	if name := next(); name != "here" {
		t.Fatalf("the first event is %q", name)
	}
	stranger.post(b.URL + "/end")
	name := next()
	for name == "here" { // it may have looked in between
		name = next()
	}
	if name != "gone" {
		t.Errorf("after the end on another instance comes %q", name)
	}
}
