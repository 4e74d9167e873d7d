package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/pgsession/pgsession"
)

// User-Agents of the tour's devices.
const (
	laptopAgent = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"
	phoneAgent  = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 " +
		"(KHTML, like Gecko) Version/26.0 Mobile/15E148 Safari/604.1"
	tabletAgent = "Mozilla/5.0 (Linux; Android 16; Pixel Tablet) AppleWebKit/537.36 (KHTML, like Gecko) " +
		"Chrome/142.0.0.0 Safari/537.36"
)

// browser is a device of the tour: a real HTTP client with a cookie jar, which follows redirects. It
// asks for JSON, so that the tour need not read HTML.
type browser struct {
	agent  string
	client *http.Client
}

func newBrowser(agent string) *browser {
	jar, _ := cookiejar.New(nil) // fails for no options at all
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil // everything here is on this machine
	return &browser{agent, &http.Client{Jar: jar, Transport: transport, Timeout: 2 * slowest}}
}

func (b *browser) close() { b.client.CloseIdleConnections() }

// answer is what came back, in the end: of the page that a redirect led to.
type answer struct {
	status   int
	server   string // which server answered
	redirect bool   // whether there was a redirect to the page
	page
}

// get looks at the page.
func (b *browser) get(ctx context.Context, s *instance) (answer, error) {
	return b.send(ctx, http.MethodGet, s.url+"/", nil, nil)
}

// post sends a form, as a page of the same server would.
func (b *browser) post(ctx context.Context, s *instance, path string, form url.Values) (answer, error) {
	return b.send(ctx, http.MethodPost, s.url+path, form, http.Header{"Sec-Fetch-Site": {"same-origin"}})
}

func (b *browser) send(
	ctx context.Context, method, address string, form url.Values, header http.Header,
) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(form.Encode()))
	if err != nil {
		return answer{}, err
	}
	for name, values := range header {
		r.Header[name] = values
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r.Header.Set("User-Agent", b.agent)
	r.Header.Set("Accept", "application/json")
	response, err := b.client.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	a := answer{
		status:   response.StatusCode,
		server:   response.Header.Get("X-Answered-By"),
		redirect: method == http.MethodPost && response.Request.Method == http.MethodGet,
	}
	body, err := io.ReadAll(response.Body)
	if err == nil && response.Header.Get("Content-Type") == "application/json" {
		err = json.Unmarshal(body, &a.page)
	}
	if err != nil {
		return answer{}, fmt.Errorf("%s %s: %w", method, address, err)
	}
	return a, nil
}

// slowly sends a form that the server takes its time over. It returns when the server has said that
// it is at it, with what waits for its answer.
func (b *browser) slowly(ctx context.Context, s *instance, path string) (wait func() (answer, error), err error) {
	type result struct {
		answer answer
		err    error
	}
	var once sync.Once
	begun := make(chan struct{})
	done := make(chan result, 1)
	trace := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(int, textproto.MIMEHeader) error {
			once.Do(func() { close(begun) })
			return nil
		},
	})
	go func() {
		a, err := b.post(trace, s, path, nil)
		done <- result{a, err}
	}()
	wait = func() (answer, error) {
		r := <-done
		return r.answer, r.err
	}
	select {
	case <-begun:
		return wait, nil
	case r := <-done:
		if r.err == nil {
			r.err = fmt.Errorf("POST %s did not wait: it answered with status %d", path, r.answer.status)
		}
		return nil, r.err
	}
}

// token is the browser's cookie: for comparing, and for showing that an old one is dead. A Token
// prints as nothing but "[redacted]".
func (b *browser) token(s *instance) pgsession.Token {
	address, err := url.Parse(s.url)
	if err != nil {
		return ""
	}
	for _, cookie := range b.client.Jar.Cookies(address) {
		if cookie.Name == cookieName {
			return pgsession.Token(cookie.Value)
		}
	}
	return ""
}

// use makes the browser send a token, whatever it sent before.
func (b *browser) use(s *instance, token pgsession.Token) error {
	address, err := url.Parse(s.url)
	if err != nil {
		return err
	}
	b.client.Jar.SetCookies(address, []*http.Cookie{{
		Name: cookieName, Value: string(token), Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}})
	return nil
}

// sleep waits, or returns the error of a context that ended before.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
