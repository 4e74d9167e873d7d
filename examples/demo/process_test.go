package main_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession/internal/pgtest"
)

// steps are the titles of the tour's steps, as its audience reads them.
var steps = []string{
	"Looking costs nothing",
	"Two servers count the visits of one session",
	"A login replaces the session",
	"The token from before the login is dead",
	"A second device",
	"My sessions",
	"Another site cannot act for ada",
	"Bob cannot end ada's session",
	"The phone begins a slow request",
	"Ada logs the phone out, from the laptop",
	"The phone's late save stays dead",
	"A read costs nanoseconds",
	"What one server changes the other shows",
	"The listeners are killed, and nothing stale is served",
	"A session that is not used expires",
	"Prune deletes what is dead",
}

// TestProgram runs the demo as its users do: as a process.
func TestProgram(t *testing.T) {
	t.Parallel()
	program := build(t)

	t.Run("once it takes the tour, with whatever server there is, and exits with 0", func(t *testing.T) {
		t.Parallel()
		out, errs, status := run(t, program, environment(), "-once", "-schema", pgtest.Schema(t))
		wantStatus(t, 0, status, out, errs)
		wantSteps(t, out)
		if strings.Contains(out, "\x1b") {
			t.Errorf("escape codes in a pipe:\n%s", out)
		}
	})

	t.Run("where standard input is no terminal it exits after the tour, and drops its schema only", func(t *testing.T) {
		t.Parallel()
		url := pgtest.Database(t)
		execute(t, url, "create schema neighbour", "create table neighbour.t as select 1 as n")
		out, errs, status := run(t, program, environment("DATABASE_URL="+url))
		wantStatus(t, 0, status, out, errs)
		wantSteps(t, out)
		if !strings.Contains(out, "Dropped the schema pgsession_demo from DATABASE_URL") {
			t.Errorf("it does not say what it dropped:\n%s", out)
		}
		wantSchemas(t, url, "neighbour", "public")
		execute(t, url, "select n from neighbour.t")
	})

	t.Run("a schema that is there already is left alone", func(t *testing.T) {
		t.Parallel()
		url := pgtest.Database(t)
		execute(t, url, "create schema pgsession_demo", "create table pgsession_demo.session (precious int)")
		out, errs, status := run(t, program, environment("DATABASE_URL="+url), "-once")
		wantStatus(t, 1, status, out, errs)
		if !strings.Contains(errs, "the schema pgsession_demo is there already") {
			t.Errorf("it does not say why:\n%s", errs)
		}
		execute(t, url, "select precious from pgsession_demo.session")
	})

	t.Run("a server that does not answer is an error that says which", func(t *testing.T) {
		t.Parallel()
		// Port 1 is tcpmux's, where nobody has listened for decades.
		env := environment("DATABASE_URL=postgres://demo:hidden@127.0.0.1:1/nowhere")
		out, errs, status := run(t, program, env, "-once")
		wantStatus(t, 1, status, out, errs)
		if !strings.Contains(errs, "DATABASE_URL") || strings.Contains(errs, "hidden") {
			t.Errorf("it should name the variable, and not the password:\n%s", errs)
		}
	})

	t.Run("a flag that it does not know is refused", func(t *testing.T) {
		t.Parallel()
		out, errs, status := run(t, program, environment(), "-twice")
		wantStatus(t, 2, status, out, errs)
	})

	for _, at := range []string{"pgsession:", "The tour", steps[1], steps[8], steps[10]} {
		t.Run("an interrupt after the line "+at+" tears everything down", func(t *testing.T) {
			t.Parallel()
			url := pgtest.Database(t)
			out, status := interrupt(t, program, environment("DATABASE_URL="+url), at)
			wantStatus(t, 130, status, out, "")
			if !strings.Contains(out, "Interrupted.") {
				t.Errorf("it does not say that it was interrupted:\n%s", out)
			}
			wantSchemas(t, url, "public")
		})
	}
}

// build compiles the program, as go run does.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "demo")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// environment is this process's with what is set here. A server that it names is the program's to
// use, unless another is named here.
func environment(set ...string) []string {
	env := os.Environ()
	if len(set) > 0 {
		env = append(env, "PGSESSION_TEST_DATABASE_URL=")
	}
	return append(env, set...)
}

// command is the program with nothing to read, which ends with the test at the latest.
func command(t *testing.T, program string, env []string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = env
	return cmd // no Stdin: the null device
}

func run(t *testing.T, program string, env []string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := command(t, program, env, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	status = exitStatus(t, cmd.Run())
	return out.String(), errs.String(), status
}

// interrupt runs the program and presses Ctrl-C, so to speak, when it has written a line that
// contains the text.
func interrupt(t *testing.T, program string, env []string, text string) (stdout string, status int) {
	t.Helper()
	cmd := command(t, program, env, "-once")
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	sent := false
	for lines := bufio.NewScanner(pipe); lines.Scan(); {
		out.WriteString(lines.Text() + "\n")
		if !sent && strings.Contains(lines.Text(), text) {
			sent = true
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Error(err)
			}
		}
	}
	return out.String(), exitStatus(t, cmd.Wait())
}

func exitStatus(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0
}

func wantStatus(t *testing.T, want, got int, out, errs string) {
	t.Helper()
	if got != want {
		t.Fatalf("exit status %d, want %d\n%s\n%s", got, want, out, errs)
	}
}

// wantSteps makes sure that every step is there, in its order, with how long it took, and succeeded.
func wantSteps(t *testing.T, out string) {
	t.Helper()
	rest := out
	for i, title := range steps {
		line := regexp.MustCompile(fmt.Sprintf(`(?m)^✓ %2d  %s +[0-9.]+ m?s$`, i+1, regexp.QuoteMeta(title)))
		at := line.FindStringIndex(rest)
		if at == nil {
			t.Fatalf("step %d, %q, is not where it should be:\n%s", i+1, title, out)
		}
		rest = rest[at[1]:]
	}
	if want := fmt.Sprintf("All %d steps showed what they should", len(steps)); !strings.Contains(rest, want) {
		t.Errorf("no line %q:\n%s", want, out)
	}
}

// wantSchemas makes sure that a database has these schemas and no others.
func wantSchemas(t *testing.T, url string, want ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	rows, err := conn.Query(t.Context(), `
		select nspname from pg_catalog.pg_namespace
		 where nspname not like 'pg\_%' and nspname <> 'information_schema' order by nspname`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("schemas %q, want %q", got, want)
	}
}

func execute(t *testing.T, url string, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, statement := range statements {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}
