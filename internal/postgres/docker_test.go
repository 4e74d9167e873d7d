//go:build unix

package postgres_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession/internal/postgres"
)

// TestDocker runs a server in a container where a Docker daemon answers. Where none does, that is
// what is to be found out, and fast. It hides what is installed, and so is not parallel.
func TestDocker(t *testing.T) {
	t.Setenv("PGSESSION_TEST_DATABASE_URL", "")
	t.Setenv("DATABASE_URL", "")
	t.Setenv("PGSESSION_TEST_PGBIN", "")
	t.Setenv("PATH", t.TempDir())
	t.Cleanup(postgres.SetInstallDirectories(t.TempDir() + "/*/bin"))

	started := time.Now()
	server, err := postgres.Start(t.Context(), postgres.Options{
		Settings: map[string]string{"work_mem": "7MB"},
	})
	if postgres.IsMissing(err) {
		if took := time.Since(started); took > 6*time.Second {
			t.Errorf("it took %s to find out that there is no Docker", took)
		}
		if !strings.Contains(err.Error(), "Docker") {
			t.Error(err)
		}
		t.Logf("no container was to be had: %v", err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	t.Cleanup(func() {
		if !stopped {
			_ = server.Stop()
		}
	})
	t.Logf("%s after %s", server.Source(), time.Since(started))
	image := os.Getenv("PGSESSION_TEST_IMAGE")
	if image == "" {
		image = postgres.DefaultImage
	}
	if server.Source() != "docker "+image {
		t.Errorf("Source() = %s", server.Source())
	}
	if got := query(t, connect(t, server.URL()), "show work_mem"); got != "7MB" {
		t.Errorf("work_mem = %s", got)
	}

	t.Run("comes back", func(t *testing.T) { comesBack(t, server) })
	t.Run("pauses", func(t *testing.T) { pauses(t, server) })
	t.Run("has databases", func(t *testing.T) { hasDatabases(t, server) })

	stopped = true
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := pgx.Connect(ctx, server.URL()); err == nil {
		t.Error("the server still answers")
	}
	if err := server.Resume(); err == nil || errors.Is(err, postgres.ErrNotOwned) {
		t.Errorf("resuming what was removed: %v", err)
	}
}

func TestAnImageAskedForByNameMustRun(t *testing.T) {
	t.Setenv("PGSESSION_TEST_DATABASE_URL", "")
	t.Setenv("DATABASE_URL", "")
	t.Setenv("PGSESSION_TEST_PGBIN", "")
	t.Setenv("PGSESSION_TEST_IMAGE", "127.0.0.1:1/no/such:image")
	server, err := postgres.Start(t.Context(), postgres.Options{})
	switch {
	case err == nil: // there is no Docker, which the installed binaries stand in for
		if strings.HasPrefix(server.Source(), "docker") {
			t.Errorf("Source() = %s", server.Source())
		}
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	case !strings.Contains(err.Error(), "no/such:image"):
		t.Errorf("Start: %v", err)
	}
}
