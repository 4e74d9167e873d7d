package pgsession_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// ternLock is the advisory lock that tern and Setup take while they change a schema.
const ternLock = 9628173550095224

// storeOf is New with a logger that says nothing, closed when the test ends.
func storeOf(t *testing.T, query pgsession.QueryFunc, cfg pgsession.Config) *pgsession.Store {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	store, err := pgsession.New(query, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

// dial opens one connection, with settings given at its start, closed when the test ends.
func dial(t *testing.T, url string, settings map[string]string) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(config.RuntimeParams, settings)
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// executor is a pool, a connection or a transaction.
type executor interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// exec runs a statement for the test itself.
func exec(t *testing.T, db executor, sql string, args ...any) {
	t.Helper()
	if _, err := db.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%v\nin: %.500s", err, sql)
	}
}

// column reads the only column of a query's rows.
func column[T any](t *testing.T, db executor, sql string, args ...any) []T {
	t.Helper()
	rows, err := db.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatalf("%v\nin: %.500s", err, sql)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("%v\nin: %.500s", err, sql)
	}
	return values
}

// value reads the only value of a query.
func value[T any](t *testing.T, db executor, sql string, args ...any) T {
	t.Helper()
	values := column[T](t, db, sql, args...)
	if len(values) != 1 {
		t.Fatalf("%d rows instead of one\nof: %.500s", len(values), sql)
	}
	return values[0]
}

// identifier quotes a name, or a qualified one.
func identifier(names ...string) string { return pgx.Identifier(names).Sanitize() }

// schemaErrorOf fails the test unless err is a SchemaError that says that the store is not set up.
func schemaErrorOf(t *testing.T, err error) *pgsession.SchemaError {
	t.Helper()
	var schemaError *pgsession.SchemaError
	if !errors.As(err, &schemaError) {
		t.Fatalf("err = %v, want a SchemaError", err)
	}
	if !errors.Is(err, pgsession.ErrNotSetUp) {
		t.Errorf("the SchemaError is not ErrNotSetUp: %v", err)
	}
	return schemaError
}

// expectProblems fails the test unless there is one problem for each of want, all of whose words it
// holds, and no other. Words are separated by "|".
func expectProblems(t *testing.T, err error, want ...string) {
	t.Helper()
	problems := schemaErrorOf(t, err).Problems
	left := slices.Clone(problems)
	for _, words := range want {
		i := slices.IndexFunc(left, func(problem string) bool {
			for word := range strings.SplitSeq(words, "|") {
				if !strings.Contains(problem, word) {
					return false
				}
			}
			return true
		})
		if i < 0 {
			t.Errorf("no problem says %q", words)
			continue
		}
		left = slices.Delete(left, i, i+1)
	}
	if len(left) > 0 {
		t.Errorf("problems that nothing caused: %q", left)
	}
	if t.Failed() {
		t.Logf("the problems are:\n%s", strings.Join(problems, "\n"))
	}
}

// objectsSQL names every object of the database that is not PostgreSQL's own, with the transaction
// that wrote it: replacing an object shows.
const objectsSQL = `
	select i.type || ' ' || replace(i.identity, 'pg_catalog.', '') as name, o.xmin::text as writer
	  from (
	    select 'pg_namespace'::regclass as class, oid, xmin from pg_namespace
	     union all
	    select 'pg_class'::regclass, oid, xmin from pg_class
	     union all
	    select 'pg_proc'::regclass, oid, xmin from pg_proc
	     union all
	    -- The types of rows come with their tables, those of arrays with their elements.
	    select 'pg_type'::regclass, oid, xmin from pg_type where typrelid = 0 and typcategory <> 'A'
	     union all
	    -- From PostgreSQL 18 on NOT NULL is a constraint.
	    select 'pg_constraint'::regclass, oid, xmin from pg_constraint where contype <> 'n'
	     union all
	    select 'pg_trigger'::regclass, oid, xmin from pg_trigger
	     union all
	    select 'pg_event_trigger'::regclass, oid, xmin from pg_event_trigger
	     union all
	    select 'pg_operator'::regclass, oid, xmin from pg_operator
	     union all
	    select 'pg_cast'::regclass, oid, xmin from pg_cast
	     union all
	    select 'pg_rewrite'::regclass, oid, xmin from pg_rewrite
	     union all
	    select 'pg_policy'::regclass, oid, xmin from pg_policy
	     union all
	    select 'pg_attrdef'::regclass, oid, xmin from pg_attrdef
	     union all
	    select 'pg_default_acl'::regclass, oid, xmin from pg_default_acl
	     union all
	    select 'pg_extension'::regclass, oid, xmin from pg_extension
	     union all
	    select 'pg_collation'::regclass, oid, xmin from pg_collation
	     union all
	    select 'pg_statistic_ext'::regclass, oid, xmin from pg_statistic_ext
	  ) as o
	 cross join lateral pg_identify_object(o.class, o.oid, 0) as i
	 where o.oid >= 16384 -- FirstNormalObjectId
	   and i.schema is distinct from 'pg_toast'`

// objects lists what a database of the test's own holds.
func objects(t *testing.T, db executor) []string {
	t.Helper()
	// One that another test drops meanwhile has no name any more.
	return column[string](t, db, `select name from (`+objectsSQL+`) as o where name is not null`)
}

// fingerprint lists what a database holds and who wrote it.
func fingerprint(t *testing.T, db executor) []string {
	t.Helper()
	return column[string](t, db, `select name || ' of ' || writer from (`+objectsSQL+`) as o`)
}

// expectSame compares two lists as sets.
func expectSame(t *testing.T, got, want []string) {
	t.Helper()
	for _, s := range got {
		if !slices.Contains(want, s) {
			t.Errorf("too much:  %s", s)
		}
	}
	for _, s := range want {
		if !slices.Contains(got, s) {
			t.Errorf("missing:   %s", s)
		}
	}
}

// expectedObjects are what Setup creates; schema and table as they are written in SQL, with and
// without the quotes that they need.
func expectedObjects(schema string, name func(suffix string) string) []string {
	in := func(kind, suffix string) string { return kind + " " + schema + "." + name(suffix) }
	function := func(suffix, args string) string { return in("function", suffix) + "(" + args + ")" }
	list := []string{
		"schema " + schema,
		in("table", ""),
		"table constraint " + name("_pkey") + " on " + schema + "." + name(""),
		"table constraint " + name("_data_check") + " on " + schema + "." + name(""),
		"table constraint " + name("_finite_check") + " on " + schema + "." + name(""),
		in("index", "_pkey"),
		in("index", "_prune_after_idx"),
		in("index", "_subject_idx"),
		in("index", "_renewed_to_idx"),
		in("table", "_schema_version"),
		"table constraint " + name("_schema_version_pkey") + " on " + schema + "." + name("_schema_version"),
		in("index", "_schema_version_pkey"),
		in("table", "_beat"),
		"table constraint " + name("_beat_pkey") + " on " + schema + "." + name("_beat"),
		"table constraint " + name("_beat_one_check") + " on " + schema + "." + name("_beat"),
		"default value for " + schema + "." + name("_beat") + ".one",
		in("index", "_beat_pkey"),
		in("table", "_cleanup"),
		"table constraint " + name("_cleanup_pkey") + " on " + schema + "." + name("_cleanup"),
		"table constraint " + name("_cleanup_check") + " on " + schema + "." + name("_cleanup"),
		"default value for " + schema + "." + name("_cleanup") + ".one",
		"default value for " + schema + "." + name("_cleanup") + ".deleted",
		in("index", "_cleanup_pkey"),
		in("table", "_audit"),
		"table constraint " + name("_audit_pkey") + " on " + schema + "." + name("_audit"),
		"table constraint " + name("_audit_check") + " on " + schema + "." + name("_audit"),
		"default value for " + schema + "." + name("_audit") + ".one",
		in("index", "_audit_pkey"),
		in("table", "_events"),
		"table constraint " + name("_events_pkey") + " on " + schema + "." + name("_events"),
		"default value for " + schema + "." + name("_events") + ".at",
		in("index", "_events_pkey"),
		in("index", "_events_id_idx"),
		in("index", "_events_sub_idx"),
		in("sequence", "_events_seq_seq"),
		in("view", "_view"),
		in("composite type", "_result"),
		`rule "_RETURN" on ` + schema + "." + name("_view"),
		function("_audit", "boolean,double precision"),
		function("_audit_status", ""),
		function("_events", "text,text,text,timestamp with time zone,timestamp with time zone,"+
			"timestamp with time zone,bigint,integer"),
		function("_prune_events", "integer,timestamp with time zone"),
		function("_reused", "text"),
		function("_beat", "double precision,boolean"),
		function("_claim", "integer,timestamp with time zone,boolean,bigint,double precision,bigint"),
		function("_cleanup_job", "text,text,double precision"),
		function("_cleanup_status", "integer"),
		function("_confirm", "text,boolean,boolean"),
		function("_clear", "double precision,text,integer,text,text,text"),
		function("_count", "text,text"),
		function("_count_all", "text"),
		function("_destroy", "text,double precision,double precision,text"),
		function("_disown", "text,double precision"),
		function("_get", "text"),
		function("_hook", "boolean"),
		function("_json", "bytea"),
		function("_list", "text,text,text,integer,bigint"),
		function("_list_all", "text,text,integer,bigint"),
		function("_admit", "text,text,integer,text,double precision,double precision,boolean"),
		function("_lock", "text[],text,double precision,boolean,boolean"),
		function("_merge", "jsonb,jsonb"),
		function("_patch", "text,text,integer,double precision,double precision,boolean,text,boolean"),
		function("_renew", "text,text,text,double precision,double precision,double precision,double precision,integer,text,"+
			"text,bytea,integer,bigint,boolean"),
		function("_successor", "text,text"),
		function("_notify", "text,boolean"),
		function("_prune", "integer,timestamp with time zone,boolean,bigint,boolean"),
		in("procedure", "_prune_all") + "(integer)",
		function("_publish", "text,jsonb"),
		function("_reap", "text[],bigint[]"),
		function("_settle", ""),
		function("_revoke", "text,text,text,double precision,integer,text,text,text"),
		function("_revoke_all", "text,text,text,double precision,integer,text,text"),
		function("_schema_version", ""),
		function("_set", "text,bytea,integer,text,text,double precision,double precision,double precision,"+
			"double precision,double precision,bigint,text,double precision,boolean,integer,text,double precision,boolean"),
		function("_touch", "text,double precision,text,double precision,boolean"),
	}
	slices.Sort(list)
	return list
}

func TestSetupCreatesExactlyTheNamedObjects(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		cfg    pgsession.Config
		schema string
		object func(suffix string) string
	}{
		{"by default", pgsession.Config{}, "pgsession", func(suffix string) string { return "session" + suffix }},
		{
			"as named",
			pgsession.Config{Schema: `My "odd" Schema`, Table: "a.b", Columns: []pgsession.Column{{Name: "ip", Type: "inet"}}},
			`"My ""odd"" Schema"`,
			func(suffix string) string { return `"a.b` + suffix + `"` },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Connect(t, pgtest.Database(t))
			before := objects(t, pool)
			setUp(t, pool.Query, c.cfg)
			expectSame(t, objects(t, pool), append(expectedObjects(c.schema, c.object), before...))
			if n := value[int](t, pool, fmt.Sprintf("select version from %s.%s", c.schema, c.object("_schema_version"))); n != migrationCount(t) {
				t.Errorf("the version table says %d, want %d", n, migrationCount(t))
			}
		})
	}
}

func TestSkipMigrateCreatesNothingAndListsWhatIsMissing(t *testing.T) {
	t.Parallel()
	pool := pgtest.Connect(t, pgtest.Database(t))
	cfg := pgsession.Config{SkipMigrate: true, Columns: []pgsession.Column{{Name: "ip", Type: "inet"}}}
	all := []string{
		`the table "session" is missing`, `promoted column "ip" is missing`, `the table "session_beat" is missing`, `the table "session_cleanup" is missing`,
		`the table "session_audit" is missing`, `the table "session_events" is missing`,
		`the view "session_view" is missing`, `the type "session_result" is missing`,
	}
	for _, f := range []string{
		"admit", "audit", "audit_status", "beat", "claim", "cleanup_job", "cleanup_status", "clear", "confirm", "count", "count_all",
		"destroy", "disown", "events", "get", "hook", "json", "list", "list_all", "lock", "merge", "notify", "patch", "prune", "prune_all",
		"prune_events", "publish", "reap", "renew", "reused", "revoke", "revoke_all", "schema_version", "set", "settle", "successor", "touch",
	} {
		all = append(all, fmt.Sprintf("function %q is missing", "session_"+f))
	}
	promoted := pgsession.Config{Columns: cfg.Columns}
	for _, c := range []struct {
		name   string
		there  *pgsession.Config // set up first
		before string
		cfg    pgsession.Config
		want   []string
	}{
		{"an empty database", nil, "", cfg, []string{`the schema "pgsession" is missing`}},
		{"an empty schema", nil, "create schema pgsession", cfg, all},
		{"another store in the schema", &pgsession.Config{Table: "session_b"}, "", cfg, all},
		{"no type", &promoted, "drop type pgsession.session_result cascade", cfg, []string{
			`the type "session_result" is missing`, `function "session_get" is missing`, `function "session_set" is missing`,
			`function "session_patch" is missing`,
			`function "session_renew" is missing`,
		}},
		{"no view", &promoted, "drop view pgsession.session_view", cfg, []string{`the view "session_view" is missing`}},
		{"no table", &promoted, "drop table pgsession.session cascade", cfg, []string{
			`the table "session" is missing`, `promoted column "ip" is missing`, `the view "session_view" is missing`,
		}},
		{"a function less", &promoted, "drop function pgsession.session_touch", cfg, []string{`function "session_touch" is missing`}},
		{
			"no procedure", &promoted, "drop procedure pgsession.session_prune_all", cfg,
			[]string{`function "session_prune_all" is missing`},
		},
		{
			"no version function", &promoted, "drop function pgsession.session_schema_version",
			pgsession.Config{SkipMigrate: true},
			[]string{`function "session_schema_version" is missing`},
		},
		{
			"no functions", &promoted, `do $$ declare f regprocedure; begin
			   drop view pgsession.session_view;
			   for f in select oid from pg_proc where pronamespace = 'pgsession'::regnamespace loop
			     execute format('drop routine %s', f);
			   end loop;
			   drop type pgsession.session_result; end $$`, pgsession.Config{SkipMigrate: true}, all[6:],
		},
		{"a promoted column", &pgsession.Config{}, "", cfg, []string{`promoted column "ip" is missing`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inTransaction(t, pool, func(tx pgx.Tx) {
				if c.there != nil {
					there := *c.there
					there.Cleanup.Mode = pgsession.CleanupOff
					setUp(t, tx.Query, there)
				}
				if c.before != "" {
					exec(t, tx, c.before)
				}
				before := fingerprint(t, tx)
				err := storeOf(t, tx.Query, c.cfg).Setup(t.Context())
				expectProblems(t, err, c.want...)
				if schemaErrorOf(t, err).Err != nil {
					t.Errorf("nothing was tried, and yet it failed: %v", err)
				}
				expectSame(t, fingerprint(t, tx), before)
			})
		})
	}

	t.Run("nothing is missing", func(t *testing.T) {
		setUp(t, pool.Query, pgsession.Config{Columns: cfg.Columns})
		store := storeOf(t, pool.Query, cfg)
		if err := store.Setup(t.Context()); err != nil {
			t.Error(err)
		}
		useAll(t, store, map[string][2]string{"ip": {"10.0.0.1", "::1"}})
	})
}

// What Setup hands over and Check looks at is what install.sql installs: each function is missed.
func TestEveryInstalledFunctionIsMissedWhereItIsGone(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	names := column[string](t, w.admin, w.fill("select distinct p.proname::text from pg_proc as p where p.pronamespace = '{schema}'::regnamespace"))
	w.exec(t, `
		do $$
		declare v_function text;
		begin
			for v_function in select p.oid::regprocedure from pg_proc as p where p.pronamespace = '{schema}'::regnamespace loop
				execute 'drop routine ' || v_function || ' cascade';
			end loop;
		end $$`)
	store, err := pgsession.New(w.query, pgsession.Config{Schema: w.schema, SkipMigrate: true})
	must(t, err)
	err = store.Setup(t.Context())
	for _, name := range names {
		wantText(t, err, name)
	}
}
