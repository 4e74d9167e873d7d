package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/pgsession/pgsession/internal/pgtest"
)

// startInstances starts servers that share what their schemas share.
func startInstances(t *testing.T, schemas ...string) []*instance {
	t.Helper()
	var servers []*instance
	for i, schema := range schemas {
		s, err := newInstance(t.Context(), string(rune('A'+i)), pgtest.URL(t), schema, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.close(); err != nil {
				t.Error(err)
			}
		})
		if err := s.store.Setup(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.listen(t.Context()); err != nil {
			t.Fatal(err)
		}
		servers = append(servers, s)
	}
	for i, s := range servers {
		s.serve(servers[len(servers)-1-i])
	}
	return servers
}

func takeTour(t *testing.T, schema string, servers []*instance) (out string, err error) {
	t.Helper()
	var written strings.Builder
	tour := newTour(servers[0], servers[1], &database{schema: schema, pool: pgtest.Pool(t)})
	defer tour.close()
	err = tour.run(t.Context(), newReport(&written, false))
	return written.String(), err
}

// Two servers that were configured apart are what the tour is there to find.
func TestTourFailsWhereTheServersShareNoStore(t *testing.T) {
	t.Parallel()
	schemas := []string{pgtest.Schema(t), pgtest.Schema(t)}
	out, err := takeTour(t, schemas[0], startInstances(t, schemas...))
	if !errors.Is(err, errTourFailed) || exitStatus(err, false) == 0 {
		t.Errorf("error %v, want %v and an exit status that says so", err, errTourFailed)
	}
	for _, want := range []string{
		"✓  1  Looking costs nothing",
		"✗  2  Two servers count the visits of one session",
		"      visits counted by server B\n        expected  2\n        got       1\n",
		"The tour failed at step 2 of 16.",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the report lacks %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "A login replaces the session") {
		t.Errorf("it went on after a failure:\n%s", out)
	}
}

func TestTourSaysWhatCouldNotBeDone(t *testing.T) {
	t.Parallel()
	schema := pgtest.Schema(t)
	servers := startInstances(t, schema, schema)
	if err := servers[1].close(); err != nil {
		t.Fatal(err)
	}
	out, err := takeTour(t, schema, servers)
	if !errors.Is(err, errTourFailed) {
		t.Errorf("error %v, want %v", err, errTourFailed)
	}
	if !strings.Contains(out, "✗  1") || !strings.Contains(out, "connection refused") {
		t.Errorf("the report does not say that server B refuses connections:\n%s", out)
	}
}

func TestExitStatus(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name        string
		err         error
		interrupted bool
		want        int
	}{
		{"all went well", nil, false, 0},
		{"the page was served until Ctrl-C", nil, true, 0},
		{"the tour failed", errors.Join(errTourFailed, nil), false, 1},
		{"the tour was interrupted", context.Canceled, true, 130},
		{"something may be left behind", fmt.Errorf("%w: disk full", errTeardown), false, 1},
		{"something may be left behind after Ctrl-C", errors.Join(context.Canceled, errTeardown), true, 1},
	} {
		if got := exitStatus(test.err, test.interrupted); got != test.want {
			t.Errorf("%s: exit status %d, want %d", test.name, got, test.want)
		}
	}
}
