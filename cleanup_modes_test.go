package pgsession_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

func TestTheStatusTellsOfEveryPruneWhoeverRanIt(t *testing.T) {
	t.Parallel()
	everyPool(t, pgsession.Config{}, func(t *testing.T, w *way) {
		status := func() pgsession.CleanupStatus {
			t.Helper()
			s, err := w.store.CleanupStatus(t.Context())
			must(t, err)
			if got := w.store.Stats().Cleanup.CleanupStatus; got != s {
				t.Errorf("the stats say %+v, the status %+v", got, s)
			}
			return s
		}
		if s := status(); !s.LastRun.IsZero() || s.Pruned != 0 || s.Due != 0 || s.Lag != 0 || s.At.IsZero() {
			t.Errorf("in the beginning it is %+v", s)
		}
		w.expire(t, 100, "s")
		w.seed(t, 1, "alive", "", 1)
		// Used since: not due, although its prune_after has passed.
		w.exec(t, `update {table} as t set prune_after = now() - interval '3 hours' where t.expires_at > now()`)
		if s := status(); s.Due != 100 || s.Lag < 100*time.Second || s.Lag > time.Hour {
			t.Errorf("before it is %+v", s)
		}
		_, err := w.store.Prune(t.Context())
		must(t, err)
		s := status()
		if s.Due != 0 || s.Lag != 0 || s.LastPruned != 100 || s.Pruned != 100 || s.LastRun.IsZero() || !s.JobRun.IsZero() {
			t.Errorf("after it is %+v", s)
		}
		w.expire(t, 25, "t")
		w.exec(t, `call {schema}.session_prune_all(10)`)
		if after := status(); after.LastPruned != 25 || after.Pruned != 125 || !after.LastRun.After(s.LastRun) || after.JobRun.IsZero() {
			t.Errorf("after the procedure it is %+v", after)
		}
		// The row is written in its place, and its room is used again.
		w.exec(t, `delete from {schema}.session_cleanup`)
		w.exec(t, `select {schema}.session_prune()`)
		if after := status(); after.LastRun.IsZero() {
			t.Errorf("after the loss of the row it is %+v", after)
		}
	})
}

func TestOneWriteInSoManyPrunesABatch(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	store := storeOf(t, w.query, pgsession.Config{
		Schema: w.schema, Cleanup: pgsession.Cleanup{Mode: pgsession.CleanupOpportunistic, OneIn: 1, BatchSize: 40},
	})
	must(t, store.Setup(t.Context()))
	w.expire(t, 100, "s")
	_, err := store.Get(t.Context(), "none")
	wantError(t, "a read", err, pgsession.ErrNotFound)
	token, _, err := store.Create(t.Context(), pgsession.Session{Data: []byte("1")})
	must(t, err)
	eventually(t, "a batch is pruned", func() bool { return store.Stats().Prunes == 1 })
	if n := w.rows(t); n != 61 {
		t.Errorf("%d rows are left, want 60 and a session", n)
	}
	// A batch counts as it is, though others are to come.
	if s, err := store.CleanupStatus(t.Context()); err != nil || s.Pruned != 40 || s.LastPruned != 40 || s.LastRun.IsZero() {
		t.Errorf("the status is %+v, %v", s, err)
	}
	// A transaction of the caller's is not slowed down by it.
	tx := w.begin(t)
	for range 5 {
		_, err = store.WithQuery(tx.query).Set(t.Context(), token, pgsession.Session{Data: []byte("inside")})
		must(t, err)
	}
	must(t, tx.commit())
	if s := store.Stats(); s.Prunes != 1 || s.Pruned != 40 {
		t.Errorf("inside a transaction: %+v", s)
	}
	eventually(t, "all are pruned", func() bool {
		_, err = store.Set(t.Context(), token, pgsession.Session{Data: []byte("x")})
		must(t, err)
		return w.rows(t) == 1
	})
	_, err = store.CleanupStatus(t.Context())
	must(t, err)
	must(t, store.Close())
	if s := store.Stats(); s.PrunesFailed != 0 || s.Cleanup.Mode != pgsession.CleanupOpportunistic || s.Cleanup.LastRun.IsZero() {
		t.Errorf("%+v", s)
	}
}

func TestOneWriteInAThousandDoesNotPruneAfterEach(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	store := storeOf(t, w.query, pgsession.Config{
		Schema: w.schema, Cleanup: pgsession.Cleanup{Mode: pgsession.CleanupOpportunistic, OneIn: 1_000_000_000},
	})
	must(t, store.Setup(t.Context()))
	for range 20 {
		_, _, err := store.Create(t.Context(), pgsession.Session{Data: []byte("1")})
		must(t, err)
	}
	must(t, store.Close())
	if s := store.Stats(); s.Prunes+s.PrunesFailed+s.PrunesLeft != 0 {
		t.Errorf("%+v", s)
	}
}

// with are the records with a text in their message.
func (l *logs) with(text string) (records []slog.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.records {
		if strings.Contains(r.Message, text) {
			records = append(records, r)
		}
	}
	return records
}

func TestAutoWithoutPgCronIsTheTickerAndSaysWhy(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	log := &logs{}
	store := storeOf(t, w.query, pgsession.Config{
		Schema: w.schema, Cleanup: pgsession.Cleanup{Interval: time.Millisecond}, Logger: slog.New(log),
	})
	must(t, store.Setup(t.Context()))
	must(t, store.Setup(t.Context()))
	w.expire(t, 3, "s")
	eventually(t, "the expired are pruned", func() bool { return w.rows(t) == 0 })
	log.says(t, "who prunes", "ticker", "pg_cron is not installed in this database")
	if n := len(log.with("who prunes")); n != 1 {
		t.Errorf("it was said %d times", n)
	}
	if s := store.Stats().Cleanup; s.Mode != pgsession.CleanupTicker || s.Reason == "" {
		t.Errorf("%+v", s)
	}
	strict := storeOf(t, pgtest.Pool(t).Query, pgsession.Config{
		Schema: w.schema, Cleanup: pgsession.Cleanup{Mode: pgsession.CleanupPgCron},
	})
	err := strict.Setup(t.Context())
	wantText(t, err, "pg_cron is not installed in this database")
}
