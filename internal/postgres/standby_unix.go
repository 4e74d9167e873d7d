//go:build unix

package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
)

// standby implements [Server.Standby].
func (c *cluster) standby(ctx context.Context) (_ *Server, err error) {
	sandbox, err := newSandbox("standby", c.durable)
	if err != nil {
		return nil, err
	}
	s := &cluster{
		sandbox: sandbox,
		durable: c.durable,
		program: c.program,
		name:    filepath.Base(sandbox.dir),
		source:  "standby of " + c.source,
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.remove())
		}
	}()
	data := sandbox.path("data")
	if err := c.copyTo(ctx, sandbox, data); err != nil {
		return nil, err
	}
	signalFile := filepath.Join(data, "standby.signal")
	if err := os.WriteFile(signalFile, nil, 0o644); err != nil { // its being there is what counts
		return nil, fmt.Errorf("postgres: %w", err)
	}
	c.mu.Lock()
	port := c.port
	c.mu.Unlock()
	// What the last of two says is what counts.
	s.args = append(slices.Clone(c.args), "-D", data, "-c", "cluster_name="+s.name, "-c",
		fmt.Sprintf("primary_conninfo=host=127.0.0.1 port=%d user=postgres", port))
	if err := s.startAnywhere(ctx); err != nil {
		return nil, err
	}
	return s.server(), nil
}

// copyTo copies the directory of a server that was shut down in good order, and starts it again.
func (c *cluster) copyTo(ctx context.Context, sandbox *sandbox, data string) (err error) {
	cp, err := exec.LookPath("cp")
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	c.mu.Lock()
	if c.running() == 0 {
		c.mu.Unlock()
		return errNotRunning
	}
	err = c.end(syscall.SIGINT)
	if err == nil {
		err = sandbox.run(ctx, "copy.log", cp, "-Rp", c.sandbox.path("data"), data)
	}
	c.mu.Unlock()
	return errors.Join(err, c.restart(ctx))
}
