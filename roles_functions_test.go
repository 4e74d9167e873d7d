package pgsession_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

func TestEveryDefinersFunctionPinsItsSearchPath(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	setUp(t, dial(t, c.ownerAddress, nil).Query, c.cfg)
	type function struct {
		Name    string
		Definer bool
		Config  []string
	}
	rows, err := c.superuser.Query(t.Context(), `
		select p.proname::text, p.prosecdef, coalesce(p.proconfig, '{}')
		  from pg_proc as p where p.pronamespace = 'pgsession'::regnamespace`)
	must(t, err)
	functions, err := pgx.CollectRows(rows, pgx.RowToStructByPos[function])
	must(t, err)
	if len(functions) != 37 {
		t.Fatalf("%d functions", len(functions))
	}
	var invokers []string
	for _, f := range functions {
		switch {
		case f.Name == "session_prune_all":
			if f.Definer || len(f.Config) > 0 { // COMMIT would fail
				t.Errorf("%+v", f)
			}
			invokers = append(invokers, f.Name)
		case !slices.Contains(f.Config, "search_path=pg_catalog, pg_temp"):
			t.Errorf("%s has the settings %q", f.Name, f.Config)
		case slices.Contains(f.Config, "enable_seqscan=off") != slices.Contains(f.Config, "jit=off"):
			t.Errorf("%s has one without the other: %q", f.Name, f.Config)
		case !f.Definer:
			invokers = append(invokers, f.Name)
		}
	}
	slices.Sort(invokers)
	if !slices.Equal(invokers, []string{"session_json", "session_merge", "session_prune_all"}) {
		t.Errorf("run as their caller: %q", invokers)
	}
}

// With enable_seqscan off what has no index looks costly enough to be compiled, at each execution: in a trigger,
// and in a foreign key's check, that took 20 times as long.
func TestWhatTriggersDoIsNotCompiled(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	w.expire(t, 3, "s")
	w.exec(t, `create function {schema}.look() returns trigger language plpgsql as $$
		begin
			if current_setting('jit')::bool then raise '% is compiled', tg_op; end if;
			return coalesce(new, old);
		end $$`)
	w.exec(t, `create trigger look before insert or update or delete on {table} for each row execute function {schema}.look()`)
	pool := pgtest.Connect(t, withParameter(t, pgtest.URL(t), "jit", "on"))
	store := setUp(t, pool.Query, pgsession.Config{Schema: w.schema})
	if n, err := store.Prune(t.Context()); n != 3 || err != nil {
		t.Errorf("pruned %d, %v", n, err)
	}
	useAll(t, store, nil)
}

func TestTheAppRoleReachesNothingElseThroughTheFunctions(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	setUp(t, dial(t, c.ownerAddress, nil).Query, c.cfg)
	exec(t, c.superuser, "create table public.secret (text text)")
	exec(t, c.superuser, "alter table public.secret owner to "+identifier(c.owner))
	exec(t, c.superuser, "insert into public.secret values ('hidden')")
	// The app has a schema, and what a definer's function could be lured into.
	exec(t, c.superuser, "create schema lair authorization "+identifier(c.app))
	app := dial(t, c.appAddress, map[string]string{"search_path": "pg_temp, lair, pg_catalog"})
	ctx := t.Context()
	execAsIs(t, app, `
		create table lair.luck (who text);
		grant insert on lair.luck to public; grant usage on schema lair to public;
		create function lair.lure() returns bool language plpgsql as $$ begin insert into lair.luck values (current_user); return true; end $$;
		create function lair.clock_timestamp() returns timestamptz language plpgsql as $$ begin perform lair.lure(); return pg_catalog.now(); end $$;
		create function lair.hashtextextended(text, int8) returns int8 language plpgsql as $$ begin perform lair.lure(); return 1; end $$;
		create function lair.same(text, text) returns bool language plpgsql as $$ begin return lair.lure(); end $$;
		create operator lair.= (leftarg = text, rightarg = text, function = lair.same);
		create operator lair.> (leftarg = text, rightarg = text, function = lair.same);
		create domain pg_temp.text as pg_catalog.text check (lair.lure());
		create domain pg_temp.jsonb as pg_catalog.jsonb check (lair.lure());
		create temporary table session (id pg_catalog.text);
		create function pg_temp.clock_timestamp() returns timestamptz language plpgsql as $$ begin perform lair.lure(); return pg_catalog.now(); end $$;`)
	_, err := app.Exec(ctx, "delete from lair.luck")
	must(t, err)

	injections := []string{
		`x'); insert into lair.luck values ('injected'); --`, `x' or true --`, `"; select 1; --`, `\'; drop table x; --`,
		`$$; select 1 $$`, `{"ip": "x'); drop table pgsession.session; --"}`, `["x'); drop table pgsession.session; --"]`,
		`{"ip\": null} ": 1}`, `{"id": "x"}`, `{"ip": null, "data": "x"}`, `[]`, `null`, `"x"`, `1`, `{}`, ``, `%s`,
	}
	// Each text argument of each function that the app may call.
	calls := []string{
		"select pgsession.session_get($1)",
		"select pgsession.session_set($1, 'x')",
		"select pgsession.session_set('x', 'x', 0, $1)",
		"select pgsession.session_set('x', 'x', 0, null, $1)",
		"select pgsession.session_set('x', 'x', p_lock => $1)",
		"select pgsession.session_touch($1)",
		"select pgsession.session_touch('x', null, $1)",
		"select pgsession.session_destroy($1)",
		"select pgsession.session_revoke($1)",
		"select pgsession.session_revoke(null, $1)",
		"select pgsession.session_revoke('[]', null, $1)",
		"select pgsession.session_revoke('[]', p_filter => $1)",
		"select pgsession.session_list($1)",
		"select pgsession.session_list('x', $1)",
		"select pgsession.session_list('x', null, $1)",
		"select pgsession.session_count($1)",
		"select pgsession.session_count('x', $1)",
	}
	ran, failed := 0, 0
	for _, call := range calls {
		for _, injection := range injections {
			call := strings.Replace(call, "$1", "$1::pg_catalog.text", 1)
			rows, err := app.Query(ctx, call, pgx.QueryExecModeExec, injection)
			if err == nil {
				rows.Close()
				err = rows.Err()
			}
			ran++
			var e *pgconn.PgError
			if err != nil {
				failed++
				if !errors.As(err, &e) || !strings.HasPrefix(e.Code, "22") && e.Code != "42703" {
					t.Errorf("%s of %q: %v", call, injection, err)
				}
			}
		}
	}
	if failed == 0 || failed == ran {
		t.Errorf("%d of %d calls failed", failed, ran)
	}
	for _, who := range column[string](t, c.superuser, "select distinct who from lair.luck") {
		t.Errorf("the app's own code ran as %s", who)
	}
	if n := value[int](t, c.superuser, "select count(*) from public.secret"); n != 1 {
		t.Errorf("%d secrets", n)
	}
	if n := value[int](t, c.superuser, "select count(*) from pgsession.session where id = 'x'"); n != 1 {
		t.Errorf("%d rows of the id that was set", n)
	}
}
