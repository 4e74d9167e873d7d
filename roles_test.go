package pgsession_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// cast is a database with a store in it and one role for each part.
type cast struct {
	superuser                              executor
	owner, app, admin                      string // names
	ownerAddress, appAddress, otherAddress string
	adminAddress, address                  string
	other                                  string
	cfg                                    pgsession.Config
}

// newCast creates the database and the roles, and what the owner needs; nothing is set up.
func newCast(t *testing.T) *cast {
	t.Helper()
	c := &cast{address: pgtest.Database(t)}
	c.superuser = pgtest.Connect(t, c.address)
	c.owner, c.ownerAddress = roleIn(t, c.address, "the-Owner")
	c.app, c.appAddress = roleIn(t, c.address, "the app")
	c.admin, c.adminAddress = roleIn(t, c.address, "the", "admin")
	c.other, c.otherAddress = roleIn(t, c.address, "other")
	exec(t, c.superuser, fmt.Sprintf("grant create on database %s to %s",
		value[string](t, c.superuser, "select quote_ident(current_database())"), identifier(c.owner)))
	c.cfg = pgsession.Config{
		AppRole: c.app, AdminRole: c.admin, Columns: []pgsession.Column{{Name: "ip", Type: "inet"}}, Cleanup: withoutCleanup,
	}
	return c
}

var castColumns = map[string][2]string{"ip": {"10.0.0.1", "::1"}}

// expectDenied fails the test unless the error is PostgreSQL's "permission denied".
func expectDenied(t *testing.T, what string, err error) {
	t.Helper()
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != "42501" || !strings.Contains(e.Message, "permission denied") {
		t.Errorf("%s: err = %v, want permission denied", what, err)
	}
}

func TestEachRoleMayDoItsPartAndNoMore(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	owner := setUp(t, pgtest.Connect(t, c.ownerAddress).Query, c.cfg)
	app, admin, other := dial(t, c.appAddress, nil), dial(t, c.adminAddress, nil), dial(t, c.otherAddress, nil)

	useAll(t, owner, castColumns)
	// Each boots with Setup, which finds all in place.
	appStore := setUp(t, app.Query, c.cfg)
	useAsRequest(t, appStore, castColumns)
	token, session, err := appStore.Create(t.Context(), pgsession.Session{Subject: "ada", Codec: pgsession.CodecJSON, Data: []byte(`{"n": 1}`)})
	must(t, err)
	adminStore := setUp(t, admin.Query, c.cfg)
	if n := value[int](t, admin, "select (data ->> 'n')::int4 from pgsession.session_view where id = $1", string(session.ID)); n != 1 {
		t.Errorf("the view shows %d", n)
	}
	_, _, err = appStore.Create(t.Context(), pgsession.Session{Data: []byte("1")})
	must(t, err)

	ctx := t.Context()
	for _, err = range appStore.All(ctx, pgsession.Filter{}) {
		break
	}
	expectDenied(t, "All by the app", err)
	_, err = appStore.Count(ctx, pgsession.Filter{})
	expectDenied(t, "Count by the app", err)
	more := c.cfg
	more.Columns = append(more.Columns, pgsession.Column{Name: "country", Type: "text"})
	err = storeOf(t, app.Query, more).Setup(ctx)
	expectProblems(t, err, `promoted column "country" is missing`)
	expectDenied(t, "Setup by the app of what is not there", err)
	_, err = appStore.Clear(ctx)
	expectDenied(t, "Clear by the app", err)
	_, err = appStore.Revoke(ctx, pgsession.Revocation{Everyone: true})
	expectDenied(t, "Revoke of everyone by the app", err)
	_, err = appStore.Prune(ctx)
	expectDenied(t, "Prune by the app", err)
	_, _, err = adminStore.Create(ctx, pgsession.Session{Data: []byte("1")})
	expectDenied(t, "Create by the admin", err)
	_, err = adminStore.Get(ctx, token)
	expectDenied(t, "Get by the admin", err)
	_, err = adminStore.Touch(ctx, token)
	expectDenied(t, "Touch by the admin", err)
	_, _, err = adminStore.Renew(ctx, token, pgsession.Renewal{})
	expectDenied(t, "Renew by the admin", err)
	_, err = adminStore.Patch(ctx, token, []byte(`{}`))
	expectDenied(t, "Patch by the admin", err)
	_, err = adminStore.Destroy(ctx, token)
	expectDenied(t, "Destroy by the admin", err)

	// What is nobody's, in plain SQL.
	for who, conn := range map[string]*pgx.Conn{"app": app, "admin": admin, "other": other} {
		for _, statement := range []string{
			"select id from pgsession.session",
			"select count(*) from pgsession.session",
			"insert into pgsession.session (id) values ('x')",
			"update pgsession.session set data = null",
			"delete from pgsession.session",
			"truncate pgsession.session",
			"select version from pgsession.session_schema_version",
			"update pgsession.session_schema_version set version = 99",
			"select nonce from pgsession.session_beat",
			"update pgsession.session_beat set at = now()",
			"select ran_at from pgsession.session_cleanup",
			"update pgsession.session_cleanup set hooked_at = null",
			"select audited from pgsession.session_audit",
			"update pgsession.session_audit set audited = false",
			"select kind from pgsession.session_events",
			"insert into pgsession.session_events (kind) values ('revoked')",
			"update pgsession.session_events set actor = 'nobody'",
			"delete from pgsession.session_events",
			"truncate pgsession.session_events",
			"select nextval('pgsession.session_events_seq_seq')",
			"select pgsession.session_audit(false)",
			"select pgsession.session_lock(array['x'], null, 1, false)",
			"select pgsession.session_admit('ada', 'x', 1, 'reject', 300, 5, false)",
			"select pgsession.session_disown('x', 1)",
			"select pgsession.session_merge('{}', '{}')",
			"select pgsession.session_reap('{x}', '{1}')",
			"select pgsession.session_settle()",
			"select pgsession.session_successor('x', null)",
			`select pgsession.session_publish('changed', '{"x":1}')`,
			"create table pgsession.mine ()",
			"create function pgsession.mine() returns int4 language sql as 'select 1'",
		} {
			_, err := conn.Exec(ctx, statement)
			expectDenied(t, who+": "+statement, err)
		}
		var kept *pgconn.PgError
		for _, statement := range []string{
			"drop table pgsession.session", "drop function pgsession.session_get",
			"alter function pgsession.session_get security invoker", "alter view pgsession.session_view owner to current_user",
			"comment on schema pgsession is ''",
		} {
			if _, err := conn.Exec(ctx, statement); !errors.As(err, &kept) || kept.Code != "42501" {
				t.Errorf("%s: %s: err = %v", who, statement, err)
			}
		}
		// GRANT of what one may not pass on can be a mere warning.
		for _, object := range []string{"table pgsession.session", "table pgsession.session_view", "all functions in schema pgsession"} {
			_, _ = conn.Exec(ctx, "grant all on "+object+" to public")
		}
		expectSame(t, privileges(t, c.superuser), wantPrivileges(c.app, c.admin))
	}
	for _, statement := range []string{
		"select * from pgsession.session_view", "select pgsession.session_json('{}')",
		"select * from pgsession.session_list_all()", "call pgsession.session_prune_all()",
		"select pgsession.session_hook()", "select * from pgsession.session_events()", "select pgsession.session_prune_events()",
	} {
		_, err := app.Exec(ctx, statement)
		expectDenied(t, "app: "+statement, err)
	}
	useAsAdmin(t, adminStore)
	execAsIs(t, admin, "call pgsession.session_prune_all()")

	// And a stranger has nothing at all.
	for _, f := range column[string](t, c.superuser, `
		select p.oid::regprocedure::text from pg_proc as p
		 where p.pronamespace = 'pgsession'::regnamespace
		   and has_function_privilege($1, p.oid, 'execute')`, c.other) {
		t.Errorf("whoever may execute %s", f)
	}
}

// privileges are what each role was granted on the objects of the schema, owners apart.
func privileges(t *testing.T, db executor) []string {
	t.Helper()
	return column[string](t, db, `
		with acls as (
		    select 'schema' as object, n.nspacl as acl, n.nspowner as owner from pg_namespace as n where n.nspname = 'pgsession'
		     union all
		    select c.relname, c.relacl, c.relowner from pg_class as c where c.relnamespace = 'pgsession'::regnamespace
		     union all
		    select p.proname, coalesce(p.proacl, acldefault('f', p.proowner)), p.proowner
		      from pg_proc as p where p.pronamespace = 'pgsession'::regnamespace
		     union all
		    select c.relname || '.' || a.attname, a.attacl, c.relowner
		      from pg_attribute as a join pg_class as c on c.oid = a.attrelid
		     where c.relnamespace = 'pgsession'::regnamespace
		)
		select concat_ws(' ', case when a.grantee = 0 then 'PUBLIC' else pg_get_userbyid(a.grantee) end,
		                 a.privilege_type, l.object, case when a.is_grantable then 'grantable' end)
		  from acls as l
		 cross join lateral aclexplode(l.acl) as a
		 where a.grantee <> l.owner`)
}

// wantPrivileges are those that Setup grants.
func wantPrivileges(app, admin string) (want []string) {
	for _, f := range []string{
		"get", "set", "patch", "touch", "renew", "destroy", "revoke", "list", "count", "notify", "beat", "schema_version",
		"cleanup_status", "reused", "audit_status",
	} {
		want = append(want, app+" EXECUTE session_"+f)
	}
	for _, f := range []string{
		"list", "list_all", "count", "count_all", "revoke", "revoke_all", "clear", "prune", "prune_all", "schema_version", "json", "beat",
		"claim", "confirm", "hook", "cleanup_job", "cleanup_status", "prune_events", "events", "audit_status",
	} {
		want = append(want, admin+" EXECUTE session_"+f)
	}
	return append(want, app+" USAGE schema", admin+" USAGE schema", admin+" SELECT session_view")
}

func TestDefaultPrivilegesAreUndoneOnNewObjects(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	for _, scope := range []string{"", " in schema pgsession"} {
		for _, what := range []string{"all on tables", "all on sequences", "execute on functions", "all on types"} {
			for _, to := range []string{identifier(c.other), "public"} {
				if scope == "" {
					exec(t, c.superuser, fmt.Sprintf("alter default privileges for role %s grant %s to %s", identifier(c.owner), what, to))
					continue
				}
				exec(t, c.superuser, "create schema if not exists pgsession authorization "+identifier(c.owner))
				exec(t, c.superuser, fmt.Sprintf("alter default privileges for role %s%s grant %s to %s with grant option",
					identifier(c.owner), scope, what, identifier(c.other)))
			}
		}
	}
	owner := pgtest.Connect(t, c.ownerAddress)
	store := setUp(t, owner.Query, c.cfg)
	expectSame(t, privileges(t, c.superuser), wantPrivileges(c.app, c.admin))

	// Also on what a later Setup adds.
	for _, damage := range []string{
		"drop function pgsession.session_get", "drop view pgsession.session_view",
		"drop table pgsession.session_schema_version", "drop procedure pgsession.session_prune_all",
	} {
		exec(t, owner, damage)
	}
	must(t, store.Setup(t.Context()))
	expectSame(t, privileges(t, c.superuser), wantPrivileges(c.app, c.admin))
}

func TestWhatTheDBAGrantsLaterSurvivesAnUpgrade(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	owner := pgtest.Connect(t, c.ownerAddress)
	store := setUp(t, owner.Query, c.cfg)
	exec(t, owner, "grant usage on schema pgsession to "+identifier(c.other))
	exec(t, owner, "grant execute on function pgsession.session_get, pgsession.session_count_all to "+identifier(c.other))
	exec(t, owner, "grant select on pgsession.session_view to "+identifier(c.other))
	exec(t, owner, "grant select (id) on pgsession.session to "+identifier(c.other))
	exec(t, owner, "drop function pgsession.session_touch")
	must(t, store.Setup(t.Context()))
	more := c.cfg
	more.Columns = append(more.Columns, pgsession.Column{Name: "country", Type: "text"})
	setUp(t, owner.Query, more)
	expectSame(t, privileges(t, c.superuser), append(
		wantPrivileges(c.app, c.admin),
		c.other+" USAGE schema", c.other+" EXECUTE session_get", c.other+" EXECUTE session_count_all",
		c.other+" SELECT session_view", c.other+" SELECT session.id",
	))
}

func TestSetupClosesWhatARestoreWithoutPrivilegesOpened(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	owner := pgtest.Connect(t, c.ownerAddress)
	setUp(t, owner.Query, c.cfg)
	// As after pg_restore --no-acl: PostgreSQL's defaults, by which everyone may execute functions.
	for _, f := range column[string](t, owner, "select oid::regprocedure::text from pg_proc where pronamespace = 'pgsession'::regnamespace") {
		exec(t, owner, "grant execute on routine "+f+" to public")
		exec(t, owner, fmt.Sprintf("revoke all on routine %s from %s, %s", f, identifier(c.app), identifier(c.admin)))
	}
	setUp(t, owner.Query, c.cfg)
	expectSame(t, privileges(t, c.superuser), wantPrivileges(c.app, c.admin))

	// One is enough to be noticed, also by those who can only say so.
	exec(t, owner, "grant execute on function pgsession.session_clear to public")
	check := c.cfg
	check.SkipMigrate = true
	expectProblems(t, storeOf(t, owner.Query, check).Setup(t.Context()), `PUBLIC|"session_clear"`)
	setUp(t, owner.Query, c.cfg)
	expectSame(t, privileges(t, c.superuser), wantPrivileges(c.app, c.admin))
}

func TestAMissingRoleIsNamed(t *testing.T) {
	t.Parallel()
	pool := pgtest.Connect(t, pgtest.Database(t))
	for _, c := range []struct {
		cfg  pgsession.Config
		want []string
	}{
		{pgsession.Config{AppRole: "no app"}, []string{`"no app"|Config.AppRole`}},
		{pgsession.Config{AdminRole: `no "admin"`}, []string{`no \"admin\"|Config.AdminRole`}},
		{pgsession.Config{Owner: "no owner"}, []string{`"no owner"|Config.Owner`}},
		{pgsession.Config{Owner: "public", AppRole: "public", AdminRole: "none"}, []string{"Config.Owner", "Config.AppRole", "Config.AdminRole"}},
	} {
		want := append(c.want, `the schema "pgsession" is missing`)
		expectProblems(t, storeOf(t, pool.Query, c.cfg).Setup(t.Context()), want...)
	}
	if got := objects(t, pool); len(got) > 0 {
		t.Errorf("there is %q", got)
	}
}

func TestARoleThatCannotCreateIsToldWhatIsMissingAndWhy(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	cfg := pgsession.Config{Cleanup: withoutCleanup}
	store := storeOf(t, dial(t, c.otherAddress, nil).Query, cfg)
	check := func(name string, want ...string) {
		t.Helper()
		err := store.Setup(t.Context())
		e := schemaErrorOf(t, err)
		var cause *pgconn.PgError
		if !errors.As(e.Err, &cause) || cause.Code != "42501" {
			t.Errorf("%s: the cause is %v, want permission denied", name, e.Err)
		}
		expectProblems(t, err, want...)
	}
	check("no right to create a schema", `the schema "pgsession" is missing`)
	exec(t, c.superuser, "create schema pgsession")
	check("no right to use the schema", `no USAGE on the schema "pgsession"`)
	exec(t, c.superuser, "grant usage on schema pgsession to "+identifier(c.other))
	parts := []string{
		`the table "session" is missing`, `the table "session_beat" is missing`, `the table "session_cleanup" is missing`, `the view "session_view" is missing`,
		`the table "session_audit" is missing`, `the table "session_events" is missing`,
		`the type "session_result" is missing`,
	}
	for _, f := range []string{
		"admit", "audit", "audit_status", "beat", "claim", "cleanup_job", "cleanup_status", "clear", "confirm", "count", "count_all",
		"destroy", "disown", "events", "get", "hook", "json", "list", "list_all", "lock", "merge", "notify", "patch", "prune", "prune_all",
		"prune_events", "publish", "reap", "renew", "reused", "revoke", "revoke_all", "schema_version", "set", "settle", "successor", "touch",
	} {
		parts = append(parts, fmt.Sprintf("the function %q is missing", "session_"+f))
	}
	check("no right to create in the schema", parts...)

	setUp(t, pgtest.Connect(t, c.address).Query, cfg)
	exec(t, c.superuser, "drop function pgsession.session_touch")
	exec(t, c.superuser, "grant execute on all functions in schema pgsession to "+identifier(c.other))
	check("not the owner", `the function "session_touch" is missing`)
}

// logs keeps what is logged.
type logs struct {
	mu      sync.Mutex
	records []slog.Record
}

func (l *logs) Enabled(context.Context, slog.Level) bool { return true }
func (l *logs) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logs) WithGroup(string) slog.Handler            { return l }

func (l *logs) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, r)
	return nil
}

func (l *logs) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.records)
}

func TestTheTickerOfARoleThatMayNotPruneLogsOnceAndTriesRarely(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	setUp(t, dial(t, c.ownerAddress, nil).Query, c.cfg)
	log := &logs{}
	cfg := c.cfg
	cfg.Logger = slog.New(log)
	cfg.Cleanup = pgsession.Cleanup{Mode: pgsession.CleanupTicker, Interval: time.Millisecond}
	cfg.Cache.Mode = pgsession.CacheOff // of which it would speak
	pool := pgtest.Connect(t, c.appAddress)
	var mu sync.Mutex
	prunes := 0
	store := storeOf(t, func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
		if strings.Contains(sql, `_prune"(`) {
			mu.Lock()
			prunes++
			mu.Unlock()
		}
		return pool.Query(ctx, sql, args...)
	}, cfg)
	must(t, store.Setup(t.Context()))
	eventually(t, "the ticker says that it leaves", func() bool { return len(log.with("may not prune")) > 0 })
	eventually(t, "it comes again", func() bool { return store.Stats().PrunesFailed > 2 })
	// The store goes on.
	for range 20 {
		useAsRequest(t, store, castColumns)
	}
	must(t, store.Close())
	mu.Lock()
	defer mu.Unlock()
	records := log.with("may not prune")
	if len(records) != 1 || prunes < 3 || records[0].Level != slog.LevelWarn {
		t.Errorf("%d prunes were tried, and logged: %v", prunes, records)
	}
}
