//go:build unix

package postgres_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

// childVariable makes this test binary a process that starts servers and dies without stopping them.
// Its value says how.
const childVariable = "PGSESSION_TEST_CHILD"

func child() {
	ctx := context.Background()
	server, err := postgres.Start(ctx, postgres.Options{Private: true})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if strings.HasPrefix(server.Source(), "docker ") {
		_ = server.Stop()
		fmt.Println("PostgreSQL is not installed; a container is for testcontainers to reap")
		os.Exit(1)
	}
	address := server.URL()
	how := os.Getenv(childVariable)
	if how == "paused" {
		if err := server.Pause(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	if how == "bouncer" {
		bouncer, err := postgres.PgBouncer(ctx, address, postgres.BouncerOptions{})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		address = bouncer.URL()
	}
	fmt.Println(address)
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test has looked around
	switch how {
	case "exit":
		os.Exit(3)
	case "panic":
		go func() { panic("as a test would") }()
	}
	select {} // for a signal
}

// startChild starts the child in a process group of its own, so that a test can send what a terminal
// does, and returns what it printed. resume lets it go on to die.
func startChild(t *testing.T, how string) (cmd *exec.Cmd, address string, resume func()) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+how)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if strings.Contains(line, "not installed") {
		pgtest.Skip(t, line)
	}
	if err != nil || !strings.HasPrefix(line, "postgres://") {
		t.Fatalf("the child said %q: %v", line, err)
	}
	return cmd, strings.TrimSpace(line), func() { _ = in.Close() }
}

func TestAServerDoesNotOutliveItsOwner(t *testing.T) {
	t.Parallel()
	ways := map[string]func(*exec.Cmd){
		"killed":   func(cmd *exec.Cmd) { _ = cmd.Process.Kill() },
		"Ctrl-C":   func(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) },
		"hangup":   func(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGHUP) },
		"kill all": func(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) },
		"exit":     func(*exec.Cmd) {},
		"panic":    func(*exec.Cmd) {},
	}
	if signal.Ignored(syscall.SIGHUP) {
		delete(ways, "hangup") // under nohup it ends nobody, and so no owner of a server
	}
	for how, kill := range ways {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			cmd, address, resume := startChild(t, how)
			dir, pid := whereabouts(t, connect(t, address))
			resume()
			kill(cmd)
			_ = cmd.Wait()
			eventually(t, "the server is gone", func() bool { return !alive(pid) })
			eventually(t, "its directory is gone", func() bool { return !exists(dir) })
		})
	}
}

func TestAPausedServerDoesNotOutliveItsOwner(t *testing.T) {
	t.Parallel()
	cmd, address, _ := startChild(t, "paused")
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	eventually(t, "the server is gone", func() bool { return refused(t, address) })
}

func TestAPgBouncerDoesNotOutliveItsOwner(t *testing.T) {
	t.Parallel()
	cmd, address, _ := startChild(t, "bouncer")
	connect(t, address)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	eventually(t, "the PgBouncer is gone", func() bool { return refused(t, address) })
}

// refused says whether nobody listens at an address any more: a paused server accepts connections,
// by way of the kernel, and says nothing.
func refused(t *testing.T, address string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	conn, err := pgx.Connect(ctx, address)
	if err == nil {
		_ = conn.Close(ctx)
		return false
	}
	return strings.Contains(err.Error(), "connection refused")
}
