// Package pgtest gives tests a PostgreSQL server, and schemas, databases and roles of their own.
//
// There is one server per test binary, from [postgres.Start], started when the first test asks for
// it. A package's TestMain calls [Main], which stops the server and looks for leaked goroutines:
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
// All functions may be called by parallel tests. They fail the test where they cannot do what they
// promise; nothing is skipped but by [Skip], and nothing is skipped in CI.
package pgtest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/pgsession/pgsession/internal/postgres"
)

const (
	startTimeout   = 2 * time.Minute // an image may have to be pulled
	cleanupTimeout = 30 * time.Second
	// More than the tests of one pool hold at once, each a transaction or two: go test -parallel.
	poolConns = 32
)

// releaseTimeout is how long a pool waits for the connections that a test has not given back. It is a
// variable for tests.
var releaseTimeout = 10 * time.Second

// shared is the server and the PgBouncer of this test binary, each started by the first test that
// asks.
var shared struct {
	server  lazy[*postgres.Server]
	bouncer lazy[*postgres.Bouncer]
}

// lazy is a value that is made once, when first asked for, and can be taken away at the end.
type lazy[T any] struct {
	mu    sync.Mutex
	made  bool
	value T
	err   error
}

func (l *lazy[T]) get(start func() (T, error)) (T, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.made {
		l.value, l.err = start()
		l.made = true
	}
	return l.value, l.err
}

// stop calls stop with the value, where there is one.
func (l *lazy[T]) stop(stop func(T) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.made || l.err != nil {
		return nil
	}
	return stop(l.value)
}

// Main runs the tests of a package, stops the servers that they started, fails where goroutines
// leaked, and exits. ignore names goroutines that are meant to outlive the tests.
func Main(m interface{ Run() int }, ignore ...goleak.Option) {
	code := m.Run()
	for _, err := range []error{
		shared.bouncer.stop((*postgres.Bouncer).Stop),
		shared.server.stop((*postgres.Server).Stop),
	} {
		if err != nil {
			fmt.Fprintln(os.Stderr, "pgtest:", err)
			code = 1
		}
	}
	// A test that failed often leaks as well, which would hide why it failed.
	if code == 0 {
		if err := goleak.Find(ignore...); err != nil {
			fmt.Fprintln(os.Stderr, "pgtest:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// Skip skips a test that needs something which the machine lacks, and is the one way to skip. Where
// the environment variable CI is set, to other than "false" or "0", it fails the test: a skip there
// would hide for ever that the test does not run.
func Skip(tb testing.TB, reason string) {
	tb.Helper()
	switch os.Getenv("CI") {
	case "", "false", "0":
		tb.Skip(reason)
	default:
		tb.Fatalf("%s; nothing is skipped in CI", reason)
	}
}

// Server returns the server of this test binary.
func Server(tb testing.TB) *postgres.Server {
	tb.Helper()
	server, err := shared.server.get(startShared)
	if err != nil {
		tb.Fatal(err)
	}
	return server
}

// URL returns a connection string for the server of this test binary, as a superuser.
func URL(tb testing.TB) string {
	tb.Helper()
	return Server(tb).URL()
}

// PrivateServer starts a server for this test alone, to be restarted, killed or paused, and stops it
// when the test ends. Where the test failed, the server's log joins the test's.
func PrivateServer(tb testing.TB, opts postgres.Options) *postgres.Server {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	opts.Private = true
	var log strings.Builder
	if opts.Log == nil {
		opts.Log = &log
	}
	server, err := postgres.Start(ctx, opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := server.Stop(); err != nil {
			tb.Error(err)
		}
		if tb.Failed() && log.Len() > 0 {
			tb.Logf("the server's log:\n%s", log.String())
		}
	})
	return server
}

// Standby makes a streaming replica of a private server, which it restarts, and stops it when the test
// ends. Where the server is not run from installed binaries the test is skipped.
func Standby(tb testing.TB, server *postgres.Server) *postgres.Server {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	standby, err := server.Standby(ctx)
	if postgres.IsMissing(err) {
		Skip(tb, err.Error())
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := standby.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return standby
}

// Bouncer returns a connection string for a PgBouncer in front of the server of this test binary, in
// transaction mode, as a superuser. The users that [Role] creates can connect through it as well.
// Where pgbouncer is not installed the test is skipped.
func Bouncer(tb testing.TB) string {
	tb.Helper()
	url := URL(tb)
	bouncer, err := shared.bouncer.get(func() (*postgres.Bouncer, error) {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		return postgres.PgBouncer(ctx, url, postgres.BouncerOptions{Password: password()})
	})
	if postgres.IsMissing(err) {
		Skip(tb, err.Error())
	}
	if err != nil {
		tb.Fatal(err)
	}
	return bouncer.URL()
}

// Pool returns a pool of at most 32 connections to the server of this test binary, closed when the
// test ends.
func Pool(tb testing.TB) *pgxpool.Pool {
	tb.Helper()
	return Connect(tb, URL(tb))
}

// Connect returns a pool of at most 32 connections to a server, closed when the test ends. A
// connection that the test has not given back by then fails it.
func Connect(tb testing.TB, url string) *pgxpool.Pool {
	tb.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		tb.Fatal(err)
	}
	config.MaxConns = poolConns
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		closed := make(chan struct{})
		go func() {
			pool.Close()
			close(closed)
		}()
		timeout := time.NewTimer(releaseTimeout)
		defer timeout.Stop()
		select {
		case <-closed:
		case <-timeout.C:
			tb.Errorf("pgtest: %d connections of the pool were never released",
				pool.Stat().AcquiredConns())
		}
	})
	return pool
}

// connect opens a connection for the set-up or the cleanup of a test, which is to be closed by done.
// A statement that waits for a lock fails after ten seconds, rather than wait for ever for a
// transaction that a test left open.
func connect(url string) (conn *pgx.Conn, ctx context.Context, done func(), err error) {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
	config, err := pgx.ParseConfig(url)
	if err == nil {
		config.RuntimeParams["lock_timeout"] = "10s"
		config.RuntimeParams["application_name"] = "pgtest"
		conn, err = pgx.ConnectConfig(ctx, config)
	}
	if err != nil {
		cancel()
		return nil, nil, nil, fmt.Errorf("pgtest: %w", err)
	}
	return conn, ctx, func() {
		_ = conn.Close(ctx) // nothing depends on how the connection ends
		cancel()
	}, nil
}

// execute runs statements on a connection of its own.
func execute(url string, statements ...string) error {
	conn, ctx, done, err := connect(url)
	if err != nil {
		return err
	}
	defer done()
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("pgtest: %s: %w", statement, err)
		}
	}
	return nil
}
