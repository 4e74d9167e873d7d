package pgsession_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// expire seeds n expired sessions, one a second into the past.
func (w *way) expire(t *testing.T, n int, prefix string) {
	t.Helper()
	w.seed(t, n, prefix, "", 1)
	w.exec(t, `
		update {table} as t
		   set expires_at = now() - i * interval '1 second', prune_after = date_bin('1 second', now() - i * interval '1 second', 'epoch')
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
		// 101 rows, of which the living count too; a full batch is followed by another call, and the last by
		// one for events.
		if n, most := len(calls.calls)-1, 101/batch+1; n < (101+batch-1)/batch || n > most {
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
	w.exec(t, `grant execute on function {schema}.session_prune, {schema}.session_prune_events to `+role)
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
