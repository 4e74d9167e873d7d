//go:build unix

package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const serverLog = "server.log"

// cluster is a server run from installed binaries: its directory and its postmaster.
type cluster struct {
	sandbox *sandbox
	durable bool // Options.Fsync
	program string
	args    []string // but for the port
	name    string   // cluster_name, by which to know the server from another at its port
	source  string   // Server.source
	log     io.Writer

	mu         sync.Mutex
	port       int
	postmaster *process
}

func startCluster(ctx context.Context, bin binaries, opts Options) (_ *Server, err error) {
	sandbox, err := newSandbox("postgres", opts.Fsync)
	if err != nil {
		return nil, err
	}
	c := &cluster{
		sandbox: sandbox,
		durable: opts.Fsync,
		program: filepath.Join(bin.dir, "postgres"),
		name:    filepath.Base(sandbox.dir),
		log:     opts.Log,
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.remove())
		}
	}()

	data := sandbox.path("data")
	err = sandbox.run(ctx, "initdb.log", filepath.Join(bin.dir, "initdb"), "-D", data, "-A", "trust",
		"-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	if err != nil {
		return nil, err
	}
	// No sockets but TCP ones: the path of a socket has 107 bytes at most.
	c.args = []string{"-D", data, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="}
	parameters := settings(opts, c.name)
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		c.args = append(c.args, "-c", name+"="+parameters[name])
	}
	c.source = "private " + bin.String()
	if err = c.startAnywhere(ctx); err != nil {
		return nil, err
	}
	return c.server(), nil
}

func (c *cluster) server() *Server { return &Server{url: c.url(), source: c.source, owned: c} }

// startAnywhere starts the postmaster at a free port.
func (c *cluster) startAnywhere(ctx context.Context) (err error) {
	for range portAttempts {
		if c.port, err = freePort(); err != nil {
			return err
		}
		if err = c.start(ctx); !errors.Is(err, errPortTaken) {
			break
		}
	}
	return err
}

func (c *cluster) url() string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", c.port)
}

// start runs the postmaster and waits until it answers. c.mu must be held, or c not be shared yet.
func (c *cluster) start(ctx context.Context) (err error) {
	logged := c.logSize()
	args := append(slices.Clone(c.args), "-c", "port="+strconv.Itoa(c.port))
	if c.postmaster, err = c.sandbox.start(serverLog, c.program, args...); err != nil {
		return err
	}
	err = awaitAnswer(ctx, c.url(), c.name, c.postmaster.gone)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errEnded) &&
		strings.Contains(c.loggedSince(logged), "could not create any TCP/IP sockets"):
		return fmt.Errorf("%w: %d", errPortTaken, c.port)
	}
	c.postmaster.end(syscall.SIGQUIT)
	return fmt.Errorf("%w\n%s", err, c.sandbox.tail(serverLog))
}

func (c *cluster) logSize() int64 {
	info, err := os.Stat(c.sandbox.path(serverLog))
	if err != nil {
		return 0
	}
	return info.Size()
}

func (c *cluster) loggedSince(size int64) string {
	content, _ := os.ReadFile(c.sandbox.path(serverLog))
	return string(content[min(int64(len(content)), size):])
}

func (c *cluster) restart(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.end(syscall.SIGINT); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		// Something may hold the port just now, a client's own end of a connection for one.
		err := c.start(ctx)
		if !errors.Is(err, errPortTaken) {
			return err
		}
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			return err
		}
	}
}

func (c *cluster) shutdown(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.end(syscall.SIGQUIT)
}

func (c *cluster) kill(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.end(syscall.SIGKILL)
}

// running returns the postmaster's process id, or 0 where it does not run. c.mu must be held.
func (c *cluster) running() int {
	if c.postmaster == nil || !c.postmaster.running() {
		return 0
	}
	return c.postmaster.cmd.Process.Pid
}

// end ends the postmaster by a signal, and makes sure that its children are gone as well: an orphan
// keeps its shared memory, without which a new postmaster refuses to start. c.mu must be held.
func (c *cluster) end(sig syscall.Signal) error {
	pid := c.running()
	if pid == 0 {
		return nil
	}
	children, err := childrenOf(pid)
	if err != nil {
		return err
	}
	if sig != syscall.SIGKILL {
		// A paused process takes no other signal.
		signal(append(children, pid), syscall.SIGCONT)
	}
	c.postmaster.end(sig)
	// Orphans notice that the postmaster is gone and leave, but for one that is busy, or paused.
	if awaitState(children, 'Z', time.Second) != nil {
		signal(children, syscall.SIGKILL)
	}
	return awaitState(children, 'Z', 10*time.Second)
}

func (c *cluster) pause(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	pid := c.running()
	if pid == 0 {
		return errNotRunning
	}
	// The postmaster goes first, so that it starts no further process. Its children have process
	// groups of their own, and are to be signalled one by one.
	signal([]int{pid}, syscall.SIGSTOP)
	if err := awaitState([]int{pid}, 'T', 10*time.Second); err != nil {
		return err
	}
	children, err := childrenOf(pid)
	if err != nil {
		return err
	}
	signal(children, syscall.SIGSTOP)
	return awaitState(children, 'T', 10*time.Second)
}

func (c *cluster) resume(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	pid := c.running()
	if pid == 0 {
		return errNotRunning
	}
	children, err := childrenOf(pid)
	if err != nil {
		return err
	}
	signal(append(children, pid), syscall.SIGCONT)
	return nil
}

func (c *cluster) remove() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.end(syscall.SIGQUIT)
	if c.log != nil {
		_, logErr := io.WriteString(c.log, c.loggedSince(0))
		err = errors.Join(err, logErr)
	}
	return errors.Join(err, c.sandbox.remove())
}
