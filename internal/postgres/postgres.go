// Package postgres provides a PostgreSQL server for tests, demos and benchmarks.
//
// [Start] uses the server that the environment names, else a container, else a throw-away server
// run from installed binaries, and otherwise fails with an error that says what to install. Nothing
// is left behind: a container is reaped by testcontainers, and a throw-away server is watched by a
// small shell process that ends it and removes its directory should its owner die without calling
// [Server.Stop], however it dies.
//
// The environment variables are:
//
//   - PGSESSION_TEST_DATABASE_URL, else DATABASE_URL: a server to use. Its user should be a
//     superuser, since tests create databases, roles and extensions.
//   - PGSESSION_TEST_PGBIN: a directory with initdb and postgres, used even where Docker is running.
//   - PGSESSION_TEST_IMAGE: the container image, [DefaultImage] if unset.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The environment variables that [Start] reads.
const (
	envTestURL = "PGSESSION_TEST_DATABASE_URL"
	envURL     = "DATABASE_URL"
	envBin     = "PGSESSION_TEST_PGBIN"
	envImage   = "PGSESSION_TEST_IMAGE"
)

// ErrNotOwned is returned by the methods that restart, stop or pause a server where that server was
// named by the environment: it is somebody else's.
var ErrNotOwned = errors.New("postgres: the server was not started here, so it is not ours to control")

// Options says which server [Start] should provide. The zero value is a server for ordinary tests.
type Options struct {
	// Private asks for a server of one's own, to restart, kill or pause. It ignores the URLs in the
	// environment, and prefers installed binaries to a container. Defaults to false.
	Private bool

	// Fsync makes the server wait for its disk, as one in production does. Benchmarks want it.
	// Defaults to false, which is faster and loses data only where the machine crashes.
	Fsync bool

	// Settings are extra server parameters, such as shared_preload_libraries, given to the server on
	// its command line. A server named by the environment cannot take any, so Settings other than
	// none imply Private.
	Settings map[string]string

	// Bin is a directory with the binaries to run: initdb and postgres. Setting it implies Private.
	// Defaults to PGSESSION_TEST_PGBIN, else to what is installed.
	Bin string

	// Log receives the server's log when the server is stopped. It applies to installed binaries
	// only. Defaults to nowhere.
	Log io.Writer
}

// Server is a running PostgreSQL server. Its methods are safe for concurrent use.
type Server struct {
	url    string
	source string
	owned  instance // nil where the environment named the server

	stopOnce sync.Once
	stopErr  error
}

// instance is a server started here: a process or a container.
type instance interface {
	restart(ctx context.Context) error
	shutdown(ctx context.Context) error
	kill(ctx context.Context) error
	pause(ctx context.Context) error
	resume(ctx context.Context) error
	// remove ends the server, whatever its state, and deletes all that it stored.
	remove() error
}

// Start finds or starts a server: the one that the environment names, else a container where a Docker
// daemon answers, else one run from installed binaries. Two things put installed binaries before the
// container: Options.Private, since a process is started in a third of a second and can be stopped,
// killed and paused exactly; and naming the directory to use, by Options.Bin or
// PGSESSION_TEST_PGBIN, since what is asked for by name comes before what happens to be there.
//
// ctx bounds the start, not the server's life: call [Server.Stop] to end that. The error where there
// is nothing to run says what to install or set.
func Start(ctx context.Context, opts Options) (*Server, error) {
	if opts.Bin != "" || len(opts.Settings) > 0 {
		opts.Private = true
	}
	if !opts.Private {
		if name, url := environmentURL(); url != "" {
			return useURL(ctx, name, url)
		}
	}

	explicit := opts.Bin
	if explicit == "" {
		explicit = os.Getenv(envBin)
	}
	if explicit != "" {
		bin, err := checkBinaries(ctx, explicit)
		if err != nil {
			return nil, err
		}
		return startCluster(ctx, bin, opts)
	}

	providers := []func(context.Context, Options) (*Server, error){startContainer, startInstalled}
	if opts.Private {
		providers = []func(context.Context, Options) (*Server, error){startInstalled, startContainer}
	}
	var reasons []string
	for _, provide := range providers {
		server, err := provide(ctx, opts)
		var absent *absentError
		if errors.As(err, &absent) {
			reasons = append(reasons, absent.Error())
			continue
		}
		return server, err
	}
	return nil, nothingToRun(opts, reasons)
}

// absentError says that one kind of server is not to be had on this machine, as distinct from its
// failing to start: the first moves on to the next kind, the second is reported.
type absentError struct{ reason string }

func (e *absentError) Error() string { return e.reason }

func nothingToRun(opts Options, reasons []string) error {
	var b strings.Builder
	b.WriteString("postgres: there is no PostgreSQL to run against:\n  - ")
	b.WriteString(strings.Join(reasons, "\n  - "))
	b.WriteString("\nDo one of these:\n")
	if !opts.Private {
		fmt.Fprintf(&b, "  - set %s to a server whose user is a superuser\n", envURL)
	}
	b.WriteString("  - start Docker\n")
	b.WriteString("  - install PostgreSQL 14 or newer, on Debian and Ubuntu by\n")
	b.WriteString("    apt-get install -y --no-install-recommends postgresql\n")
	fmt.Fprintf(&b, "  - set %s to a directory that holds initdb and postgres;\n", envBin)
	b.WriteString("    scripts/embedded-postgres 17 fetches them and prints that directory")
	return &absentError{b.String()}
}

func environmentURL() (name, url string) {
	for _, name := range []string{envTestURL, envURL} {
		if url := os.Getenv(name); url != "" {
			return name, url
		}
	}
	return "", ""
}

func useURL(ctx context.Context, name, url string) (*Server, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("postgres: %s: %w", name, err) // pgx leaves the password out
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("postgres: the server that %s names does not answer: %w", name, err)
	}
	defer hangUp(ctx, conn)
	if err := conn.Ping(ctx); err != nil {
		return nil, fmt.Errorf("postgres: the server that %s names does not answer: %w", name, err)
	}
	source := fmt.Sprintf("%s (%s:%d/%s)", name, config.Host, config.Port, config.Database)
	return &Server{url: url, source: source}, nil
}

// URL returns a connection string for a database on the server, as a superuser where the server was
// started here. pgx and lib/pq both take it. It stays the same when the server is restarted.
func (s *Server) URL() string { return s.url }

// Source says in words which server this is, without its password: for a line of output.
func (s *Server) Source() string { return s.source }

// Stop ends a server that was started here, and removes its directory or container. It does nothing
// to a server that the environment named. Calls after the first return what the first returned.
func (s *Server) Stop() error {
	s.stopOnce.Do(func() {
		if s.owned != nil {
			s.stopErr = s.owned.remove()
		}
	})
	return s.stopErr
}

// Restart shuts the server down as pg_ctl's fast mode does, unless it is down already, and starts it
// again at the same address with the same data. It returns when the server answers.
func (s *Server) Restart(ctx context.Context) error {
	return s.control(ctx, instance.restart)
}

// Shutdown stops the server as pg_ctl's immediate mode does (SIGQUIT), and returns when it is gone.
// [Server.Restart] brings it back, recovering from its write-ahead log.
func (s *Server) Shutdown(ctx context.Context) error {
	return s.control(ctx, instance.shutdown)
}

// Kill crashes the server: SIGKILL to its postmaster. It returns when every process is gone.
// [Server.Restart] brings it back, recovering from its write-ahead log.
func (s *Server) Kill(ctx context.Context) error {
	return s.control(ctx, instance.kill)
}

// Pause freezes every process of the server (SIGSTOP). Connections stay open and say nothing; new
// ones are accepted by the kernel and hang. It returns when the processes have stopped.
func (s *Server) Pause() error {
	return s.control(context.Background(), instance.pause)
}

// Resume lets a paused server go on. It does nothing to one that is not paused.
func (s *Server) Resume() error {
	return s.control(context.Background(), instance.resume)
}

func (s *Server) control(ctx context.Context, do func(instance, context.Context) error) error {
	if s.owned == nil {
		return ErrNotOwned
	}
	return do(s.owned, ctx)
}

// Standby makes a streaming replica of the server, to be stopped by itself, and first. The server is
// restarted for it: its directory is copied while it is down, which needs no program but cp and is the
// same in every version. [IsMissing] tells the error where the server is not run from installed
// binaries.
func (s *Server) Standby(ctx context.Context) (*Server, error) {
	primary, ok := s.owned.(interface {
		standby(ctx context.Context) (*Server, error)
	})
	if !ok {
		return nil, &absentError{"postgres: a standby is made of a server from installed binaries only"}
	}
	return primary.standby(ctx)
}

// CreateDatabase creates a database with a name of its own, and returns its URL and a function that
// drops it together with whoever is still connected. Dropping is best effort, within 30 seconds:
// the server may be down by then.
func (s *Server) CreateDatabase(ctx context.Context) (url string, drop func(), err error) {
	name := "pgsession_" + randomHex()
	if url, err = WithDatabase(s.url, name); err != nil {
		return "", nil, err
	}
	// template0, since nobody can be connected to it, which would make the statement fail.
	if err := s.exec(ctx, "create database "+name+" template template0"); err != nil {
		return "", nil, fmt.Errorf("postgres: create a database: %w", err)
	}
	drop = func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_ = s.exec(ctx, "drop database if exists "+name+" with (force)")
	}
	return url, drop, nil
}

func (s *Server) exec(ctx context.Context, sql string) error {
	conn, err := pgconn.Connect(ctx, s.url)
	if err != nil {
		return err
	}
	defer hangUp(ctx, conn)
	_, err = conn.Exec(ctx, sql).ReadAll()
	return err
}
