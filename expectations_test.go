package pgsession_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
)

// patience bounds every wait for what must happen, long enough for the slowest machine.
const patience = 2 * time.Minute

// eventually waits until a condition holds that must come true.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-poll.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// wantError fails the test unless err is each of targets.
func wantError(t *testing.T, what string, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Errorf("%s: the error is %v, want %v", what, err, target)
		}
	}
}

// wantSQLState fails the test unless err is PostgreSQL's error of that code.
func wantSQLState(t *testing.T, what string, err error, code string) {
	t.Helper()
	var e interface{ SQLState() string } // both drivers'
	if !errors.As(err, &e) || e.SQLState() != code {
		t.Errorf("%s: the error is %v, want SQLSTATE %s", what, err, code)
	}
}

// wantFailure fails the test unless err is a failure that says so: an Error of the operation, and not
// one of those that speak of the session. inDoubt says whether it must, or must not, be in doubt.
func wantFailure(t *testing.T, what, op string, err error, inDoubt bool) {
	t.Helper()
	var e *pgsession.Error
	if !errors.As(err, &e) || e.Op != op {
		t.Errorf("%s: %s failed with %v, want an Error of that operation", what, op, err)
	}
	for _, verdict := range []error{pgsession.ErrNotFound, pgsession.ErrRevoked, pgsession.ErrConflict, pgsession.ErrBusy} {
		if errors.Is(err, verdict) {
			t.Errorf("%s: %s takes it for %q: %v", what, op, verdict, err)
		}
	}
	if errors.Is(err, pgsession.ErrInDoubt) != inDoubt {
		t.Errorf("%s: %s: in doubt is %t, want %t: %v", what, op, !inDoubt, inDoubt, err)
	}
}

// must fails the test at once where err is not nil.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ending is a context that ends when the test says, and for the reason it says. A deadline that truly passes
// may do so before the server has the statement, which then meets the next call.
type ending struct {
	context.Context

	done chan struct{}
	why  error
}

func newEnding(t *testing.T, why error) *ending {
	t.Helper()
	return &ending{Context: t.Context(), done: make(chan struct{}), why: why}
}

func (c *ending) end() { close(c.done) }

func (c *ending) Done() <-chan struct{} { return c.done }

func (c *ending) Err() error {
	select {
	case <-c.done:
		return c.why
	default:
		return nil
	}
}
