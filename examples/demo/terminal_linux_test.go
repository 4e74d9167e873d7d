package main_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgsession/pgsession/internal/pgtest"
)

// TestTerminal runs the demo on a terminal, where it serves its page until Ctrl-C. It is for Linux
// only because opening a terminal is different everywhere.
func TestTerminal(t *testing.T) {
	t.Parallel()
	program := build(t)
	for _, test := range []struct {
		name   string
		env    []string
		colour bool
	}{
		{"in colour", []string{"TERM=xterm", "NO_COLOR="}, true},
		{"without colour where NO_COLOR asks for it", []string{"TERM=xterm", "NO_COLOR=1"}, false},
	} {
		t.Run("it serves the page until Ctrl-C, "+test.name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.Database(t)
			user, program := openTerminal(t), command(t, program, environment(append(test.env, "DATABASE_URL="+url)...))
			program.Stdin, program.Stdout, program.Stderr = user.end, user.end, user.end
			program.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			if err := program.Start(); err != nil {
				t.Fatal(err)
			}
			_ = user.end.Close() // the program has its own
			out := user.await(t, "Ctrl-C ends everything.")
			if strings.Contains(out, "\x1b") != test.colour {
				t.Errorf("escape codes: %v, want %v:\n%s", !test.colour, test.colour, out)
			}
			page := regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(out)
			if status, body := get(t, page+"/"); status != http.StatusOK || !strings.Contains(body, "Count a visit") {
				t.Errorf("the page: status %d\n%s", status, body)
			}

			if _, err := user.keys.WriteString("\x03"); err != nil { // Ctrl-C
				t.Fatal(err)
			}
			if status := exitStatus(t, program.Wait()); status != 0 {
				t.Errorf("exit status %d, want 0:\n%s", status, user.text())
			}
			if conn, err := net.Dial("tcp", strings.TrimPrefix(page, "http://")); err == nil {
				_ = conn.Close()
				t.Error("the page is still served")
			}
			wantSchemas(t, url, "public")
		})
	}
}

// terminal is a pseudo-terminal: what its user sees and types, and the end for the program.
type terminal struct {
	keys, end *os.File

	mu   sync.Mutex
	seen strings.Builder
	more chan struct{} // told of each reading
}

func openTerminal(t *testing.T) *terminal {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(keys.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	end, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &terminal{keys: keys, end: end, more: make(chan struct{}, 1)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		buffer := make([]byte, 4096)
		for {
			n, err := keys.Read(buffer)
			if err != nil {
				return // when the program has closed its end
			}
			p.mu.Lock()
			p.seen.Write(buffer[:n])
			p.mu.Unlock()
			select {
			case p.more <- struct{}{}:
			default:
			}
		}
	}()
	t.Cleanup(func() {
		_ = end.Close() // again, for a program that never started
		<-read
		_ = keys.Close()
	})
	return p
}

func (p *terminal) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.String()
}

// await waits until the program has written a text, and returns all that it has written.
func (p *terminal) await(t *testing.T, text string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !strings.Contains(p.text(), text) {
		select {
		case <-p.more:
		case <-ctx.Done():
			t.Fatalf("it never wrote %q:\n%s", text, p.text())
		}
	}
	return p.text()
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
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
