package pgsession_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/pgsession/pgsession"
)

// obstacles are what keeps a session from being deleted: of each, the statements that keep all with the subject
// "kept", and what the reason says.
var obstacles = map[string]struct {
	statements []string
	reason     string
	batch      int
}{
	"foreign key": {[]string{
		`create table {schema}.cart (sid text references {table} (id) on update cascade)`,
		`insert into {schema}.cart select t.id from {table} as t where t.subject = 'kept'`,
	}, "violates foreign key constraint", 7},
	"deferred foreign key": {[]string{
		`create table {schema}.cart (sid text references {table} (id) deferrable initially deferred)`,
		`insert into {schema}.cart select t.id from {table} as t where t.subject = 'kept'`,
	}, "violates foreign key constraint", 1000},
	"trigger before": {[]string{
		`create function {schema}.hold() returns trigger language plpgsql as $$
		 begin if old.subject = 'kept' then raise 'on hold'; end if; return old; end $$`,
		`create trigger hold before delete on {table} for each row execute function {schema}.hold()`,
	}, "on hold", 7},
	"trigger after": {[]string{
		`create function {schema}.hold() returns trigger language plpgsql as $$
		 begin if old.subject = 'kept' then raise 'on hold'; end if; return old; end $$`,
		`create trigger hold after delete on {table} for each row execute function {schema}.hold()`,
	}, "on hold", 1000},
	"trigger that skips": {[]string{
		`create function {schema}.hold() returns trigger language plpgsql as $$
		 begin if old.subject = 'kept' then return null; end if; return old; end $$`,
		`create trigger hold before delete on {table} for each row execute function {schema}.hold()`,
	}, "prevents the deletion", 7},
	"data in the message": {[]string{
		`create function {schema}.hold() returns trigger language plpgsql as $$
		 begin if old.subject = 'kept' then perform convert_from(old.data, 'UTF8')::int; end if; return old; end $$`,
		`create trigger hold before delete on {table} for each row execute function {schema}.hold()`,
	}, "22P02", 1000},
	"trigger that forbids all": {[]string{
		`create function {schema}.hold() returns trigger language plpgsql as $$
		 begin if old.subject = 'kept' then raise 'on hold'; end if; return coalesce(new, old); end $$`,
		`create trigger hold before update or delete on {table} for each row execute function {schema}.hold()`,
	}, "on hold", 7},
}

func TestASessionThatCannotBeDeletedKeepsNoOther(t *testing.T) {
	t.Parallel()
	for name, obstacle := range obstacles {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := onPool(t, pgsession.Config{Audit: audited, Cleanup: pgsession.Cleanup{BatchSize: obstacle.batch}})
			w.expire(t, 100, "s")
			w.seed(t, 5, "alive", "ada", 1)
			w.exec(t, `update {table} as t set prune_after = now() - interval '1 hour' where t.subject = 'ada'`)
			// Of the oldest, of the youngest, and side by side.
			w.exec(t, `
				update {table} as t set subject = 'kept', data = 'secret'
				  from (select x.id, row_number() over (order by x.expires_at) as n from {table} as x where x.subject is null) as s
				 where s.id = t.id and s.n in (1, 2, 50, 100)`)
			for _, statement := range obstacle.statements {
				w.exec(t, statement)
			}
			n, err := w.store.Prune(t.Context())
			if n != 96 || err != nil || w.rows(t) != 9 {
				t.Errorf("pruned %d, %v; %d rows are left", n, err, w.rows(t))
			}
			status, err := w.store.CleanupStatus(t.Context())
			must(t, err)
			if status.Kept < 4 || status.Kept > 4 && name != "trigger that forbids all" || status.KeptAt.IsZero() || !strings.Contains(status.KeptReason, obstacle.reason) ||
				strings.Contains(status.KeptReason, "secret") || status.Pruned != 96 {
				t.Errorf("the status is %+v", status)
			}
			var expired int
			w.scan(t, &expired, `select count(*) from {schema}.session_events where kind = 'expired'`)
			if expired != 96 {
				t.Errorf("%d are recorded as expired", expired)
			}
			if name == "trigger that forbids all" {
				return // they cannot be put off either
			}
			if status.Due != 0 {
				t.Errorf("they are due again at once: %+v", status)
			}
			var early, late int
			w.scan(t, &early, `select count(*) from {table} as t where t.subject = 'kept' and t.prune_after < now() + interval '50 minutes'`)
			w.scan(t, &late, `select count(*) from {table} as t where t.subject = 'kept' and t.prune_after > now() + interval '25 hours'`)
			if early+late != 0 {
				t.Errorf("%d are due within an hour, %d in more than a day", early, late)
			}
			if n, err := w.store.Prune(t.Context()); n != 0 || err != nil {
				t.Errorf("again: pruned %d, %v", n, err)
			}
			// When nothing holds them any more they go.
			w.exec(t, `drop trigger if exists hold on {table}`)
			w.exec(t, `drop table if exists {schema}.cart`)
			w.exec(t, `update {table} as t set prune_after = now() - interval '1 minute' where t.subject = 'kept'`)
			if n, err := w.store.Prune(t.Context()); n != 4 || err != nil {
				t.Errorf("without the obstacle: pruned %d, %v", n, err)
			}
		})
	}
}

func TestASessionThatCannotBeDeletedComesToTheHookAgainWithoutTheOthers(t *testing.T) {
	t.Parallel()
	for name, obstacle := range obstacles {
		if name == "trigger that forbids all" {
			continue // nothing can be claimed: the claim is an update
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := onPool(t, pgsession.Config{})
			w.expire(t, 20, "s")
			w.seed(t, 10, "ended", "", 1)
			_, err := w.Destroy(t.Context(), seeded("ended", 1), seeded("ended", 2), seeded("ended", 3))
			must(t, err)
			w.age(t, 7*60*1e9, seeded("ended", 1), seeded("ended", 2), seeded("ended", 3))
			w.exec(t, `update {table} as t set subject = 'kept', data = case when t.revoked_at is null then 'secret'::bytea end
				where t.id in ($1, $2)`, string(w.id(t, seeded("s", 5))), string(w.id(t, seeded("ended", 2))))
			if name == "data in the message" { // which a tombstone has none of
				w.exec(t, `update {table} as t set subject = null where t.revoked_at is not null`)
			}
			for _, statement := range obstacle.statements {
				w.exec(t, statement)
			}
			var c catcher
			hooked := setUp(t, w.query, pgsession.Config{Schema: w.schema, Cleanup: pgsession.Cleanup{OnPrune: c.catch}})
			for range 2 {
				_, err := hooked.Prune(t.Context())
				must(t, err)
			}
			left := 9
			if name == "data in the message" {
				left = 8
			}
			if n, most := c.counts(); n != 20 || most != 1 || w.rows(t) != left {
				t.Errorf("%d sessions were seen, one %d times; %d rows are left, want %d", n, most, w.rows(t), left)
			}
			w.exec(t, `update {table} as t set prune_after = now() - interval '1 minute' where t.id = $1`, string(w.id(t, seeded("s", 5))))
			_, err = hooked.Prune(t.Context())
			must(t, err)
			if n, most := c.counts(); n != 20 || most != 2 || len(c.last) != 1 {
				t.Errorf("an hour later: %d sessions were seen, one %d times; %d the last time", n, most, len(c.last))
			}
		})
	}
}

func TestTheProcedureKeepsWhatCannotBeDeletedAndTheLogSaysSo(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	w.exec(t, `create table {schema}.cart (sid text references {table} (id) deferrable initially deferred)`)
	w.expire(t, 50, "s")
	w.exec(t, `insert into {schema}.cart select t.id from {table} as t limit 1`)
	w.exec(t, `call {schema}.session_prune_all(10)`)
	if n := w.rows(t); n != 1 {
		t.Errorf("%d rows are left", n)
	}
	log := &logs{}
	store := w.tick(t, w.query, pgsession.Config{Logger: slog.New(log)})
	eventually(t, "it is said", func() bool { return len(log.with("cannot be deleted")) > 0 })
	log.says(t, "cannot be deleted", "violates foreign key constraint")
	prunes := store.Stats().Prunes
	eventually(t, "more cycles", func() bool { return store.Stats().Prunes > prunes+2 })
	if n := len(log.with("cannot be deleted")); n != 1 {
		t.Errorf("it was said %d times", n)
	}
}

// What is no row's fault fails the prune as it did, and nothing is put off.
func TestWhatPassesFailsThePruneAndKeepsNothing(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	w.expire(t, 10, "s")
	w.exec(t, `create function {schema}.busy() returns trigger language plpgsql as $$
		begin raise 'full' using errcode = 'disk_full'; end $$`)
	w.exec(t, `create trigger busy before delete on {table} for each row execute function {schema}.busy()`)
	_, err := w.store.Prune(t.Context())
	wantSQLState(t, "prune", err, "53100")
	status, err := w.store.CleanupStatus(t.Context())
	if err != nil || status.Due != 10 || status.Kept != 0 {
		t.Errorf("the status is %+v, %v", status, err)
	}
	var n int
	err = scanOne(t.Context(), w, &n, `select count(*) from {schema}.session_prune(0)`)
	wantSQLState(t, "a limit of 0", err, "22023")
}

// A row that is deleted by another subtransaction than the one that locked it gets a MultiXact, and its index
// entries are walked over until vacuum comes: the ordinary way must not be that.
func TestPruneMakesNoMultiXacts(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	w.expire(t, 10, "s")
	w.exec(t, `select {schema}.session_prune()`)
	w.exec(t, `create extension if not exists pageinspect schema public`)
	var multis int
	w.scan(t, &multis, `select count(*) from public.heap_page_items(public.get_raw_page('{table}', 0)) as i where i.t_infomask & 4096 <> 0`)
	if multis != 0 {
		t.Errorf("%d rows have a MultiXact", multis)
	}
}

func scanOne(ctx context.Context, w *way, dest any, statement string) error {
	rows, err := w.see(ctx, w.fill(statement))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(dest); err != nil {
			return err
		}
	}
	return rows.Err()
}

func TestCheckTellsOfWhatCannotBeDeletedAndOfWhatIsForAHook(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	w.exec(t, `create table {schema}.cart (sid text references {table} (id) on update cascade)`)
	w.expire(t, 2, "s")
	w.exec(t, `insert into {schema}.cart select t.id from {table} as t limit 1`)
	_, err := w.store.Prune(t.Context())
	must(t, err)
	finding := func(store *pgsession.Store, text string) pgsession.Finding {
		t.Helper()
		for _, f := range check(t, store) {
			if f.Code == pgsession.FindingCleanup && strings.Contains(f.Message, text) {
				return f
			}
		}
		t.Errorf("there is no finding %q", text)
		return pgsession.Finding{}
	}
	if f := finding(w.store, "could not be deleted"); !strings.Contains(f.Remedy, "ON DELETE CASCADE") {
		t.Errorf("found %+v", f)
	}
	w.expire(t, 1, "late")
	w.exec(t, `update {table} set expires_at = now() - interval '1 day', prune_after = now() - interval '1 day'`)
	if f := finding(w.store, "should be gone"); !strings.Contains(f.Remedy, "Store.Prune") {
		t.Errorf("found %+v", f)
	}
	w.exec(t, `update {schema}.session_cleanup set hooked_at = now()`)
	if f := finding(w.store, "should be gone"); strings.Contains(f.Remedy, "Store.Prune") || !strings.Contains(f.Remedy, "OnPrune") {
		t.Errorf("found %+v", f)
	}
}

// SET CONSTRAINTS takes a right that deleting does not: to a schema that is another's.
func TestADeferredForeignKeyInSomebodyElsesSchemaKeepsNoSession(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	owner := setUp(t, dial(t, c.ownerAddress, nil).Query, c.cfg)
	exec(t, c.superuser, "create schema shop authorization "+identifier(c.other))
	exec(t, c.superuser, "grant usage on schema pgsession to "+identifier(c.other))
	exec(t, c.superuser, "grant references on pgsession.session to "+identifier(c.other))
	execAsIs(t, dial(t, c.otherAddress, nil), `create table shop.cart (sid text
		references pgsession.session (id) on delete cascade deferrable initially deferred)`)
	token, s, err := owner.Create(t.Context(), pgsession.Session{Data: []byte("1")})
	must(t, err)
	exec(t, c.superuser, "insert into shop.cart values ($1)", string(s.ID))
	exec(t, c.superuser, "update pgsession.session set expires_at = now() - interval '1 hour', prune_after = now() - interval '1 hour'")
	if n, err := owner.Prune(t.Context()); err != nil || n != 1 {
		t.Errorf("pruned %d of 1, %v", n, err)
	}
	_, err = owner.GetFresh(t.Context(), token)
	wantError(t, "get", err, pgsession.ErrNotFound)
}

func TestWhatCannotBeDeletedIsCountedByTheRun(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{Cleanup: pgsession.Cleanup{BatchSize: 2}})
	w.exec(t, `create table {schema}.cart (sid text references {table} (id))`)
	for _, n := range []int{7, 3} {
		w.expire(t, n, fmt.Sprint("run of ", n, ": "))
		w.exec(t, `insert into {schema}.cart select t.id from {table} as t where t.prune_after < now()`)
		if deleted, err := w.store.Prune(t.Context()); deleted != 0 || err != nil {
			t.Errorf("of %d: pruned %d, %v", n, deleted, err)
		}
		status, err := w.store.CleanupStatus(t.Context())
		must(t, err)
		if status.Kept != int64(n) {
			t.Errorf("%d were kept, want %d", status.Kept, n)
		}
	}
}
