package pgsession_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/tern/v2/migrate"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// migrationCount is the number of the newest migration.
func migrationCount(t *testing.T) int {
	t.Helper()
	files, err := filepath.Glob("migrations/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d migrations, %v", len(files), err)
	}
	return len(files)
}

// rowsOf1 are the rows as they have been since migration 1.
const rowsOf1 = `insert into pgsession.session (
	        version, created_at, expires_at, absolute_expires_at, prune_after, revoked_at, idle_timeout,
	        codec, id, subject, renewed_to, data)
	    values
	        (7, now() - interval '1 h', now() + interval '1 h', now() + interval '9 h', now(), null, '2 h', 1, $1, 'ada', null, '{"n": 1}'),
	        (8, now() - interval '9 h', now() - interval '1 h', null, now(), null, '8 h', 0, 'dead', null, null, ''),
	        (9, now() - interval '9 h', now() + interval '1 h', null, now(), now(), null, 0, 'tombstone', 'ada', 'live', null)`

// rowsOf are, for each migration, statements that write three rows as the functions of that time did:
// a live session of the token "live", a dead one and a tombstone.
var rowsOf = map[int]string{1: rowsOf1, 2: rowsOf1, 3: rowsOf1, 4: rowsOf1}

// dump is the table's rows, of the columns that migration 1 made.
func dump(t *testing.T, db executor) []string {
	t.Helper()
	return column[string](t, db, `
		select row(version, created_at, expires_at, absolute_expires_at, revoked_at, idle_timeout, codec, id, subject,
		           renewed_to, data)::text
		  from pgsession.session order by id`)
}

// expectLive reads the live session of rowsOf.
func expectLive(t *testing.T, store *pgsession.Store) {
	t.Helper()
	session, err := store.Get(t.Context(), "live")
	if err != nil || string(session.Data) != `{"n": 1}` || session.Subject != "ada" || session.Version != 7 ||
		session.Codec != pgsession.CodecJSON {
		t.Errorf("the session from before is %+v, %v", session, err)
	}
}

// migrator is tern's own executor of migrations/.
func migrator(t *testing.T, conn *pgx.Conn, versionTable string, data map[string]any) *migrate.Migrator {
	t.Helper()
	m, err := migrate.NewMigrator(t.Context(), conn, versionTable)
	must(t, err)
	maps.Copy(m.Data, data)
	must(t, m.LoadMigrations(os.DirFS("migrations")))
	return m
}

func TestSetupUpgradesFromEveryMigrationWithNothingLost(t *testing.T) {
	t.Parallel()
	for version := range migrationCount(t) + 1 {
		t.Run(strconv.Itoa(version), func(t *testing.T) {
			t.Parallel()
			address := pgtest.Database(t)
			conn := dial(t, address, nil)
			exec(t, conn, "create schema pgsession")
			must(t, migrator(t, conn, "pgsession.session_schema_version", nil).MigrateTo(t.Context(), int32(version)))
			store := storeOf(t, conn.Query, pgsession.Config{Cleanup: withoutCleanup})
			var before []string
			if version > 0 {
				insert, ok := rowsOf[version]
				if !ok {
					t.Fatalf("rowsOf has no rows as they were at migration %d", version)
				}
				id, err := store.ID("live")
				must(t, err)
				exec(t, conn, insert, string(id))
				before = dump(t, conn)
			}
			must(t, store.Setup(t.Context()))
			expectSame(t, objects(t, conn), expectedObjects("pgsession", func(suffix string) string { return "session" + suffix }))
			if version > 0 {
				if after := dump(t, conn); !slices.Equal(after, before) {
					t.Errorf("the rows were\n%s\nand are\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
				}
				expectLive(t, store)
			}
			if n := value[int](t, conn, "select version from pgsession.session_schema_version"); n != migrationCount(t) {
				t.Errorf("the version table says %d", n)
			}
			useAll(t, store, nil)
		})
	}
}

func TestSetupMendsWhatIsGoneWithNothingLost(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	admin := pgtest.Connect(t, address)
	app, _ := roleIn(t, address)
	adminRole, _ := roleIn(t, address)
	cfg := pgsession.Config{
		Columns: []pgsession.Column{{Name: "ip", Type: "inet"}}, AppRole: app, AdminRole: adminRole, Cleanup: withoutCleanup,
	}
	store := setUp(t, admin.Query, cfg)
	id, err := store.ID("live")
	must(t, err)
	exec(t, admin, rowsOf[migrationCount(t)], string(id))
	want := objects(t, admin)
	rows := dump(t, admin)
	grantsSQL := `
		select concat_ws(' ', p.oid::regprocedure, p.proacl) from pg_proc as p where p.pronamespace = 'pgsession'::regnamespace
		 union all
		select concat_ws(' ', c.oid::regclass, c.relacl) from pg_class as c where c.relnamespace = 'pgsession'::regnamespace`
	grants := column[string](t, admin, grantsSQL)

	damages := map[string]string{
		"all functions and the view": `
			do $$ declare f regprocedure; begin
			    drop view pgsession.session_view;
			    for f in select oid from pg_proc where pronamespace = 'pgsession'::regnamespace loop
			        execute format('drop routine %s', f);
			    end loop;
			end $$`,
		"the view":                         "drop view pgsession.session_view",
		"the record of functions":          "drop function pgsession.session_schema_version; drop table pgsession.session_schema_version",
		"the record of migrations in part": "drop function pgsession.session_schema_version; update pgsession.session_schema_version set version = 0",
		"the role's right to a function":   "revoke execute on function pgsession.session_set from " + identifier(app),
		"the table of the beat":            "drop table pgsession.session_beat",
		"the table of the cleanup":         "drop table pgsession.session_cleanup",
		"the table of the audit":           "drop table pgsession.session_audit",
		"the table of events":              "drop table pgsession.session_events",
		"a promoted column":                "alter table pgsession.session drop column ip cascade",
	}
	for _, f := range column[string](t, admin, "select oid::regprocedure::text from pg_proc where pronamespace = 'pgsession'::regnamespace") {
		damages[f] = "drop routine " + f + " cascade" // with the view, for one
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			inTransaction(t, admin, func(tx pgx.Tx) {
				for statement := range strings.SplitSeq(damage, "; ") {
					if strings.Contains(damage, "$$") {
						statement = damage
					}
					exec(t, tx, statement)
					if statement == damage {
						break
					}
				}
				mended := storeOf(t, tx.Query, cfg)
				must(t, mended.Setup(t.Context()))
				expectSame(t, objects(t, tx), want)
				if after := dump(t, tx); !slices.Equal(after, rows) {
					t.Errorf("the rows were %q and are %q", rows, after)
				}
				expectSame(t, column[string](t, tx, grantsSQL), grants)
				expectLive(t, mended)
				useAll(t, mended, map[string][2]string{"ip": {"10.0.0.1", "::1"}})
			})
		})
	}
}

// becomeNewer makes a store what a newer program would have left: more of everything.
const becomeNewer = `
	create or replace function pgsession.session_schema_version(out migration int4, out functions int4, out columns text)
	language plpgsql stable security definer set search_path = pg_catalog, pg_temp
	as $$ begin migration := 99; functions := 99; columns := '[{"name":"ip","type":"inet"}]'; end $$;
	update pgsession.session_schema_version set version = 99;
	alter table pgsession.session add column newer text not null default 'new';
	create function pgsession.session_newer(p_id text) returns text language sql as 'select p_id';
	create or replace view pgsession.session_view as select *, 'appended' as appended from pgsession.session_view_was;`

func TestAnOlderProgramUsesWhatANewerOneInstalled(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	admin := pgtest.Connect(t, address)
	app, appAddress := roleIn(t, address)
	cfg := pgsession.Config{Columns: []pgsession.Column{{Name: "ip", Type: "inet"}}, AppRole: app}
	setUp(t, admin.Query, cfg)
	newer := strings.ReplaceAll(becomeNewer, "from pgsession.session_view_was", "from ("+
		strings.TrimSuffix(value[string](t, admin, "select pg_get_viewdef('pgsession.session_view'::regclass)"), ";")+") as was")
	exec(t, admin, newer)
	before := fingerprint(t, admin)

	older := setUp(t, admin.Query, cfg)
	must(t, older.Migrate(t.Context()))
	setUp(t, admin.Query, pgsession.Config{}) // not even with columns of its own
	var script strings.Builder
	must(t, pgsession.SetupSQL(&script, cfg))
	exec(t, admin, script.String())
	expectSame(t, fingerprint(t, admin), before)

	columns := map[string][2]string{"ip": {"10.0.0.1", "::1"}}
	useAll(t, older, columns)
	useAsRequest(t, setUp(t, pgtest.Connect(t, appAddress).Query, cfg), columns)
	expectSame(t, fingerprint(t, admin), before)

	// What only the functions can bring stays undone, and is told.
	more := cfg
	more.Columns = append(more.Columns, pgsession.Column{Name: "country", Type: "text"})
	expectProblems(t, storeOf(t, admin.Query, more).Setup(t.Context()), `promoted column "country" is missing|newer program`)
	expectSame(t, fingerprint(t, admin), before)
}

func TestAnOlderProgramThatWaitedForANewerOneLeavesItsFunctionsAlone(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	admin := pgtest.Connect(t, address)
	cfg := pgsession.Config{Cleanup: withoutCleanup}
	older := dial(t, address, nil)
	var refused strings.Builder
	must(t, pgsession.SetupSQL(&refused, pgsession.Config{Columns: []pgsession.Column{{Name: "ip", Type: "inet"}}}))
	for _, tried := range []bool{false, true} {
		t.Run(fmt.Sprintf("the connection has tried before: %t", tried), func(t *testing.T) {
			setUp(t, admin.Query, pgsession.Config{Columns: []pgsession.Column{{Name: "country", Type: "text"}}})
			exec(t, admin, "drop function pgsession.session_touch")
			if tried {
				// PostgreSQL now has in the connection's caches what the newer one is about to replace.
				if _, err := older.Exec(t.Context(), refused.String()); err == nil {
					t.Fatal("a script with other columns was not refused")
				}
			}
			// The older one finds a function missing, and waits for its turn to install it.
			done := make(chan error, 1)
			inTransaction(t, dial(t, address, nil), func(newer pgx.Tx) {
				exec(t, newer, "select pg_advisory_xact_lock($1)", ternLock)
				go func() { done <- storeOf(t, older.Query, cfg).Setup(t.Context()) }()
				eventually(t, "the older Setup waits for the newer", func() bool { return advisoryWaits(t, newer) == 1 })
				exec(t, newer, `
					create or replace function pgsession.session_schema_version(out migration int4, out functions int4, out columns text)
					language plpgsql stable security definer set search_path = pg_catalog, pg_temp
					as $$ begin migration := 99; functions := 99; columns := '[]'; end $$`)
				exec(t, newer, "create function pgsession.session_touch(p_newer text) returns text language sql as 'select 1::text'")
				must(t, newer.Commit(context.Background()))
			})
			if err := <-done; err != nil {
				t.Error(err)
			}
			if n := value[int](t, admin, "select functions from pgsession.session_schema_version()"); n != 99 {
				t.Errorf("version %d of the functions was installed over version 99", n)
			}
			exec(t, admin, "drop schema pgsession cascade")
		})
	}
}

func TestWhatTheScriptDoesNotMendIsToldAfterOneAttempt(t *testing.T) {
	t.Parallel()
	conn := dial(t, pgtest.Database(t), nil)
	cfg := pgsession.Config{Cleanup: withoutCleanup}
	setUp(t, conn.Query, cfg)
	// A newer program's functions are left alone, also where one is missing.
	exec(t, conn, `
		create or replace function pgsession.session_schema_version(out migration int4, out functions int4, out columns text)
		language plpgsql stable security definer set search_path = pg_catalog, pg_temp
		as $$ begin migration := 99; functions := 99; columns := '[]'; end $$`)
	exec(t, conn, "drop function pgsession.session_touch")
	before := fingerprint(t, conn)
	scripts := 0
	store := storeOf(t, func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
		if strings.HasPrefix(sql, "do ") {
			scripts++
		}
		return conn.Query(ctx, sql, args...)
	}, cfg)
	expectProblems(t, store.Setup(t.Context()), `the function "session_touch" is missing`)
	if scripts > 1 {
		t.Errorf("the script was run %d times, and mended nothing", scripts)
	}
	expectSame(t, fingerprint(t, conn), before)
}

func TestAScriptWithOtherColumnsThanTheInstalledIsRefused(t *testing.T) {
	t.Parallel()
	admin := pgtest.Connect(t, pgtest.Database(t))
	setUp(t, admin.Query, pgsession.Config{Columns: []pgsession.Column{{Name: "ip", Type: "inet"}}})
	before := fingerprint(t, admin)
	var script strings.Builder
	must(t, pgsession.SetupSQL(&script, pgsession.Config{Columns: []pgsession.Column{{Name: "country", Type: "text"}}}))
	if _, err := admin.Exec(t.Context(), script.String()); codeOf(err) != "PS001" || !strings.Contains(err.Error(), `"ip"`) {
		t.Errorf("err = %v, want PS001, naming the column that would be lost", err)
	}
	expectSame(t, fingerprint(t, admin), before)
}
