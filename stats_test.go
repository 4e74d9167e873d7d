package pgsession_test

import (
	"testing"
	"time"

	"github.com/pgsession/pgsession"
)

func TestStatsCountWhatWasDone(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	ctx := t.Context()
	token, session := w.create(t, pgsession.Session{Subject: "ada"})
	_, err := w.Set(ctx, token, session)
	must(t, err)
	_, err = w.Set(ctx, token, pgsession.Session{Version: 1})
	wantError(t, "set", err, pgsession.ErrConflict)
	_, err = w.Update(ctx, token, func(s *pgsession.Session) error { s.Data = []byte("1"); return nil })
	must(t, err)
	_, err = w.Get(ctx, token)
	must(t, err)
	_, err = w.Touch(ctx, token)
	must(t, err)
	_, err = w.Revoke(ctx, pgsession.Revocation{Subject: "ada"})
	must(t, err)
	_, err = w.Destroy(ctx, token)
	must(t, err)
	w.age(t, time.Hour)
	_, err = w.store.Prune(ctx)
	must(t, err)
	want := pgsession.Stats{
		Gets: 2, Creates: 1, Sets: 4, Unchanged: 1, Conflicts: 1, Touches: 1, Destroys: 1, Revokes: 1, Pruned: 1,
		Cleanup: pgsession.CleanupStats{Mode: pgsession.CleanupOff},
		Notify:  pgsession.NotifyStats{Published: 1},
	}
	if got := w.store.Stats(); got != want {
		t.Errorf("stats are %+v, want %+v", got, want)
	}
}
