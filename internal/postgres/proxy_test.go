package postgres_test

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgsession/pgsession/internal/postgres"
)

// echo listens and sends back what it receives, until it sees the end of it.
func echo(t *testing.T) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer func() { _ = conn.Close() }()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		running.Wait()
	})
	return listener.Addr().String()
}

func proxy(t *testing.T, target string) *postgres.Proxy {
	t.Helper()
	p, err := postgres.NewProxy(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func dial(t *testing.T, p *postgres.Proxy) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn.(*net.TCPConn)
}

// roundTrip sends a word and waits for it to come back, for a time.
func roundTrip(conn net.Conn, word string, timeout time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, word); err != nil {
		return err
	}
	back := make([]byte, len(word))
	if _, err := io.ReadFull(conn, back); err != nil {
		return err
	}
	if string(back) != word {
		return errors.New("it came back as " + string(back))
	}
	return nil
}

const (
	soon     = 20 * time.Second // by which what should happen has
	awhile   = 150 * time.Millisecond
	distance = 100 * time.Millisecond
)

func TestAProxyForwards(t *testing.T) {
	t.Parallel()
	p := proxy(t, echo(t))
	conn := dial(t, p)
	if err := roundTrip(conn, strings.Repeat("word", 100_000), soon); err != nil {
		t.Error(err)
	}
	// The end of one direction is passed on, and leaves the other open.
	if _, err := io.WriteString(conn, "last"); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(conn); string(rest) != "last" || err != nil {
		t.Errorf("the rest is %q: %v", rest, err)
	}
}

func TestAProxyDelays(t *testing.T) {
	t.Parallel()
	p := proxy(t, echo(t))
	conn := dial(t, p)
	p.Delay(distance)
	started := time.Now()
	if err := roundTrip(conn, "word", soon); err != nil {
		t.Error(err)
	}
	if took := time.Since(started); took < 2*distance {
		t.Errorf("there and back took %s", took)
	}
	p.Forward()
	if err := roundTrip(conn, "word", soon); err != nil {
		t.Errorf("after the delay: %v", err)
	}
}

// wantRefusal tests that a new connection is broken, be it while it is made.
func wantRefusal(t *testing.T, p *postgres.Proxy) {
	t.Helper()
	conn, err := net.Dial("tcp", p.Address())
	if err == nil {
		err = roundTrip(conn, "word", soon)
		_ = conn.Close()
	}
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a new connection: %v", err)
	}
}

func TestAProxyStalls(t *testing.T) {
	t.Parallel()
	p := proxy(t, echo(t))
	used, other := dial(t, p), dial(t, p)
	for _, conn := range []net.Conn{used, other} {
		if err := roundTrip(conn, "word", soon); err != nil {
			t.Fatal(err)
		}
	}
	p.Stall()
	wantRefusal(t, p)
	for n, conn := range []net.Conn{other, used} {
		if err := roundTrip(conn, "word", awhile); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("while it stalls: %v", err)
		}
		for deadline := time.Now().Add(soon); p.Stalled() != n+1; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d connections are stalled, want %d", p.Stalled(), n+1)
			}
		}
	}
	p.Refuse()
	wantRefusal(t, p)
	answer := make([]byte, len("word"))
	if err := used.SetDeadline(time.Now().Add(soon)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(used, answer); err != nil || string(answer) != "word" {
		t.Errorf("after it: %q, %v", answer, err)
	}

	p.Stall()
	if err := roundTrip(used, "more", awhile); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("while it stalls again: %v", err)
	}
	p.Reset()
	if err := roundTrip(used, "more", soon); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a stalled connection that is reset: %v", err)
	}
}

func TestAProxySwallows(t *testing.T) {
	t.Parallel()
	p := proxy(t, echo(t))
	used, idle := dial(t, p), dial(t, p)
	for _, conn := range []net.Conn{used, idle} {
		if err := roundTrip(conn, "word", soon); err != nil {
			t.Fatal(err)
		}
	}
	p.Swallow()
	fresh := dial(t, p)
	for name, conn := range map[string]net.Conn{"open": used, "new": fresh} {
		if err := roundTrip(conn, "word", awhile); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a connection that was %s: %v", name, err)
		}
	}

	p.Forward()
	if err := roundTrip(idle, "word", soon); err != nil {
		t.Errorf("the connection that lost nothing: %v", err)
	}
	for name, conn := range map[string]net.Conn{"open": used, "new": fresh} {
		if err := roundTrip(conn, "word", soon); !broken(err) {
			t.Errorf("the connection that was %s and lost a word: %v", name, err)
		}
	}
	if err := roundTrip(dial(t, p), "word", soon); err != nil {
		t.Errorf("a connection made afterwards: %v", err)
	}
}

func TestAProxySwallowsTheEndOfAConnection(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	p := proxy(t, listener.Addr().String())
	conn := dial(t, p)
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	p.Swallow()
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(awhile)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the client learnt of the end: %v", err)
	}
}

func TestAProxyResets(t *testing.T) {
	t.Parallel()
	p := proxy(t, echo(t))
	conn := dial(t, p)
	if err := roundTrip(conn, "word", soon); err != nil {
		t.Fatal(err)
	}
	p.Reset()
	if err := roundTrip(conn, "word", soon); !broken(err) {
		t.Errorf("the open connection: %v", err)
	}
	newOnesBreak(t, p)
	p.Forward()
	if err := roundTrip(dial(t, p), "word", soon); err != nil {
		t.Errorf("a connection made afterwards: %v", err)
	}
}

func TestAProxyOfWhatDoesNotListenResets(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	newOnesBreak(t, proxy(t, address))
}

// newOnesBreak expects a reset, be it while dialling, since the kernel accepts before the proxy
// does, or afterwards.
func newOnesBreak(t *testing.T, p *postgres.Proxy) {
	t.Helper()
	conn, err := net.Dial("tcp", p.Address())
	if err == nil {
		defer func() { _ = conn.Close() }()
		err = roundTrip(conn, "word", soon)
	}
	if !broken(err) {
		t.Errorf("a new connection: %v", err)
	}
}

func TestAClosedProxyHasBrokenEverything(t *testing.T) {
	t.Parallel()
	p := proxy(t, echo(t))
	conn := dial(t, p)
	if err := roundTrip(conn, "word", soon); err != nil {
		t.Fatal(err)
	}
	p.Swallow()
	swallowed := dial(t, p)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	for _, conn := range []net.Conn{conn, swallowed} {
		if err := roundTrip(conn, "word", soon); !broken(err) {
			t.Errorf("a connection: %v", err)
		}
	}
}

// broken says whether an error is that of a connection that was reset.
func broken(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
