package pgsession_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
)

// holders lock a session in a transaction, in the ways in which that happens.
var holders = map[string]func(t *testing.T, tx *pgsession.Tx, w *way, query pgsession.QueryFunc, id pgsession.ID){
	"by a set": func(t *testing.T, tx *pgsession.Tx, _ *way, _ pgsession.QueryFunc, _ pgsession.ID) {
		_, err := tx.Set(t.Context(), "locked", pgsession.Session{Data: []byte("held")})
		must(t, err)
	},
	// Bulk operations lock rows, and no ids.
	"by a revocation": func(t *testing.T, tx *pgsession.Tx, _ *way, _ pgsession.QueryFunc, id pgsession.ID) {
		_, err := tx.Revoke(t.Context(), pgsession.Revocation{IDs: []pgsession.ID{id}})
		must(t, err)
	},
	"by an operator": func(t *testing.T, _ *pgsession.Tx, w *way, query pgsession.QueryFunc, id pgsession.ID) {
		rows, err := query(t.Context(), w.fill(`select from {table} where id = $1 for update`), string(id))
		must(t, err)
		rows.Close()
		must(t, rows.Err())
	},
}

func TestALockedSessionIsWaitedForOrSkippedOrBusy(t *testing.T) {
	t.Parallel()
	everyStore(t, pgsession.Config{}, func(t *testing.T, w *way) {
		const token = pgsession.Token("locked")
		// Should a call wait for ever, this tells it from a call that was busy.
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := w.Set(ctx, token, pgsession.Session{})
		must(t, err)
		before := w.row(t, token)
		stores := map[pgsession.LockMode]*pgsession.Store{}
		for mode := pgsession.LockWait; mode <= pgsession.LockFail; mode++ {
			stores[mode] = setUp(t, w.query, pgsession.Config{
				Schema: w.schema, Lock: mode, LockTimeout: 20 * time.Millisecond, TouchInterval: time.Microsecond,
			})
		}
		for name, hold := range holders {
			tx := begin(t, w.admin)
			hold(t, w.store.WithQuery(tx.query), w, tx.query, w.id(t, token))
			for mode, want := range map[pgsession.LockMode]error{
				pgsession.LockWait: pgsession.ErrBusy, pgsession.LockSkip: nil, pgsession.LockFail: pgsession.ErrBusy,
			} {
				_, err := stores[mode].Set(ctx, token, pgsession.Session{Data: []byte("late")})
				if !errors.Is(err, want) {
					t.Errorf("locked %s, set in mode %d: %v, want %v", name, mode, err, want)
				}
				if _, err = stores[mode].Touch(ctx, token); !errors.Is(err, want) {
					t.Errorf("locked %s, touch in mode %d: %v, want %v", name, mode, err, want)
				}
				// An update that was skipped would be a lost one.
				_, err = stores[mode].Update(ctx, token, func(s *pgsession.Session) error { s.Data = nil; return nil })
				wantError(t, "locked "+name+", update", err, pgsession.ErrBusy)
			}
			must(t, tx.rollback())
			if after := w.row(t, token); after != before {
				t.Fatalf("locked %s: %s was changed to %s", name, before, after)
			}
		}
		for mode, store := range stores {
			if _, err := store.Set(ctx, token, pgsession.Session{Subject: "set" + strconv.Itoa(int(mode))}); err != nil {
				t.Errorf("unlocked, set in mode %d: %v", mode, err)
			}
		}
	})
}

func TestASessionThatIsBeingCreatedIsLockedToo(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tx := begin(t, w.admin)
	_, err := w.store.WithQuery(tx.query).Set(ctx, "new", pgsession.Session{Data: []byte("first")})
	must(t, err)
	for mode, want := range map[pgsession.LockMode]error{
		pgsession.LockWait: pgsession.ErrBusy, pgsession.LockSkip: nil, pgsession.LockFail: pgsession.ErrBusy,
	} {
		store := setUp(t, w.query, pgsession.Config{Schema: w.schema, Lock: mode, LockTimeout: 20 * time.Millisecond})
		if _, err := store.Set(ctx, "new", pgsession.Session{}); !errors.Is(err, want) {
			t.Errorf("set in mode %d: %v, want %v", mode, err, want)
		}
		_, err := store.Destroy(ctx, "new")
		wantError(t, "destroy", err, pgsession.ErrBusy)
	}
	must(t, tx.commit())
	if got, err := w.Get(ctx, "new"); err != nil || string(got.Data) != "first" {
		t.Errorf("got %q, %v", got.Data, err)
	}
}

func TestDestroyOfALockedSessionIsBusy(t *testing.T) {
	t.Parallel()
	for name, hold := range holders {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := onPool(t, pgsession.Config{LockTimeout: 20 * time.Millisecond})
			ctx, cancel := context.WithTimeout(t.Context(), patience/3)
			defer cancel()
			_, err := w.Set(ctx, "locked", pgsession.Session{})
			must(t, err)
			other, _ := w.create(t, pgsession.Session{})
			tx := begin(t, w.admin)
			hold(t, w.store.WithQuery(tx.query), w, tx.query, w.id(t, "locked"))
			n, err := w.Destroy(ctx, other, "locked")
			wantError(t, "destroy", err, pgsession.ErrBusy)
			must(t, tx.rollback())
			if live, err := w.Count(t.Context(), pgsession.Filter{}); n != 0 || live != 2 || err != nil {
				t.Errorf("%d sessions destroyed, %d live, %v; want all or none", n, live, err)
			}
		})
	}
}

func TestAWriterWaitsForTheLockAndThenSeesWhatWasWritten(t *testing.T) {
	t.Parallel()
	for _, lockTimeout := range []time.Duration{-1, time.Hour} {
		w, other := onTwoPools(t, pgsession.Config{LockTimeout: lockTimeout, TouchInterval: time.Microsecond})
		token, loaded := w.create(t, pgsession.Session{})
		tx := begin(t, w.admin)
		_, err := w.store.WithQuery(tx.query).Set(t.Context(), token, pgsession.Session{Data: []byte("first")})
		must(t, err)
		var group sync.WaitGroup
		group.Go(func() {
			there, err := w.Set(t.Context(), token, loaded)
			if !errors.Is(err, pgsession.ErrConflict) || string(there.Data) != "first" {
				t.Errorf("the set that waited: %q, %v; want the conflict", there.Data, err)
			}
		})
		group.Go(func() {
			if _, err := other.Touch(t.Context(), token); err != nil {
				t.Errorf("the touch that waited: %v", err)
			}
		})
		w.awaitWaiting(t, 2)
		must(t, tx.commit())
		group.Wait()
	}
}
