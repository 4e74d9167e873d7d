// Package webtest runs an application on some web framework and visits it as browsers do, over real
// HTTP: what every adapter must show, whatever its framework.
package webtest

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"testing"
	"time"
)

// Browser is a client with cookies. It may be used by many goroutines at once, as a browser's tabs are.
type Browser struct {
	tb     testing.TB
	client *http.Client
}

// NewBrowser returns a browser without cookies.
func NewBrowser(tb testing.TB) *Browser {
	tb.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		tb.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	tb.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{
		Jar: jar, Transport: transport, Timeout: time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &Browser{tb: tb, client: client}
}

// Response is what came back.
type Response struct {
	Status  int
	Body    string
	Cookies []*http.Cookie // those that it sets
}

// Do sends a request and reads the response. An error fails the test, which goes on, so that it can be
// called by any goroutine.
func (b *Browser) Do(method, address string) Response {
	b.tb.Helper()
	request, err := http.NewRequestWithContext(b.tb.Context(), method, address, nil)
	if err != nil {
		b.tb.Error(err)
		return Response{}
	}
	response, err := b.client.Do(request)
	if err != nil {
		b.tb.Error(err)
		return Response{}
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		b.tb.Error(err)
	}
	return Response{response.StatusCode, string(body), response.Cookies()}
}

// Get is Do of a GET.
func (b *Browser) Get(address string) Response { b.tb.Helper(); return b.Do(http.MethodGet, address) }

// Post is Do of a POST.
func (b *Browser) Post(address string) Response { b.tb.Helper(); return b.Do(http.MethodPost, address) }

// Want does a request that must succeed with a body.
func (b *Browser) Want(method, address, body string) Response {
	b.tb.Helper()
	r := b.Do(method, address)
	if r.Status != http.StatusOK || r.Body != body {
		b.tb.Errorf("%s %s: %d %q, want 200 %q", method, address, r.Status, r.Body, body)
	}
	return r
}

// Copy returns another browser with the cookies that this one has for an address, as a thief's.
func (b *Browser) Copy(address string) *Browser {
	b.tb.Helper()
	other := NewBrowser(b.tb)
	at := b.parse(address)
	other.client.Jar.SetCookies(at, b.client.Jar.Cookies(at))
	return other
}

// Cookie returns the value of a cookie, or "".
func (b *Browser) Cookie(address, name string) string {
	b.tb.Helper()
	for _, c := range b.client.Jar.Cookies(b.parse(address)) {
		if c.Name == name {
			return c.Value
		}
	}
	return ""
}

// SetCookie gives the browser a cookie.
func (b *Browser) SetCookie(address, name, value string) {
	b.tb.Helper()
	b.client.Jar.SetCookies(b.parse(address), []*http.Cookie{{Name: name, Value: value, Path: "/"}})
}

func (b *Browser) parse(address string) *url.URL {
	b.tb.Helper()
	u, err := url.Parse(address)
	if err != nil {
		b.tb.Fatal(err)
	}
	return u
}
