//go:build unix

package postgres_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		child()
	}
	goleak.VerifyTestMain(m)
}

// private starts a server from installed binaries, to be stopped when the test ends. The tests look
// into its processes and files, which those of a container are not.
func private(t *testing.T, opts postgres.Options) *postgres.Server {
	t.Helper()
	opts.Private = true
	server, err := postgres.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	if strings.HasPrefix(server.Source(), "docker ") {
		pgtest.Skip(t, "no PostgreSQL is installed, but for "+server.Source())
	}
	return server
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx) // the server may be gone
	})
	return conn
}

func query(t *testing.T, conn *pgx.Conn, sql string, args ...any) string {
	t.Helper()
	var value string
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

// eventually polls until a condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute it is not so that %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// alive says whether a process exists.
func alive(pid int) bool {
	return syscall.Kill(pid, 0) == nil || errors.Is(syscall.Kill(pid, 0), syscall.EPERM)
}

// whereabouts returns a server's directory and the process id of its postmaster.
func whereabouts(t *testing.T, conn *pgx.Conn) (dir string, pid int) {
	t.Helper()
	data := query(t, conn, "show data_directory")
	content, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(content), "\n")
	if pid, err = strconv.Atoi(first); err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(data), pid
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestStopLeavesNoProcessAndNoDirectory(t *testing.T) {
	t.Parallel()
	server := private(t, postgres.Options{})
	conn := connect(t, server.URL())
	dir, pid := whereabouts(t, conn)
	if !alive(pid) || !exists(dir) {
		t.Fatalf("postmaster %d alive: %t, directory %s there: %t", pid, alive(pid), dir, exists(dir))
	}
	backend, err := strconv.Atoi(query(t, conn, "select pg_backend_pid()::text"))
	if err != nil {
		t.Fatal(err)
	}

	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	if alive(pid) || alive(backend) {
		t.Errorf("postmaster alive: %t, backend alive: %t", alive(pid), alive(backend))
	}
	if exists(dir) {
		t.Errorf("%s is still there", dir)
	}
	if err := server.Stop(); err != nil {
		t.Errorf("the second Stop: %v", err)
	}
}

func TestASourceNamesTheVersionAndTheBinaries(t *testing.T) {
	t.Parallel()
	server := private(t, postgres.Options{})
	version := query(t, connect(t, server.URL()), "show server_version")
	version, _, _ = strings.Cut(version, " ")
	want := "private PostgreSQL " + version + " ("
	if !strings.HasPrefix(server.Source(), want) || !strings.HasSuffix(server.Source(), "bin)") {
		t.Errorf("Source() = %q, want %q…bin)", server.Source(), want)
	}
}

func TestOptionsReachTheServer(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	server := private(t, postgres.Options{
		Fsync:    true,
		Settings: map[string]string{"shared_preload_libraries": "auto_explain", "work_mem": "7MB"},
		Log:      &log,
	})
	conn := connect(t, server.URL())
	for name, want := range map[string]string{
		"fsync":                    "on",
		"full_page_writes":         "on",
		"shared_preload_libraries": "auto_explain",
		"work_mem":                 "7MB",
		"server_encoding":          "UTF8",
		"listen_addresses":         "127.0.0.1",
	} {
		if got := query(t, conn, "select current_setting($1)", name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "database system is ready") {
		t.Errorf("the log is %q", log.String())
	}
}

func TestFsyncIsOffUnlessAskedFor(t *testing.T) {
	t.Parallel()
	conn := connect(t, private(t, postgres.Options{}).URL())
	if got := query(t, conn, "show fsync"); got != "off" {
		t.Errorf("fsync = %q", got)
	}
}

func TestTheServerComesBack(t *testing.T) {
	t.Parallel()
	server := private(t, postgres.Options{})
	dir, before := whereabouts(t, connect(t, server.URL()))
	comesBack(t, server)
	again, after := whereabouts(t, connect(t, server.URL()))
	if alive(before) || !alive(after) || again != dir {
		t.Errorf("postmaster %d in %s became %d in %s", before, dir, after, again)
	}
}

// comesBack ends a server in every way, with a client connected, and restarts it.
func comesBack(t *testing.T, server *postgres.Server) {
	t.Helper()
	url := server.URL()
	create := "create table kept (value int)"
	if _, err := connect(t, url).Exec(t.Context(), create); err != nil {
		t.Fatal(err)
	}
	ways := []struct {
		name string
		end  func(context.Context) error
	}{
		{"restart", server.Restart},
		{"shutdown", server.Shutdown},
		{"kill", server.Kill},
		{"pause and shutdown", func(ctx context.Context) error {
			return errors.Join(server.Pause(), server.Shutdown(ctx))
		}},
		{"pause and kill", func(ctx context.Context) error {
			return errors.Join(server.Pause(), server.Kill(ctx))
		}},
	}
	for rows, way := range ways {
		conn := connect(t, url)
		if _, err := conn.Exec(t.Context(), "insert into kept values (1)"); err != nil {
			t.Fatal(err)
		}
		if err := way.end(t.Context()); err != nil {
			t.Fatalf("%s: %v", way.name, err)
		}
		if err := conn.Ping(t.Context()); err == nil {
			t.Errorf("%s: the connection lives on", way.name)
		}
		if way.name != "restart" {
			if _, err := pgx.Connect(t.Context(), url); err == nil {
				t.Errorf("%s: the server still answers", way.name)
			}
			if err := server.Restart(t.Context()); err != nil {
				t.Fatalf("%s: %v", way.name, err)
			}
		}
		if server.URL() != url {
			t.Errorf("%s: the URL changed from %s to %s", way.name, url, server.URL())
		}
		conn = connect(t, url)
		want := strconv.Itoa(rows + 1)
		if got := query(t, conn, "select count(*)::text from kept"); got != want {
			t.Errorf("%s: %s rows were kept, want %s", way.name, got, want)
		}
	}
}

func TestKillDoesNotWaitForABusyBackend(t *testing.T) {
	t.Parallel()
	server := private(t, postgres.Options{})
	busy, watching := connect(t, server.URL()), connect(t, server.URL())
	pid := busy.PgConn().PID()
	done := make(chan error, 1)
	go func() {
		// A loop that waits for nothing does not notice that its postmaster is gone.
		_, err := busy.Exec(context.WithoutCancel(t.Context()),
			"do 'begin loop perform 1; end loop; end'")
		done <- err
	}()
	eventually(t, "the backend is busy", func() bool {
		return query(t, watching, "select count(*)::text from pg_stat_activity "+
			"where pid = $1 and state = 'active'", int64(pid)) == "1"
	})
	if err := server.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("the loop ended in good order")
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAPausedServerIsSilentUntilItIsResumed(t *testing.T) {
	t.Parallel()
	pauses(t, private(t, postgres.Options{}))
}

func pauses(t *testing.T, server *postgres.Server) {
	t.Helper()
	conn := connect(t, server.URL())
	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() { answer <- conn.Ping(context.WithoutCancel(t.Context())) }()
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if other, err := pgx.Connect(short, server.URL()); err == nil {
		_ = other.Close(t.Context())
		t.Error("a new connection was served")
	} else if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a new connection failed by %v, not by its deadline", err)
	}
	select {
	case err := <-answer:
		t.Fatalf("the open connection answered: %v", err)
	default:
	}

	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err != nil {
		t.Errorf("the open connection: %v", err)
	}
	connect(t, server.URL())
	if err := server.Resume(); err != nil {
		t.Errorf("resuming what is not paused: %v", err)
	}
}

func TestAStoppedServerCannotBePaused(t *testing.T) {
	t.Parallel()
	server := private(t, postgres.Options{})
	if err := server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func() error{"Pause": server.Pause, "Resume": server.Resume} {
		if err := do(); err == nil || !strings.Contains(err.Error(), "not running") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestADatabaseIsDroppedThoughAClientIsConnected(t *testing.T) {
	t.Parallel()
	hasDatabases(t, private(t, postgres.Options{}))
}

func hasDatabases(t *testing.T, server *postgres.Server) {
	t.Helper()
	url, drop, err := server.CreateDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn := connect(t, url)
	name := query(t, conn, "select current_database()")
	if name == "postgres" {
		t.Fatal("the URL is that of the server's own database")
	}
	drop()
	if err := conn.Ping(t.Context()); err == nil {
		t.Error("the client is still connected")
	}
	count := query(t, connect(t, server.URL()),
		"select count(*)::text from pg_database where datname = $1", name)
	if count != "0" {
		t.Errorf("database %s is still there", name)
	}
}

func TestManyServersAtOnceEachHaveTheirOwn(t *testing.T) {
	t.Parallel()
	dirs := make(map[string]bool)
	for range 3 {
		dir, _ := whereabouts(t, connect(t, private(t, postgres.Options{}).URL()))
		dirs[dir] = true
	}
	if len(dirs) != 3 {
		t.Errorf("the directories are %v", dirs)
	}
}

func TestStartObeysItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	server, err := postgres.Start(ctx, postgres.Options{Private: true})
	if err == nil {
		_ = server.Stop()
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Start: %v", err)
	}
}

func TestASettingThatTheServerRefusesIsReportedWithItsLog(t *testing.T) {
	t.Parallel()
	_, err := postgres.Start(t.Context(), postgres.Options{
		Settings: map[string]string{"shared_preload_libraries": "no_such_library"},
	})
	if err == nil || !strings.Contains(err.Error(), `could not access file "no_such_library"`) {
		t.Errorf("Start: %v", err)
	}
}
