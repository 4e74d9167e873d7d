// Package program runs the examples as their users do: as processes, visited by an HTTP client.
package program

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Build compiles the program in a test's directory and returns its path.
func Build(tb testing.TB) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "program")
	if out, err := exec.CommandContext(tb.Context(), "go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		tb.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// Program is one that runs.
type Program struct {
	URL    string
	cmd    *exec.Cmd
	exited chan error
}

// Start runs a program until the test ends, with DATABASE_URL and ADDR, and returns when it answers.
func Start(tb testing.TB, path, database string, env ...string) *Program {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	tb.Cleanup(cancel)
	address := freeAddress(tb)
	p := &Program{URL: "http://" + address, cmd: exec.CommandContext(ctx, path), exited: make(chan error, 1)}
	p.cmd.Env = append(append(os.Environ(), "DATABASE_URL="+database, "ADDR="+address), env...)
	p.cmd.Stderr = os.Stderr
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		p.exited <- p.cmd.Wait()
		close(p.exited)
	}()
	tb.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it has ended, if all went well
		for range p.exited {     // until it is closed
		}
	})
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return p
		}
		select {
		case <-poll.C:
		case err := <-p.exited:
			tb.Fatalf("the program ended: %v", err)
		}
	}
}

// Stop ends the program as Ctrl-C does, which must be a success.
func (p *Program) Stop(tb testing.TB) {
	tb.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		tb.Fatal(err)
	}
	if err := <-p.exited; err != nil {
		tb.Errorf("after an interrupt: %v", err)
	}
}

// freeAddress is one that nobody listened at a moment ago.
func freeAddress(tb testing.TB) string {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}
