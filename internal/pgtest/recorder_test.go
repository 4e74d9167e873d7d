package pgtest_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// recorder stands in for the test that a function of pgtest is called by, to see what it does to it.
type recorder struct {
	testing.TB
	name            string
	failed, skipped bool
	said            strings.Builder
	cleanups        []func()
}

// record calls f as a test of that name, with its cleanups.
func record(t *testing.T, name string, f func(tb testing.TB)) *recorder {
	t.Helper()
	r := &recorder{TB: t, name: name}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			for len(r.cleanups) > 0 {
				last := r.cleanups[len(r.cleanups)-1]
				r.cleanups = r.cleanups[:len(r.cleanups)-1]
				last()
			}
		}()
		f(r)
	}()
	<-done
	return r
}

func (r *recorder) Helper()          {}
func (r *recorder) Name() string     { return r.name }
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Failed() bool     { return r.failed }

func (r *recorder) Log(args ...any)                 { fmt.Fprintln(&r.said, args...) }
func (r *recorder) Logf(format string, args ...any) { fmt.Fprintf(&r.said, format+"\n", args...) }

func (r *recorder) Error(args ...any) {
	r.failed = true
	r.Log(args...)
}

func (r *recorder) Errorf(format string, args ...any) {
	r.failed = true
	r.Logf(format, args...)
}

func (r *recorder) Fatal(args ...any) {
	r.Error(args...)
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Skip(args ...any) {
	r.skipped = true
	r.Log(args...)
	runtime.Goexit()
}
