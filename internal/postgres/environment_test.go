//go:build unix

package postgres_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgsession/pgsession/internal/postgres"
)

// The tests here set environment variables, so that none of them is parallel.

func TestTheEnvironmentNamesTheServer(t *testing.T) {
	actual := private(t, postgres.Options{})
	secret, err := postgres.WithUser(actual.URL(), "postgres", "hush-hush")
	if err != nil {
		t.Fatal(err)
	}
	nowhere := "postgres://u@127.0.0.1:1/x"
	cases := []struct{ name, testURL, url, source string }{
		{"the test's own comes first", secret, nowhere, "PGSESSION_TEST_DATABASE_URL (127.0.0.1:"},
		{"else the usual one", "", secret, "DATABASE_URL (127.0.0.1:"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("PGSESSION_TEST_DATABASE_URL", c.testURL)
			t.Setenv("DATABASE_URL", c.url)
			server, err := postgres.Start(t.Context(), postgres.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if server.URL() != secret {
				t.Errorf("URL() = %s", server.URL())
			}
			if !strings.HasPrefix(server.Source(), c.source) || strings.Contains(server.Source(), "hush") {
				t.Errorf("Source() = %s", server.Source())
			}
			connect(t, server.URL())

			for name, err := range map[string]error{
				"Restart":  server.Restart(t.Context()),
				"Shutdown": server.Shutdown(t.Context()),
				"Kill":     server.Kill(t.Context()),
				"Pause":    server.Pause(),
				"Resume":   server.Resume(),
			} {
				if !errors.Is(err, postgres.ErrNotOwned) {
					t.Errorf("%s: %v", name, err)
				}
			}
			url, drop, err := server.CreateDatabase(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			connect(t, url)
			drop()
			if err := server.Stop(); err != nil {
				t.Error(err)
			}
			connect(t, actual.URL()) // Stop is not for somebody else's server
		})
	}
}

func TestPrivateIgnoresTheURLInTheEnvironment(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://u@127.0.0.1:1/x")
	for name, opts := range map[string]postgres.Options{
		"Private":  {Private: true},
		"Settings": {Settings: map[string]string{"work_mem": "7MB"}},
	} {
		server, err := postgres.Start(t.Context(), opts)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if strings.Contains(server.Source(), "DATABASE_URL") {
			t.Errorf("%s: %s", name, server.Source())
		}
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	}
}

func TestAServerThatDoesNotAnswerIsAnErrorWithoutItsPassword(t *testing.T) {
	for name, url := range map[string]string{
		"nobody listens": "postgres://u:hush-hush@127.0.0.1:1/x",
		"not a URL":      "postgres://u:hush-hush@127.0.0.1:port/x",
	} {
		t.Setenv("PGSESSION_TEST_DATABASE_URL", url)
		_, err := postgres.Start(t.Context(), postgres.Options{})
		if err == nil || !strings.Contains(err.Error(), "PGSESSION_TEST_DATABASE_URL") ||
			strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheErrorWhereThereIsNoPostgresSaysWhatToDo(t *testing.T) {
	t.Setenv("PGSESSION_TEST_DATABASE_URL", "")
	t.Setenv("DATABASE_URL", "")
	t.Setenv("PGSESSION_TEST_PGBIN", "")
	t.Cleanup(postgres.HideDocker())
	t.Setenv("PATH", t.TempDir())
	t.Cleanup(postgres.SetInstallDirectories(t.TempDir() + "/*/bin"))
	_, err := postgres.Start(t.Context(), postgres.Options{})
	if !postgres.IsMissing(err) {
		t.Fatalf("Start: %v", err)
	}
	for _, want := range []string{
		"no Docker daemon answers: hidden; by a test\n",
		"no PostgreSQL is installed\n",
		"set DATABASE_URL to",
		"start Docker",
		"apt-get install -y --no-install-recommends postgresql",
		"set PGSESSION_TEST_PGBIN to",
		"scripts/embedded-postgres",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
}

func TestADirectoryNamedExplicitlyMustHoldTheBinaries(t *testing.T) {
	t.Setenv("DATABASE_URL", "")
	t.Setenv("PGSESSION_TEST_DATABASE_URL", "")
	empty := t.TempDir()
	t.Setenv("PGSESSION_TEST_PGBIN", empty)
	_, err := postgres.Start(t.Context(), postgres.Options{})
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), empty) {
		t.Errorf("Start: %v", err)
	}
}

func TestRootIsToldWhichDirectoryKeepsTheServersUserOut(t *testing.T) {
	if os.Geteuid() != 0 {
		return // nobody but root runs the server as another user
	}
	closed := filepath.Join(t.TempDir(), "closed") // t.TempDir has parents that are closed to others
	for _, name := range []string{"initdb", "postgres"} {
		if err := os.MkdirAll(closed, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(closed, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	_, err := postgres.Start(t.Context(), postgres.Options{Bin: closed})
	if err == nil || !strings.Contains(err.Error(), "keeps out") {
		t.Errorf("Start: %v", err)
	}
}

func TestATemporaryDirectoryThatTheServersUserCannotReachIsNotUsed(t *testing.T) {
	closed := t.TempDir()
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", closed)
	dir, _ := whereabouts(t, connect(t, private(t, postgres.Options{}).URL()))
	if inside := filepath.Dir(dir) == closed; inside == (os.Geteuid() == 0) {
		t.Errorf("the directory is %s", dir)
	}
}

func TestVariablesThatConfigurePostgresDoNotReachTheServer(t *testing.T) {
	t.Setenv("PGDATA", "/nowhere")
	t.Setenv("PGPORT", "1")
	t.Setenv("PGTZ", "Asia/Tokyo")
	t.Setenv("LC_ALL", "xx_XX.UTF-8")
	server := private(t, postgres.Options{})
	if got := query(t, connect(t, server.URL()), "show lc_messages"); got != "C" {
		t.Errorf("lc_messages = %s", got)
	}
}
