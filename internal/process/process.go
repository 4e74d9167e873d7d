// Package process runs programs as tests meet them: built once, started as processes, and stopped as
// Ctrl-C does.
package process

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/pgsession/internal/pgtest"
)

// programs are the builds of this test binary, by directory.
var programs struct {
	mu    sync.Mutex
	built map[string]func() (string, error)
}

// Build builds the program in a directory, once for the test binary, and returns its path. [Tests]
// removes it.
func Build(t *testing.T, dir string) string {
	t.Helper()
	programs.mu.Lock()
	build := programs.built[dir]
	if build == nil {
		if programs.built == nil {
			programs.built = map[string]func() (string, error){}
		}
		build = sync.OnceValues(func() (string, error) {
			temp, err := os.MkdirTemp("", "pgsession-program-") //nolint:usetesting // other tests use it too
			if err != nil {
				return "", err
			}
			program := filepath.Join(temp, "program")
			cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", program, ".") // links in two thirds of the time
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				return string(out), err
			}
			return program, nil
		})
		programs.built[dir] = build
	}
	programs.mu.Unlock()
	program, err := build()
	if err != nil {
		t.Fatalf("go build in %s: %v\n%s", dir, err, program)
	}
	return program
}

// Tests are a package's tests, which remove at their end what [Build] left.
func Tests(m *testing.M) *Runner { return &Runner{m} }

// Runner is like [testing.M].
type Runner struct{ m *testing.M }

// Run runs the tests.
func (r *Runner) Run() int {
	defer func() {
		programs.mu.Lock()
		defer programs.mu.Unlock()
		for _, build := range programs.built {
			if program, err := build(); err == nil {
				_ = os.RemoveAll(filepath.Dir(program))
			}
		}
	}()
	return r.m.Run()
}

// Server is a program that serves HTTP, running.
type Server struct {
	URL    string // without a slash at the end
	cmd    *exec.Cmd
	exited chan error
}

// Start runs a command until the test ends, with a free address in the environment, as ADDR and its
// port as PORT, and returns when it answers there. env is what else is in the environment.
func Start(t *testing.T, env []string, name string, args ...string) *Server {
	t.Helper()
	return StartIn(t, "", env, name, args...)
}

// StartIn is [Start] in a directory.
func StartIn(t *testing.T, dir string, env []string, name string, args ...string) *Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	address := freeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	s := &Server{URL: "http://" + address, cmd: exec.CommandContext(ctx, name, args...), exited: make(chan error, 1)}
	s.cmd.Dir = dir
	s.cmd.Env = append(append(os.Environ(), "ADDR="+address, "PORT="+port), env...)
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
			t.Fatalf("%s ended: %v", name, err)
		}
	}
}

// Stop ends the program as Ctrl-C does, which must be a success.
func (s *Server) Stop(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := <-s.exited; err != nil {
		t.Errorf("after an interrupt: %v", err)
	}
}

// Kill ends the program at once, as a crash does.
func (s *Server) Kill(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-s.exited; err == nil {
		t.Error("the program had ended by itself")
	}
}

// freeAddress is one that nobody listened at a moment ago. It is below the ports that systems give to
// clients and to listeners of port 0: another test's server would get it while the program starts.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(10_000+rand.IntN(20_000))))
		if err == nil {
			defer func() { _ = listener.Close() }()
			return listener.Addr().String()
		}
	}
	t.Fatal("there is no free port")
	return ""
}

// NeedNode skips a test where Node is not installed; in CI it fails it.
func NeedNode(t *testing.T) {
	t.Helper()
	for _, name := range []string{"node", "npm"} {
		if _, err := exec.LookPath(name); err != nil {
			pgtest.Skip(t, name+" is not installed")
		}
	}
}

// NodeModules makes a directory with files, by name, of which package.json is one, and the packages
// that it asks for.
func NodeModules(t *testing.T, files map[string]string) string {
	t.Helper()
	NeedNode(t)
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "npm", "install", "--no-audit", "--no-fund", "--silent")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm install: %v\n%s", err, out)
	}
	return dir
}
