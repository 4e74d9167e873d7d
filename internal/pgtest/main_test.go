package pgtest_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// childVariable turns on the tests that only [TestMainStopsTheServerAndFindsLeaks] is to run.
const childVariable = "PGSESSION_TEST_CHILD"

// TestMainStopsTheServerAndFindsLeaks runs this test binary again, with a part of TestChild.
func TestMainStopsTheServerAndFindsLeaks(t *testing.T) {
	t.Parallel()
	owned := os.Getenv("PGSESSION_TEST_DATABASE_URL") == "" && os.Getenv("DATABASE_URL") == ""
	for name, want := range map[string]struct {
		code int
		says string
	}{
		"Passes": {0, "PASS"},
		"Leaks":  {1, "found unexpected goroutines"},
		"Fails":  {1, "as it should"},
		"Starts": {0, "PASS"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestChild$/^"+name+"$", "-test.v")
			cmd.Env = append(os.Environ(), childVariable+"=1")
			out, err := cmd.CombinedOutput()
			if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if code := cmd.ProcessState.ExitCode(); code != want.code || !strings.Contains(string(out), want.says) {
				t.Errorf("exit code %d, want %d and %q:\n%s", code, want.code, want.says, out)
			}
			if strings.Contains(string(out), "url=") != (name == "Starts") {
				t.Errorf("it said\n%s", out)
			}
			if _, url, ok := strings.Cut(string(out), "url="); ok && owned {
				url, _, _ = strings.Cut(url, "\n")
				if conn, err := pgx.Connect(t.Context(), url); err == nil {
					_ = conn.Close(t.Context())
					t.Error("the server still answers")
				}
			}
		})
	}
}

func TestChild(t *testing.T) {
	if os.Getenv(childVariable) == "" {
		return
	}
	t.Run("Passes", func(*testing.T) {})
	t.Run("Leaks", func(*testing.T) { go func() { select {} }() })
	t.Run("Fails", func(t *testing.T) { t.Error("as it should") })
	t.Run("Starts", func(t *testing.T) { fmt.Printf("url=%s\n", pgtest.URL(t)) })
}
