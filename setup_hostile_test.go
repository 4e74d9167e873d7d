package pgsession_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// makeHostile creates a schema in which every function and operator of pg_catalog that can be written
// in PL/pgSQL has a double that ends in an error, and so has every type and table that the library
// names. They are immutable, so that even a call that is only planned shows.
const makeHostile = `
	create schema hostile;
	create function hostile.refuse_type() returns bool language plpgsql immutable
	as $$ begin raise exception 'a hostile type was used'; end $$;
	do $do$
	declare
	    r record;
	    n int4 := 0;
	begin
	    for r in
	        select p.oid, p.proname, pg_get_function_identity_arguments(p.oid) as args, pg_get_function_result(p.oid) as result
	          from pg_proc as p
	         where p.pronamespace = 'pg_catalog'::regnamespace
	           and p.prokind = 'f'
	    loop
	        begin
	            execute format(
	                'create function hostile.%I(%s) returns %s language plpgsql immutable as %L',
	                r.proname, r.args, r.result,
	                format('begin raise exception %L; end', 'hostile function ' || r.proname || ' was called'));
	            n := n + 1;
	        exception when others then
	            null; -- of internal types
	        end;
	    end loop;
	    for r in
	        select o.oprname, o.oprleft, o.oprright, p.proname
	          from pg_operator as o
	          join pg_proc as p on p.oid = o.oprcode
	         where o.oprnamespace = 'pg_catalog'::regnamespace
	    loop
	        begin
	            execute format(
	                'create operator hostile.%s (%s rightarg = %s, function = hostile.%I)', r.oprname,
	                case when r.oprleft <> 0 then format('leftarg = %s,', r.oprleft::regtype) end,
	                r.oprright::regtype, r.proname);
	            n := n + 1;
	        exception when others then
	            null;
	        end;
	    end loop;
	    for r in
	        select t.typname
	          from pg_type as t
	         where t.typnamespace = 'pg_catalog'::regnamespace
	           and t.typtype in ('b', 'r')
	           and t.typname !~ '^_'
	    loop
	        begin
	            execute format('create domain hostile.%I as pg_catalog.%I check (hostile.refuse_type())', r.typname, r.typname);
	            n := n + 1;
	        exception when others then
	            null;
	        end;
	    end loop;
	    for r in select c.relname from pg_class as c where c.relnamespace = 'pg_catalog'::regnamespace and c.relkind in ('r', 'v') loop
	        execute format('create table hostile.%I (hostile pg_catalog.int4)', r.relname);
	        n := n + 1;
	    end loop;
	    create table hostile.session (hostile pg_catalog.int4);
	    create table hostile.session_schema_version (hostile pg_catalog.int4);
	    perform set_config('hostile.made', n::text, false);
	end
	$do$`

// hostileDatabase is a database with the schema hostile.
func hostileDatabase(t *testing.T) (address string) {
	t.Helper()
	address = pgtest.Database(t)
	conn := dial(t, address, nil)
	execAsIs(t, conn, makeHostile)
	if n := value[int](t, conn, "select current_setting('hostile.made')::int4"); n < 2500 {
		t.Fatalf("only %d hostile objects", n)
	}
	// The doubles are there, and are what a statement finds that names nothing in full.
	victim := dial(t, address, map[string]string{"search_path": "hostile, pg_catalog"})
	for _, statement := range []string{
		"select 1 operator(pg_catalog.=) 1 and 'a' = 'b'", "select 1 + 1", "select -(1::pg_catalog.float8)",
		"select 'a'::pg_catalog.text || 'b'", "select now() is null", "select '1'::text", "select '1'::jsonb",
		"select pg_try_advisory_xact_lock(1)", "select hashtextextended('a', 1)", "select clock_timestamp()",
		"select current_setting('lock_timeout')", "select count(*) from pg_class where hostile is null and 1 = 1",
		"select '{}'::pg_catalog.jsonb -> 'a'", "select array_length(array['a'::pg_catalog.text], 1)",
		"select p.prosrc from pg_proc as p", "select session.id from session",
	} {
		if _, err := victim.Exec(t.Context(), statement, pgx.QueryExecModeExec); err == nil {
			t.Errorf("nothing hostile happens to: %s", statement)
		}
	}
	return address
}

// expectNoHostileDependency fails the test where an object of the store was bound to a double.
func expectNoHostileDependency(t *testing.T, db executor, schema string) {
	t.Helper()
	for _, d := range column[string](t, db, `
		select o.identity || ' depends on ' || r.identity
		  from pg_depend as d
		 cross join lateral pg_identify_object(d.classid, d.objid, d.objsubid) as o
		 cross join lateral pg_identify_object(d.refclassid, d.refobjid, d.refobjsubid) as r
		 where r.schema = 'hostile'
		   and d.deptype in ('n', 'a')
		   and (o.schema = $1 or position($1 in o.identity) > 0)`, schema) {
		t.Error(d)
	}
	for _, c := range column[string](t, db, `
		select c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
		  from pg_attribute as a
		  join pg_class as c on c.oid = a.attrelid
		  join pg_type as y on y.oid = a.atttypid
		 where c.relnamespace = $1::regnamespace
		   and y.typnamespace <> 'pg_catalog'::regnamespace`, schema) {
		t.Error("a column of a type that is not pg_catalog's: ", c)
	}
}

var hostilePaths = map[string]string{
	"empty":                  "",
	"hostile":                "hostile, pg_catalog",
	"hostile, temporary too": "pg_temp, hostile, pg_catalog",
	"hostile alone":          "hostile",
}

// makeTemporary puts doubles into the schema of temporary objects, which comes first for tables and
// types unless the path says otherwise.
func makeTemporary(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	for _, name := range []string{
		"pg_class", "pg_proc", "pg_namespace", "pg_attribute", "pg_type", "pg_roles", "session",
		"session_schema_version", "session_view",
	} {
		exec(t, conn, "create temporary table "+name+" (hostile pg_catalog.int4)")
	}
	for _, name := range []string{
		"text", "bytea", "int2", "int4", "int8", "float8", "bool", "timestamptz", "interval", "jsonb", "json", "name", "oid",
		"tid", "regclass", "regprocedure", "regrole", "inet",
	} {
		exec(t, conn, fmt.Sprintf("create domain pg_temp.%s as pg_catalog.%s check (hostile.refuse_type())", name, name))
	}
}

func TestNoSearchPathReachesTheLibrary(t *testing.T) {
	t.Parallel()
	address := hostileDatabase(t)
	columns := map[string][2]string{"ip": {"10.0.0.1", "::1"}, "tags": {"{a}", "{}"}, "doc": {`{"a": 1}`, "[1, 2]"}, "at": {"2024-02-29", "infinity"}}
	i := 0
	for name, path := range hostilePaths {
		i++
		schema := fmt.Sprintf("store%d", i)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			admin := dial(t, address, nil)
			conn := dial(t, address, nil)
			makeTemporary(t, conn)
			exec(t, conn, "set search_path = "+cmp.Or(path, "''"))
			cfg := pgsession.Config{
				Schema: schema, Cleanup: withoutCleanup,
				Columns: []pgsession.Column{
					{Name: "ip", Type: "inet"}, {Name: "tags", Type: "text[]"}, {Name: "doc", Type: "jsonb"}, {Name: "at", Type: "date"},
				},
			}
			store := setUp(t, conn.Query, cfg)
			must(t, store.Setup(t.Context()))
			expectNoHostileDependency(t, admin, schema)
			expectSame(t, slices.DeleteFunc(objects(t, admin), func(o string) bool { return !strings.Contains(o, schema+".") }),
				slices.DeleteFunc(expectedObjects(schema, func(suffix string) string { return "session" + suffix }),
					func(o string) bool { return !strings.Contains(o, schema+".") }))
			useAll(t, store, columns)

			// Upgrades too, of which each part is installed again.
			exec(t, admin, "drop function "+schema+".session_set")
			must(t, store.Setup(t.Context()))
			more := cfg
			more.Columns = append(more.Columns, pgsession.Column{Name: "n", Type: "int4"})
			store = setUp(t, conn.Query, more)
			expectNoHostileDependency(t, admin, schema)
			columns := map[string][2]string{"n": {"1", "2"}}
			useAll(t, store, columns)

			// What pg_cron calls, and what a DBA looks at.
			_, _, err := store.Create(t.Context(), pgsession.Session{Data: []byte(`{"n": 1}`), Codec: pgsession.CodecJSON})
			must(t, err)
			exec(t, admin, "update "+schema+".session set expires_at = now(), prune_after = now() where revoked_at is not null")
			execAsIs(t, conn, "call "+schema+".session_prune_all()")
			execAsIs(t, conn, "select * from "+schema+".session_view")
			if n := value[int](t, admin, "select count(*) from "+schema+".session where revoked_at is not null"); n != 0 {
				t.Errorf("the procedure left %d rows", n)
			}
		})
	}
}

// execAsIs runs a statement without having its result described, for which drivers need no type.
func execAsIs(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatalf("%v\nin: %s", err, sql)
	}
}

func TestNoSearchPathReachesTheProcedureThatPrunes(t *testing.T) {
	t.Parallel()
	address := hostileDatabase(t)
	admin := dial(t, address, nil)
	store := setUp(t, admin.Query, pgsession.Config{Cleanup: withoutCleanup})
	for range 5 {
		_, _, err := store.Create(t.Context(), pgsession.Session{Data: []byte("1")})
		must(t, err)
	}
	for _, path := range hostilePaths {
		exec(t, admin, "update pgsession.session set expires_at = now(), prune_after = now() where id in (select id from pgsession.session limit 1)")
		conn := dial(t, address, nil)
		makeTemporary(t, conn)
		exec(t, conn, "set search_path = "+cmp.Or(path, "''"))
		execAsIs(t, conn, "call pgsession.session_prune_all(1)")
	}
	if n := value[int](t, admin, "select count(*) from pgsession.session"); n != 5-len(hostilePaths) {
		t.Errorf("%d rows are left of 5, after %d calls for one each", n, len(hostilePaths))
	}
}
