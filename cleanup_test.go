package pgsession_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

func TestNothingBringsAnEndedSessionBack(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		ctx := t.Context()
		token, loaded := w.create(t, pgsession.Session{Subject: "ada", Data: []byte("secret")})
		_, err := w.Destroy(ctx, token)
		must(t, err)
		tombstone := w.row(t, token)
		if strings.Contains(tombstone, hex.EncodeToString([]byte("secret"))) {
			t.Errorf("the tombstone keeps the data: %s", tombstone)
		}
		_, err = w.Get(ctx, token)
		wantError(t, "get", err, pgsession.ErrNotFound)
		_, err = w.Set(ctx, token, pgsession.Session{})
		wantError(t, "set", err, pgsession.ErrRevoked)
		_, err = w.Set(ctx, token, loaded)
		wantError(t, "set of the loaded session", err, pgsession.ErrRevoked)
		_, err = w.Touch(ctx, token)
		wantError(t, "touch", err, pgsession.ErrRevoked)
		_, err = w.Update(ctx, token, func(*pgsession.Session) error { panic("called") })
		wantError(t, "update", err, pgsession.ErrNotFound)
		if row := w.row(t, token); row != tombstone {
			t.Errorf("the tombstone was %s and is %s", tombstone, row)
		}

		w.age(t, 7*time.Minute, token)
		if n := w.prune(t); n != 1 || w.row(t, token) != "" {
			t.Fatalf("pruned %d rows, want the tombstone", n)
		}
		_, err = w.Set(ctx, token, loaded)
		wantError(t, "set of the loaded session after the tombstone", err, pgsession.ErrNotFound)
		if row := w.row(t, token); row != "" {
			t.Errorf("a loaded session came back: %s", row)
		}
		fresh, err := w.Set(ctx, token, pgsession.Session{})
		if err != nil || fresh.Version <= loaded.Version {
			t.Errorf("a new session after the tombstone: %+v, %v", fresh, err)
		}
	})
}

func TestWithoutTombstonesALoadedSessionStaysEnded(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{Tombstone: -1})
	token, loaded := w.create(t, pgsession.Session{})
	if n, err := w.Destroy(t.Context(), token); n != 1 || err != nil || w.row(t, token) != "" {
		t.Errorf("destroyed %d, %v, and left %q", n, err, w.row(t, token))
	}
	_, err := w.Set(t.Context(), token, loaded)
	wantError(t, "set of the loaded session", err, pgsession.ErrNotFound)
}

// expire seeds n expired sessions, one a second into the past.
func (w *way) expire(t *testing.T, n int, prefix string) {
	t.Helper()
	w.seed(t, n, prefix, "", 1)
	w.exec(t, `
		update {table} as t
		   set expires_at = now() - i * interval '1 second', prune_after = date_bin('1 minute', now() - i * interval '1 second', 'epoch')
		  from generate_series(1, $1::int) as i
		 where t.id = translate(rtrim(encode(sha256(convert_to($2::text || i, 'UTF8')), 'base64'), '='), '+/', '-_')`, n, prefix)
}

func (w *way) rows(t *testing.T) (n int) {
	t.Helper()
	w.scan(t, &n, `select count(*) from {table}`)
	return n
}

func TestPruneDeletesTheDeadInBatchesAndKeepsTheLiving(t *testing.T) {
	t.Parallel()
	for _, batch := range []int{1, 10, 95, 1000} {
		w := onPool(t, pgsession.Config{})
		w.expire(t, 95, "dead")
		w.seed(t, 5, "alive", "ada", 1)
		// As if touches had extended them since their prune_after was set.
		w.exec(t, `update {table} as t set prune_after = now() - interval '1 minute' where t.subject = 'ada'`)
		w.seed(t, 3, "ended", "bob", 1)
		_, err := w.Destroy(t.Context(), seeded("ended", 1), seeded("ended", 2), seeded("ended", 3))
		must(t, err)
		w.age(t, 7*time.Minute, seeded("ended", 1))
		calls := &recorder{next: w.query}
		store := setUp(t, calls.query, pgsession.Config{Schema: w.schema, Cleanup: pgsession.Cleanup{BatchSize: batch}})
		calls.calls = nil
		if n, err := store.Prune(t.Context()); n != 96 || err != nil {
			t.Errorf("in batches of %d: pruned %d rows, %v; want 95 sessions and a tombstone", batch, n, err)
		}
		// 101 rows, of which the living count too; a full batch is followed by another call.
		if n, most := len(calls.calls), 101/batch+1; n < (101+batch-1)/batch || n > most {
			t.Errorf("in batches of %d: %d statements, want %d at most", batch, n, most)
		}
		if n := w.rows(t); n != 7 {
			t.Errorf("in batches of %d: %d rows are left, want 5 sessions and 2 tombstones", batch, n)
		}
		var late int
		w.scan(t, &late, `select count(*) from {table} as t where t.prune_after <= t.expires_at and t.revoked_at is null`)
		if late != 0 {
			t.Errorf("in batches of %d: %d living rows were not moved behind their deadline", batch, late)
		}
		if n, err := store.Prune(t.Context()); n != 0 || err != nil {
			t.Errorf("again: pruned %d rows, %v", n, err)
		}
	}
}

func TestPruneLeavesLockedRowsForTheNextOne(t *testing.T) {
	t.Parallel()
	w, other := onTwoPools(t, pgsession.Config{})
	w.expire(t, 10, "dead")
	tx := begin(t, w.admin)
	rows, err := tx.query(t.Context(), w.fill(`select from {table} as t order by t.id limit 3 for key share`))
	must(t, err)
	rows.Close()
	must(t, rows.Err())
	ctx, cancel := context.WithTimeout(t.Context(), patience) // should it wait for them
	defer cancel()
	if n, err := w.store.Prune(ctx); n != 7 || err != nil {
		t.Errorf("pruned %d rows, %v; want those that are not locked", n, err)
	}
	must(t, tx.commit())
	if n, err := other.Prune(t.Context()); n != 3 || err != nil {
		t.Errorf("pruned %d rows, %v; want the rest", n, err)
	}
}

func TestPruneWaitsForAnotherPrune(t *testing.T) {
	t.Parallel()
	w, other := onTwoPools(t, pgsession.Config{})
	w.expire(t, 10, "dead")
	tx := begin(t, w.admin)
	if n := (&way{see: tx.query, schema: w.schema}).prune(t); n != 10 {
		t.Fatalf("pruned %d rows", n)
	}
	w.expire(t, 10, "more")
	var group sync.WaitGroup
	group.Go(func() {
		if n, err := other.Prune(t.Context()); n != 10 || err != nil {
			t.Errorf("pruned %d rows, %v; want those that the other did not see", n, err)
		}
	})
	w.awaitWaiting(t, 1)
	must(t, tx.commit())
	group.Wait()
}

func TestATouchedSessionSurvivesAPruneThatHadItInSight(t *testing.T) {
	t.Parallel()
	const sessions, rounds = 20, 30
	c := newClock(t)
	w := enter(t, doors[0], c.admin, c.url, pgsession.Config{IdleTimeout: time.Hour, Tombstone: -1})
	cleaner := setUp(t, pgtest.Connect(t, c.url).Query, pgsession.Config{Schema: w.schema})
	for round := range rounds {
		var touched, idle []pgsession.Token
		for i := range sessions {
			token, _ := w.create(t, pgsession.Session{})
			if i%2 == 0 {
				touched = append(touched, token)
			} else {
				idle = append(idle, token)
			}
		}
		// Touched in time, by a transaction that is not committed when the old deadline passes.
		c.advance(t, time.Hour-time.Microsecond)
		tx := w.begin(t)
		for _, token := range touched {
			_, err := w.store.WithQuery(tx.query).Touch(t.Context(), token)
			must(t, err)
		}
		c.advance(t, 2*time.Minute)
		if round%2 == 0 { // the prune meets the locked rows
			ctx, cancel := context.WithTimeout(t.Context(), patience) // should it wait for them
			_, err := cleaner.Prune(ctx)
			cancel()
			must(t, err)
			must(t, tx.commit())
		}
		crowd(2, func(i int) { // the prune has taken its snapshot, or not
			var err error
			if i == 0 && round%2 == 1 {
				err = tx.commit()
			} else if i == 1 {
				_, err = cleaner.Prune(t.Context())
			}
			if err != nil {
				t.Error(err)
			}
		})
		_, err := cleaner.Prune(t.Context())
		must(t, err)
		for _, token := range touched {
			if _, err := w.Get(t.Context(), token); err != nil {
				t.Errorf("round %d: a touched session: %v", round, err)
			}
		}
		for _, token := range idle {
			if row := w.row(t, token); row != "" {
				t.Errorf("round %d: a session that nobody touched is there: %s", round, row)
			}
		}
		_, err = w.store.Clear(t.Context())
		must(t, err)
	}
}

func TestTheProcedurePrunesInCommittedBatchesAlsoForARoleThatMayDoNothingElse(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	role, address := pgtest.Role(t)
	w.expire(t, 95, "dead")
	for _, statement := range []string{
		`create table {schema}.batches (transaction xid8, rows int)`,
		`create function {schema}.log() returns trigger language plpgsql security definer as $$
		 begin insert into {schema}.batches select pg_current_xact_id(), count(*) from gone; return null; end $$`,
		`create trigger log after delete on {table} referencing old table as gone for each statement execute function {schema}.log()`,
		`grant usage on schema {schema} to ` + role,
		`grant execute on procedure {schema}.session_prune_all to ` + role,
	} {
		w.exec(t, statement)
	}
	conn, err := pgx.Connect(t.Context(), address)
	must(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	_, err = conn.Exec(t.Context(), w.fill(`call {schema}.session_prune_all(10)`))
	wantSQLState(t, "without the right to prune", err, "42501")
	w.exec(t, `grant execute on function {schema}.session_prune to `+role)
	_, err = conn.Exec(t.Context(), w.fill(`call {schema}.session_prune_all(10)`))
	must(t, err)
	var transactions, largest int
	w.scan(t, &transactions, `select count(distinct b.transaction) from {schema}.batches as b`)
	w.scan(t, &largest, `select max(b.rows) from {schema}.batches as b`)
	if n := w.rows(t); n != 0 || transactions != 10 || largest != 10 {
		t.Errorf("%d rows are left after %d transactions of up to %d rows; want 0, 10 and 10", n, transactions, largest)
	}
	_, err = conn.Exec(t.Context(), w.fill(`select count(*) from {schema}.session`))
	wantSQLState(t, "reading the table", err, "42501")
	// Where another prune runs it ends at once.
	tx := begin(t, w.admin)
	(&way{see: tx.query, schema: w.schema}).prune(t)
	w.expire(t, 1, "more")
	_, err = conn.Exec(t.Context(), w.fill(`call {schema}.session_prune_all()`))
	must(t, err)
	if n := w.rows(t); n != 1 {
		t.Errorf("%d rows are left, want 1", n)
	}
}

// tick makes a store that prunes by itself, all the time, and sets it up.
func (w *way) tick(t *testing.T, query pgsession.QueryFunc, cfg pgsession.Config) *pgsession.Store {
	t.Helper()
	cfg.Schema, cfg.Cleanup.Interval = w.schema, time.Millisecond
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
	eventually(t, "all is pruned", func() bool { return w.rows(t) == 0 })
	var pruned int64
	for _, store := range stores {
		must(t, store.Close())
		pruned += store.Stats().Pruned
	}
	var overlaps int
	w.scan(t, &overlaps, `select count(*) from {schema}.overlaps`)
	if overlaps != 0 || pruned != (waves+1)*wave {
		t.Errorf("%d rows pruned, %d overlaps; want %d and none", pruned, overlaps, (waves+1)*wave)
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
		once           bool
	}{
		"default":           {0, time.Minute, nil, false, false},
		"given":             {time.Hour, time.Hour, nil, false, false},
		"every cycle fails": {time.Second, time.Second, &pgconn.PgError{Code: "57P03"}, true, false},
		"not permitted":     {time.Second, time.Second, &pgconn.PgError{Code: "42501"}, true, true},
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
					if test.once {
						if closed != 1 {
							t.Errorf("%d cycles without permission, want 1", closed)
						}
						continue
					}
					gaps := map[time.Duration]bool{}
					for i := range at[1:] {
						gap := at[i+1] - at[i]
						gaps[gap] = true
						if gap < test.want*9/10 || gap > test.want*11/10 {
							t.Errorf("%v between two cycles, want %v give or take a tenth", gap, test.want)
						}
					}
					if closed < cycles*8/10 || len(gaps) < closed/2 {
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

func TestARoleThatMayNotPruneLeavesItToOthers(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	role, address := pgtest.Role(t)
	setUp(t, w.query, pgsession.Config{Schema: w.schema, AppRole: role})
	var log strings.Builder
	store := w.tick(t, pgtest.Connect(t, address).Query, pgsession.Config{
		SkipMigrate: true, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	eventually(t, "it has tried", func() bool { return store.Stats().PrunesFailed == 1 })
	token, _, err := store.Create(t.Context(), pgsession.Session{})
	must(t, err)
	_, err = store.Touch(t.Context(), token)
	must(t, err)
	_, err = store.Prune(t.Context())
	wantSQLState(t, "prune", err, "42501")
	must(t, store.Close())
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || store.Stats().PrunesFailed != 1 {
		t.Errorf("%d warnings, %+v: %s", n, store.Stats(), log.String())
	}
}

func TestAfterCloseEverythingIsClosedButABorrowedPool(t *testing.T) {
	t.Parallel()
	everyPool(t, pgsession.Config{}, func(t *testing.T, w *way) {
		store := w.tick(t, w.query, pgsession.Config{})
		tx := store.WithQuery(w.query)
		crowd(4, func(int) {
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		})
		must(t, store.Close())
		for _, op := range operations {
			err := op.call(t.Context(), store, "any")
			wantError(t, op.name, err, pgsession.ErrClosed)
			wantFailure(t, "closed", op.name, err, false)
		}
		wantError(t, "setup", store.Setup(t.Context()), pgsession.ErrClosed)
		_, err := tx.Set(t.Context(), "any", pgsession.Session{})
		wantError(t, "set in a transaction", err, pgsession.ErrClosed)
		if _, err := w.Set(t.Context(), "any", pgsession.Session{}); err != nil {
			t.Errorf("the borrowed pool: %v", err)
		}
	})
}

func TestCloseDuringEverything(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	cfg := pgsession.Config{
		Schema: w.schema, Logger: slog.New(slog.DiscardHandler), Cleanup: pgsession.Cleanup{Interval: time.Millisecond},
	}
	address := withParameter(t, pgtest.URL(t), "application_name", w.schema)
	for round := range 20 {
		open, err := pgsession.Open(t.Context(), address, cfg)
		must(t, err)
		borrowed, err := pgsession.New(w.query, cfg)
		must(t, err)
		for _, store := range []*pgsession.Store{open, borrowed} {
			closeAt := rand.N(40)
			crowd(8, func(worker int) {
				for i := 0; ; i++ {
					if worker < 2 && i == closeAt {
						if err := store.Close(); err != nil {
							t.Error(err)
						}
						return
					}
					op := operations[rand.N(len(operations))]
					err := op.call(t.Context(), store, seeded("any", rand.N(5)))
					if worker == 7 && i%10 == 0 {
						err = store.Setup(t.Context())
					}
					switch {
					case errors.Is(err, pgsession.ErrClosed):
						if errors.Is(err, pgsession.ErrInDoubt) {
							t.Errorf("round %d: Close left %s in doubt: %v", round, op.name, err)
						}
						if worker >= 2 {
							return
						}
					case err == nil, errors.Is(err, pgsession.ErrNotFound), errors.Is(err, pgsession.ErrRevoked):
					default:
						t.Errorf("round %d: %s: %v", round, op.name, err)
					}
				}
			})
		}
	}
	eventually(t, "all that Open opened is closed", func() bool {
		var n int
		must(t, w.admin.QueryRow(t.Context(), `select count(*) from pg_stat_activity where application_name = $1`, w.schema).Scan(&n))
		return n == 0
	})
	must(t, w.admin.Ping(t.Context()))
}

func TestCloseWaitsForCallsAndNotForAPrune(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	store, err := pgsession.Open(t.Context(), pgtest.URL(t), pgsession.Config{
		Schema: w.schema, LockTimeout: -1, Logger: slog.New(slog.DiscardHandler),
		Cleanup: pgsession.Cleanup{Interval: time.Millisecond},
	})
	must(t, err)
	must(t, store.Setup(t.Context()))
	token, _ := w.create(t, pgsession.Session{})
	tx := begin(t, w.admin)
	_, err = w.store.WithQuery(tx.query).Set(t.Context(), token, pgsession.Session{})
	must(t, err)
	var group sync.WaitGroup
	group.Go(func() {
		if _, err := store.Set(t.Context(), token, pgsession.Session{Data: []byte("saved")}); err != nil {
			t.Errorf("the set that Close had to wait for: %v", err)
		}
	})
	w.awaitWaiting(t, 1)
	group.Go(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "it is closing", func() bool {
		_, err := store.Get(t.Context(), token)
		return errors.Is(err, pgsession.ErrClosed)
	})
	must(t, tx.commit())
	group.Wait()
	if got, err := w.Get(t.Context(), token); err != nil || string(got.Data) != "saved" {
		t.Errorf("got %q, %v", got.Data, err)
	}

	everyStore(t, pgsession.Config{}, func(t *testing.T, w *way) {
		store := w.tick(t, w.query, pgsession.Config{})
		tx := begin(t, w.admin)
		inside := &way{see: tx.query, schema: w.schema, table: w.table}
		inside.exec(t, `lock table {table} in access exclusive mode`)
		w.awaitWaiting(t, 1)
		closed := make(chan error, 1)
		go func() { closed <- store.Close() }()
		select {
		case err := <-closed:
			must(t, err)
		case <-time.After(patience):
			t.Error("Close waits for a prune that waits for a lock")
		}
	})
}
