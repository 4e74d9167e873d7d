package main_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgsession/pgsession/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// TestQuickstart runs the program of the README as a process, and visits it as a browser does.
func TestQuickstart(t *testing.T) {
	t.Parallel()
	program := build(t)
	database := pgtest.Database(t)
	server := start(t, program, database)

	ada, bob := newClient(t), newClient(t)
	server.want(t, ada, http.MethodGet, "/", "visit 1\n")
	server.want(t, ada, http.MethodGet, "/", "visit 2\n")
	server.want(t, bob, http.MethodGet, "/", "visit 1\n")

	// Sessions outlive the process that made them.
	server.stop(t)
	server = start(t, program, database)
	server.want(t, ada, http.MethodGet, "/", "visit 3\n")

	// What is left of a logout is nothing, for whoever kept the cookie as well.
	thief, address := newClient(t), server.request(t, http.MethodGet, "/").URL
	thief.Jar.SetCookies(address, ada.Jar.Cookies(address))
	server.want(t, ada, http.MethodPost, "/logout", "logged out\n")
	server.want(t, ada, http.MethodPost, "/logout", "logged out\n")
	server.want(t, ada, http.MethodGet, "/", "visit 1\n")
	server.want(t, thief, http.MethodGet, "/", "visit 1\n")
	server.want(t, bob, http.MethodGet, "/", "visit 2\n")

	crossSite := server.request(t, http.MethodPost, "/logout")
	crossSite.Header.Set("Sec-Fetch-Site", "cross-site")
	if status, body := send(t, bob, crossSite); status != http.StatusForbidden {
		t.Errorf("a logout by another site: status %d, want 403: %q", status, body)
	}
	server.want(t, bob, http.MethodGet, "/", "visit 3\n")
	server.stop(t)
}

func TestTheCookieIsForHTTPAndThisSiteOnly(t *testing.T) {
	t.Parallel()
	server := start(t, build(t), pgtest.Database(t))
	response, err := newClient(t).Do(server.request(t, http.MethodGet, "/"))
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	cookies := response.Cookies()
	if len(cookies) != 1 {
		t.Fatalf("%d cookies, want 1", len(cookies))
	}
	if c := cookies[0]; !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" {
		t.Errorf("HttpOnly %v, SameSite %v, Path %q, Domain %q", c.HttpOnly, c.SameSite, c.Path, c.Domain)
	}
}

func TestADatabaseThatDoesNotAnswerIsAnError(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(build(t))
	// Port 1 is tcpmux's, where nobody has listened for decades.
	cmd.Env = append(os.Environ(), "DATABASE_URL=postgres://nobody@127.0.0.1:1/nowhere")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !bytes.Contains(out, []byte("127.0.0.1")) {
		t.Errorf("%v, want exit status 1 and the address that does not answer:\n%s", err, out)
	}
}

func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "quickstart")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// server is the program, running.
type server struct {
	url    string
	cmd    *exec.Cmd
	exited chan error
}

// start runs the program until the test ends, and returns when it answers.
func start(t *testing.T, program, database string) *server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	address := freeAddress(t)
	s := &server{url: "http://" + address, cmd: exec.CommandContext(ctx, program), exited: make(chan error, 1)}
	s.cmd.Env = append(os.Environ(), "DATABASE_URL="+database, "ADDR="+address)
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.exited <- s.cmd.Wait()
		close(s.exited)
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // it has ended, if all went well
		for range s.exited {     // until it is closed
		}
	})
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return s
		}
		select {
		case <-poll.C:
		case err := <-s.exited:
			t.Fatalf("the program ended: %v", err)
		}
	}
}

// stop ends the program as Ctrl-C does, which must be a success.
func (s *server) stop(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := <-s.exited; err != nil {
		t.Errorf("after an interrupt: %v", err)
	}
}

// freeAddress is one that nobody listened at a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

func newClient(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
}

func (s *server) request(t *testing.T, method, path string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func send(t *testing.T, client *http.Client, r *http.Request) (status int, body string) {
	t.Helper()
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(b)
}

func (s *server) want(t *testing.T, client *http.Client, method, path, body string) {
	t.Helper()
	if status, got := send(t, client, s.request(t, method, path)); status != http.StatusOK || got != body {
		t.Errorf("%s %s: %d %q, want 200 %q", method, path, status, got, body)
	}
}
