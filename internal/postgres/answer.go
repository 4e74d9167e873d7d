package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// portAttempts is how many free ports are tried: between finding one and binding it, another
	// process may.
	portAttempts = 5
	startTimeout = 30 * time.Second
	pollInterval = 10 * time.Millisecond
)

var (
	errPortTaken  = errors.New("postgres: the port is taken")
	errNotRunning = errors.New("postgres: the server is not running")
	errEnded      = errors.New("postgres: it ended at once")
)

// settings are the parameters of a server for tests, overridden by those of opts. name becomes its
// cluster_name, by which awaitAnswer knows it.
func settings(opts Options, name string) map[string]string {
	s := map[string]string{
		"cluster_name": name,
		// Tests run in parallel, each with a pool or two, and some with dozens of connections.
		"max_connections": "500",
	}
	if !opts.Fsync {
		s["fsync"] = "off"
		s["full_page_writes"] = "off"
	}
	maps.Copy(s, opts.Settings)
	return s
}

// awaitAnswer waits until the server answers that has this name.
func awaitAnswer(ctx context.Context, url, name string, gone <-chan struct{}) error {
	return await(ctx, gone, func(ctx context.Context) error { return answers(ctx, url, name) })
}

// await repeats attempt until it succeeds, for startTimeout at most. It gives up with errEnded once
// gone is closed.
func await(ctx context.Context, gone <-chan struct{}, attempt func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	for {
		err := attempt(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-poll.C:
		case <-gone:
			return errEnded
		case <-ctx.Done():
			return fmt.Errorf("postgres: no answer: %w: %w", ctx.Err(), err)
		}
	}
}

// answers connects, and makes sure that who answers is the server of that name: when two processes
// choose the same port, that may be the other one's.
func answers(ctx context.Context, url, name string) error {
	conn, err := pgconn.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer hangUp(ctx, conn)
	results, err := conn.Exec(ctx, "show cluster_name").ReadAll()
	if err != nil {
		return err
	}
	if other := string(results[0].Rows[0][0]); other != name {
		return fmt.Errorf("%w by the server %q", errPortTaken, other)
	}
	return nil
}

// freePort returns a TCP port of 127.0.0.1 that nobody had bound a moment ago.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("postgres: find a free port: %w", err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	return port, listener.Close()
}

// hangUp closes a connection that has served. Nothing depends on how that goes, and it is to be done
// even where ctx is over.
func hangUp(ctx context.Context, conn interface{ Close(context.Context) error }) {
	_ = conn.Close(context.WithoutCancel(ctx))
}

// tail returns the last lines of a log.
func tail(content []byte) string {
	const most = 4000
	return string(bytes.TrimSpace(content[max(0, len(content)-most):]))
}
