package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// installDirectories are where packages put the binaries of one major version, whose number is in
// the name: Debian and Ubuntu, Red Hat, Homebrew on ARM and on Intel.
var installDirectories = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/opt/homebrew/opt/postgresql@*/bin",
	"/usr/local/opt/postgresql@*/bin",
}

// binaries is a directory with initdb and postgres, both of which the user who is to run them can
// run.
type binaries struct {
	dir     string
	version string // such as 15.18
}

func startInstalled(ctx context.Context, opts Options) (*Server, error) {
	bin, err := findBinaries(ctx)
	if err != nil {
		return nil, err
	}
	return startCluster(ctx, bin, opts)
}

// findBinaries returns the newest installed version, else the one on PATH, else an absentError.
func findBinaries(ctx context.Context) (binaries, error) {
	var found []string
	for _, pattern := range installDirectories {
		matches, _ := filepath.Glob(pattern) // fails for a malformed pattern only
		found = append(found, matches...)
	}
	slices.SortStableFunc(found, func(a, b string) int { return majorIn(b) - majorIn(a) })
	if path, err := exec.LookPath("postgres"); err == nil {
		// The binaries find their library and share directories from where they really are, and
		// initdb need not be linked to from PATH.
		if path, err = filepath.EvalSymlinks(path); err == nil {
			found = append(found, filepath.Dir(path))
		}
	}

	var unusable error
	for _, dir := range found {
		bin, err := checkBinaries(ctx, dir)
		if err == nil || ctx.Err() != nil {
			return bin, err
		}
		// A directory that a removed or client-only package left behind is no installation.
		if !errors.Is(err, fs.ErrNotExist) && unusable == nil {
			unusable = err
		}
	}
	if unusable != nil {
		return binaries{}, &absentError{"no PostgreSQL that can be run is installed: " + unusable.Error()}
	}
	return binaries{}, &absentError{"no PostgreSQL is installed"}
}

// checkBinaries makes sure that dir holds what it takes, by asking postgres for its version as the
// user who will run it.
func checkBinaries(ctx context.Context, dir string) (binaries, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return binaries{}, fmt.Errorf("postgres: %w", err)
	}
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return binaries{}, fmt.Errorf("postgres: not a directory of PostgreSQL binaries: %w", err)
		}
	}
	out, err := runUnprivileged(ctx, filepath.Join(dir, "postgres"), "--version")
	if err != nil {
		return binaries{}, err
	}
	// "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
	_, rest, _ := strings.Cut(out, ") ")
	version := strings.Fields(rest + " ?")[0]
	return binaries{dir: dir, version: version}, nil
}

func (b binaries) String() string {
	return fmt.Sprintf("PostgreSQL %s (%s)", b.version, b.dir)
}

var digits = regexp.MustCompile(`[0-9]+`)

// majorIn returns the version in the path of an installation, else 0.
func majorIn(path string) int {
	major, _ := strconv.Atoi(digits.FindString(path))
	return major
}
