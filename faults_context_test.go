package pgsession_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
)

func TestAContextThatEndedBeforeSendsNothing(t *testing.T) {
	t.Parallel()
	everyStore(t, pgsession.Config{}, func(t *testing.T, w *way) {
		_, err := w.Set(t.Context(), "kept", pgsession.Session{})
		must(t, err)
		before := w.row(t, "kept")
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		late, cancel := context.WithDeadline(t.Context(), time.Now())
		defer cancel()
		for _, ctx := range []context.Context{cancelled, late} {
			for _, op := range operations {
				err := op.call(ctx, w.store, "kept")
				wantError(t, op.name, err, ctx.Err())
				wantFailure(t, "ended before", op.name, err, false)
			}
		}
		if after := w.row(t, "kept"); after != before {
			t.Errorf("%s was changed to %s", before, after)
		}
	})
}

func TestAContextThatEndsDuringAWriteIsToldAsSuch(t *testing.T) {
	t.Parallel()
	cfg := pgsession.Config{LockTimeout: -1, TouchInterval: time.Microsecond}
	everyPool(t, cfg, func(t *testing.T, w *way) {
		_, err := w.Set(t.Context(), "locked", pgsession.Session{})
		must(t, err)
		tx := begin(t, w.admin)
		_, err = w.store.WithQuery(tx.query).Set(t.Context(), "locked", pgsession.Session{Data: []byte("holder")})
		must(t, err)
		for _, op := range operations {
			if !op.token || !op.write {
				continue
			}
			for _, want := range []error{context.Canceled, context.DeadlineExceeded} {
				ctx := newEnding(t, want)
				answer := make(chan error)
				go func() { answer <- op.call(ctx, w.store, "locked") }()
				w.awaitWaiting(t, 1)
				ctx.end()
				err := <-answer
				wantError(t, op.name, err, want)
				// Where PostgreSQL itself has told that it cancelled the statement there is no doubt.
				var state interface{ SQLState() string }
				wantFailure(t, "ended during", op.name, err, !errors.As(err, &state))
				eventually(t, "the statement is over", func() bool { return w.running(t) == 0 })
			}
		}
		must(t, tx.rollback())
		if _, err := w.Set(t.Context(), "locked", pgsession.Session{}); err != nil {
			t.Errorf("the next call: %v", err)
		}
	})
}
