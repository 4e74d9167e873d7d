package pgsession_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// tick makes a store that prunes by itself, all the time, and sets it up.
func (w *way) tick(t *testing.T, query pgsession.QueryFunc, cfg pgsession.Config) *pgsession.Store {
	t.Helper()
	cfg.Schema, cfg.Cleanup.Interval = w.schema, time.Millisecond
	if cfg.Cleanup.Mode == pgsession.CleanupAuto {
		cfg.Cleanup.Mode = pgsession.CleanupTicker
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	store, err := pgsession.New(query, cfg)
	must(t, err)
	t.Cleanup(func() { _ = store.Close() })
	must(t, store.Setup(t.Context()))
	must(t, store.Setup(t.Context())) // which starts no second ticker
	return store
}

func TestTheTickerPrunesAgainAndAgainAndSurvivesFailures(t *testing.T) {
	t.Parallel()
	everyPool(t, pgsession.Config{}, func(t *testing.T, w *way) {
		store := w.tick(t, w.query, pgsession.Config{})
		for round := range 3 {
			w.expire(t, 10, fmt.Sprint("round", round, "-"))
			eventually(t, "the expired are pruned", func() bool { return w.rows(t) == 0 })
		}
		w.exec(t, `alter function {schema}.session_prune rename to broken`)
		eventually(t, "cycles fail", func() bool { return store.Stats().PrunesFailed > 0 })
		w.expire(t, 10, "later")
		failed := store.Stats().PrunesFailed
		eventually(t, "more of them fail", func() bool { return store.Stats().PrunesFailed > failed+2 })
		if n := w.rows(t); n != 10 {
			t.Errorf("%d rows are left, want 10", n)
		}
		w.exec(t, `alter function {schema}.broken rename to session_prune`)
		eventually(t, "the expired are pruned", func() bool { return w.rows(t) == 0 })
		eventually(t, "all is counted", func() bool { s := store.Stats(); return s.Pruned == 40 && !s.LastPrune.IsZero() })
	})
}

func TestOfEightInstancesOnePrunesAtATime(t *testing.T) {
	t.Parallel()
	const instances, waves, wave = 8, 30, 40
	w := onPool(t, pgsession.Config{})
	for _, statement := range []string{
		`create table {schema}.overlaps (at timestamptz)`,
		// Held through the transaction: who does not get it prunes at the same time as another one.
		`create function {schema}.alone() returns trigger language plpgsql as $$
		 begin
		     if not pg_try_advisory_xact_lock(hashtextextended(tg_table_schema, 4711)) then
		         insert into {schema}.overlaps values (now());
		     end if;
		     return old;
		 end $$`,
		`create trigger alone before delete on {table} for each row execute function {schema}.alone()`,
	} {
		w.exec(t, statement)
	}
	holder := begin(t, w.admin)
	(&way{see: holder.query, schema: w.schema}).prune(t) // takes the lock
	w.expire(t, wave, "held")
	var stores []*pgsession.Store
	for range instances {
		stores = append(stores, w.tick(t, pgtest.Pool(t).Query, pgsession.Config{Cleanup: pgsession.Cleanup{BatchSize: 7}}))
	}
	for i, store := range stores {
		eventually(t, "each leaves the work to the other", func() bool { return store.Stats().PrunesLeft > 1 })
		if s := store.Stats(); s.Prunes != 0 || s.Pruned != 0 || s.PrunesFailed != 0 {
			t.Errorf("instance %d: %+v while another one prunes", i, s)
		}
	}
	must(t, holder.commit())
	for i := range waves {
		w.expire(t, wave, fmt.Sprint("wave", i, "-"))
	}
	pruned := func() (n int64) {
		for _, store := range stores {
			n += store.Stats().Pruned
		}
		return n
	}
	// Counted, too: an answer may be on its way when the rows are gone.
	eventually(t, "all is pruned", func() bool { return w.rows(t) == 0 && pruned() >= (waves+1)*wave })
	for _, store := range stores {
		must(t, store.Close())
	}
	var overlaps int
	w.scan(t, &overlaps, `select count(*) from {schema}.overlaps`)
	if n := pruned(); overlaps != 0 || n != (waves+1)*wave {
		t.Errorf("%d rows pruned, %d overlaps; want %d and none", n, overlaps, (waves+1)*wave)
	}
}

// replay is a database that answers Setup as a real one did, and prune by a function, without a
// connection, so that it can be used where time is synctest's.
type replay struct {
	answers map[string][][]any // to a statement: its rows
	prune   func() error
}

func record(t *testing.T) *replay {
	t.Helper()
	w := onPool(t, pgsession.Config{})
	r := &replay{answers: map[string][][]any{}}
	setUp(t, func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
		rows, err := w.query(ctx, sql, args...)
		r.answers[sql] = nil
		return &recordedRows{Rows: rows, row: func(values []any) { r.answers[sql] = append(r.answers[sql], values) }}, err
	}, pgsession.Config{Schema: w.schema})
	delete(r.answers, "")
	r.answers["schema"] = [][]any{{w.schema}}
	return r
}

type recordedRows struct {
	pgx.Rows
	row func(values []any)
}

func (r *recordedRows) Scan(dest ...any) error {
	err := r.Rows.Scan(dest...)
	var values []any
	for _, d := range dest {
		values = append(values, reflect.ValueOf(d).Elem().Interface())
	}
	r.row(values)
	return err
}

func (r *replay) query(_ context.Context, sql string, _ ...any) (pgx.Rows, error) {
	if rows, ok := r.answers[sql]; ok {
		return &replayedRows{rows: rows}, nil
	}
	if !strings.Contains(sql, `"session_prune"(`) {
		return &replayedRows{rows: [][]any{nil}}, nil
	}
	return &replayedRows{rows: [][]any{nil}}, r.prune()
}

type replayedRows struct {
	pgx.Rows
	rows [][]any
	row  []any
}

func (r *replayedRows) Next() bool {
	if len(r.rows) == 0 {
		return false
	}
	r.row, r.rows = r.rows[0], r.rows[1:]
	return true
}

func (r *replayedRows) Scan(dest ...any) error {
	for i, value := range r.row {
		reflect.ValueOf(dest[i]).Elem().Set(reflect.ValueOf(value))
	}
	return nil
}

func (r *replayedRows) Close()     {}
func (r *replayedRows) Err() error { return nil }

func TestTheTickerKeepsItsIntervalGiveOrTakeATenth(t *testing.T) {
	t.Parallel()
	const stores, cycles = 20, 60
	database := record(t)
	for name, test := range map[string]struct {
		interval, want time.Duration
		err            error
		failures       bool
		gap            time.Duration // 0: want
	}{
		"default":           {0, time.Minute, nil, false, 0},
		"given":             {time.Hour, time.Hour, nil, false, 0},
		"every cycle fails": {time.Second, time.Second, &pgconn.PgError{Code: "57P03"}, true, 0},
		"not permitted":     {time.Second, time.Second, &pgconn.PgError{Code: "42501"}, true, 10 * time.Second},
		"not, and rarely":   {10 * time.Minute, 10 * time.Minute, &pgconn.PgError{Code: "42501"}, true, time.Hour},
		"not, more rarely":  {2 * time.Hour, 2 * time.Hour, &pgconn.PgError{Code: "42501"}, true, 2 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				firsts := map[time.Duration]bool{}
				for range stores {
					var at []time.Duration
					start := time.Now()
					database.prune = func() error { at = append(at, time.Since(start)); return test.err }
					store, err := pgsession.New(database.query, pgsession.Config{
						Schema: database.answers["schema"][0][0].(string), Logger: slog.New(slog.DiscardHandler),
						Cleanup: pgsession.Cleanup{Interval: test.interval},
					})
					must(t, err)
					must(t, store.Setup(t.Context()))
					time.Sleep(cycles * test.want) // of synctest's time
					must(t, store.Close())
					closed := len(at)
					time.Sleep(time.Hour)
					if len(at) != closed {
						t.Errorf("%d cycles after Close", len(at)-closed)
					}
					firsts[at[0]] = true
					if at[0] >= test.want {
						t.Errorf("the first cycle came after %v", at[0])
					}
					if s := store.Stats(); (s.PrunesFailed == int64(closed)) != test.failures || (s.Prunes == 0) != test.failures {
						t.Errorf("%d cycles were counted as %+v", closed, s)
					}
					want := cmp.Or(test.gap, test.want)
					gaps := map[time.Duration]bool{}
					for i := range at[1:] {
						gap := at[i+1] - at[i]
						gaps[gap] = true
						if gap < want*9/10 || gap > want*11/10 {
							t.Errorf("%v between two cycles, want %v give or take a tenth", gap, want)
						}
					}
					if closed < int(cycles*test.want/want)*8/10 || len(gaps) < closed/2 {
						t.Errorf("%d cycles with %d different gaps", closed, len(gaps))
					}
				}
				if len(firsts) < stores/2 {
					t.Errorf("%d stores began at %d different moments", stores, len(firsts))
				}
			})
		})
	}
}

func TestARoleThatMayNotPruneLeavesItToOthersUntilItMay(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	role, address := pgtest.Role(t)
	setUp(t, w.query, pgsession.Config{Schema: w.schema, AppRole: role})
	log := &logs{}
	store := w.tick(t, pgtest.Connect(t, address).Query, pgsession.Config{SkipMigrate: true, Logger: slog.New(log)})
	eventually(t, "it has tried again and again", func() bool { return store.Stats().PrunesFailed > 2 })
	token, _, err := store.Create(t.Context(), pgsession.Session{Data: []byte("1")})
	must(t, err)
	_, err = store.Touch(t.Context(), token)
	must(t, err)
	_, err = store.Prune(t.Context())
	wantSQLState(t, "prune", err, "42501")
	for round := range 2 { // granted, revoked, and granted again
		w.exec(t, `grant execute on function {schema}.session_prune, {schema}.session_prune_events to `+role)
		w.expire(t, 5, fmt.Sprint("round", round))
		eventually(t, "the expired are pruned", func() bool { return w.rows(t) == 1 })
		eventually(t, "the log says so", func() bool { return len(log.with("may prune again")) == round+1 })
		failed := store.Stats().PrunesFailed
		w.exec(t, `revoke execute on function {schema}.session_prune from `+role)
		eventually(t, "it fails again", func() bool { return store.Stats().PrunesFailed > failed+2 })
	}
	must(t, store.Close())
	if n := len(log.with("may not prune")); n != 3 {
		t.Errorf("it was said %d times that the role may not prune, want once each time", n)
	}
}
