package pgsession_test

import (
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/tern/v2/migrate"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// definitions are all that the schema pgsession consists of, as SQL says it.
func definitions(t *testing.T, db executor) []string {
	t.Helper()
	return slices.Concat(
		column[string](t, db, `
			select concat_ws(' ', pg_get_functiondef(p.oid), pg_get_userbyid(p.proowner), p.proacl)
			  from pg_proc as p where p.pronamespace = 'pgsession'::regnamespace`),
		column[string](t, db, `
			select concat_ws(' ', c.relkind, c.relname, pg_get_userbyid(c.relowner), c.relacl, c.reloptions, s.reloptions,
			                 case c.relkind when 'v' then pg_get_viewdef(c.oid) when 'i' then pg_get_indexdef(c.oid) end)
			  from pg_class as c
			  left join pg_class as s on s.oid = c.reltoastrelid
			 where c.relnamespace = 'pgsession'::regnamespace`),
		column[string](t, db, `
			select concat_ws(' ', c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, l.collname)
			  from pg_attribute as a
			  join pg_class as c on c.oid = a.attrelid
			  left join pg_collation as l on l.oid = a.attcollation
			 where c.relnamespace = 'pgsession'::regnamespace and a.attnum > 0`),
		column[string](t, db, `
			select concat_ws(' ', c.conname, pg_get_constraintdef(c.oid)) from pg_constraint as c
			 where c.connamespace = 'pgsession'::regnamespace`),
	)
}

// ternCast are the ways in which tern.conf can name roles and columns, and the same as a Config.
type ternCast struct {
	name string
	data map[string]any
	cfg  pgsession.Config
}

func ternCasts(c *cast) []ternCast {
	return []ternCast{
		{"by default", nil, pgsession.Config{}},
		{
			"with roles and columns",
			map[string]any{
				"schema": "pgsession", "table": "session", "owner": c.owner, "app_role": c.app, "admin_role": c.admin,
				"columns": `[{"name":"ip","type":"inet"},{"name":"odd \"one\"","type":"_text"}]`,
			},
			pgsession.Config{
				Owner: c.owner, AppRole: c.app, AdminRole: c.admin,
				Columns: []pgsession.Column{{Name: "ip", Type: "inet"}, {Name: `odd "one"`, Type: "text[]"}},
			},
		},
	}
}

// ternAll has tern's own executor apply the migrations and install the functions.
func ternAll(t *testing.T, conn *pgx.Conn, versionTable string, data map[string]any) {
	t.Helper()
	must(t, migrator(t, conn, versionTable, data).Migrate(t.Context()))
	code, err := migrate.LoadCodePackage(os.DirFS("sql"))
	must(t, err)
	must(t, migrate.InstallCodePackage(t.Context(), conn, data, code))
}

func TestTernAndSetupDoTheSame(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	for _, tc := range ternCasts(c) {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ternAddress, setupAddress := pgtest.Database(t), pgtest.Database(t)
			byTern, bySetup := dial(t, ternAddress, nil), dial(t, setupAddress, nil)
			cfg := tc.cfg
			cfg.Cleanup = withoutCleanup
			for _, conn := range []*pgx.Conn{byTern, bySetup} {
				statement := "create schema pgsession"
				if cfg.Owner != "" {
					statement += " authorization " + identifier(cfg.Owner)
				}
				exec(t, conn, statement)
			}
			ternAll(t, byTern, "pgsession.session_schema_version", tc.data)
			setUp(t, bySetup.Query, cfg)
			want := definitions(t, bySetup)
			// The version table is tern's own, and so its user's.
			if cfg.Owner != "" {
				exec(t, byTern, "alter table pgsession.session_schema_version owner to "+identifier(cfg.Owner))
			}
			exec(t, byTern, "revoke all on pgsession.session_schema_version from public")
			expectSame(t, definitions(t, byTern), want)

			// Neither has anything left to do after the other.
			before := fingerprint(t, byTern)
			store := setUp(t, byTern.Query, cfg)
			expectSame(t, fingerprint(t, byTern), before)
			columns := map[string][2]string{}
			for _, col := range cfg.Columns {
				columns[col.Name] = map[string][2]string{"inet": {"10.0.0.1", "::1"}, "text[]": {"{a}", "{}"}}[col.Type]
			}
			useAll(t, store, columns)

			before = fingerprint(t, bySetup)
			must(t, migrator(t, bySetup, "pgsession.session_schema_version", tc.data).Migrate(t.Context()))
			expectSame(t, fingerprint(t, bySetup), before)
			ternAll(t, bySetup, "pgsession.session_schema_version", tc.data) // the functions are written again, the same
			expectSame(t, definitions(t, bySetup), want)
			useAll(t, setUp(t, bySetup.Query, cfg), columns)
		})
	}
}

func TestTernGoesDownAndSetupUpAgain(t *testing.T) {
	t.Parallel()
	conn := dial(t, pgtest.Database(t), nil)
	cfg := pgsession.Config{Cleanup: withoutCleanup}
	setUp(t, conn.Query, cfg)
	want := definitions(t, conn)
	for version := migrationCount(t) - 1; version >= 0; version-- {
		must(t, migrator(t, conn, "pgsession.session_schema_version", nil).MigrateTo(t.Context(), int32(version)))
		if n := value[int](t, conn, "select version from pgsession.session_schema_version"); n != version {
			t.Errorf("down to %d, the version table says %d", version, n)
		}
		if table := value[bool](t, conn, "select to_regclass('pgsession.session') is not null"); table != (version > 0) {
			t.Errorf("down to %d: is there a table? %t", version, table)
		}
		useAll(t, setUp(t, conn.Query, cfg), nil)
		expectSame(t, definitions(t, conn), want)
	}
}

func TestSetupIsContentWithAnotherVersionTableOfTerns(t *testing.T) {
	t.Parallel()
	conn := dial(t, pgtest.Database(t), nil)
	ternAll(t, conn, "public.schema_version", nil)
	before := fingerprint(t, conn)
	store := setUp(t, conn.Query, pgsession.Config{Cleanup: withoutCleanup})
	expectSame(t, fingerprint(t, conn), before)
	useAll(t, store, nil)
	exec(t, conn, "drop function pgsession.session_touch")
	must(t, store.Setup(t.Context()))
	useAll(t, store, nil)
}

// run runs a program to its end and returns what it says.
func run(t *testing.T, env []string, stdin, program string, args ...string) (string, error) {
	t.Helper()
	command := osexec.CommandContext(t.Context(), program, args...)
	command.Env = append(os.Environ(), env...)
	command.Stdin = strings.NewReader(stdin)
	output, err := command.CombinedOutput()
	return string(output), err
}

func TestTheTernCommandRunsTheFilesAsTheyAre(t *testing.T) {
	t.Parallel()
	version, err := run(t, nil, "", "go", "list", "-m", "-f", "{{.Version}}", "github.com/jackc/tern/v2")
	must(t, err)
	// By its version, since go.sum need not have what only the command imports.
	bin := t.TempDir()
	if output, err := run(t, []string{"GOBIN=" + bin, "GOFLAGS="}, "", "go", "install", "github.com/jackc/tern/v2@"+strings.TrimSpace(version)); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	address := pgtest.Database(t)
	conn := dial(t, address, nil)
	tern := func(args ...string) string {
		t.Helper()
		args = append(args, "--config", "migrations/tern.conf", "--conn-string", address)
		output, err := run(t, nil, "", filepath.Join(bin, "tern"), args...)
		if err != nil {
			t.Fatalf("tern %q: %v\n%s", args, err, output)
		}
		return output
	}
	last := migrationCount(t)

	exec(t, conn, "create schema pgsession")
	tern("migrate", "--migrations", "migrations")
	tern("code", "install", "sql")
	before := fingerprint(t, conn)
	cfg := pgsession.Config{SkipMigrate: true, Cleanup: withoutCleanup}
	useAll(t, setUp(t, conn.Query, cfg), nil)
	cfg.SkipMigrate = false
	must(t, storeOf(t, conn.Query, cfg).Setup(t.Context()))
	expectSame(t, fingerprint(t, conn), before)

	exec(t, conn, "drop schema pgsession cascade")
	store := setUp(t, conn.Query, cfg)
	before = fingerprint(t, conn)
	if status := tern("status", "--migrations", "migrations"); !strings.Contains(status, "up to date") ||
		!strings.Contains(status, fmt.Sprintf("%d of %d", last, last)) {
		t.Errorf("after Setup tern's status is\n%s", status)
	}
	if output := tern("migrate", "--migrations", "migrations"); output != "" {
		t.Errorf("after Setup tern has this to do:\n%s", output)
	}
	expectSame(t, fingerprint(t, conn), before)

	tern("migrate", "--migrations", "migrations", "--destination", "0")
	if value[bool](t, conn, "select to_regclass('pgsession.session') is not null") {
		t.Error("the table is there after all went down")
	}
	must(t, store.Setup(t.Context()))
	useAll(t, store, nil)
}

func TestPsqlRunsSetupSQLTwice(t *testing.T) {
	t.Parallel()
	psql, err := osexec.LookPath("psql")
	if err != nil {
		pgtest.Skip(t, "psql is not installed")
	}
	c := newCast(t)
	odd := pgsession.Config{
		Schema: `s:a :'b' "c" \d $$ $1 {{ . }}`, Table: `t; \! false :"x" -- /* '`, Owner: c.owner, AppRole: c.app, AdminRole: c.admin,
		Columns: []pgsession.Column{{Name: `\c :d '; "`, Type: "text"}},
	}
	for _, tc := range append(ternCasts(c), ternCast{name: "with odd names", cfg: odd}) {
		for _, arguments := range [][]string{{}, {"--single-transaction"}} {
			t.Run(strings.Join(append(arguments, tc.name), " "), func(t *testing.T) {
				t.Parallel()
				address := pgtest.Database(t)
				var script strings.Builder
				must(t, pgsession.SetupSQL(&script, tc.cfg))
				conn := dial(t, address, nil)
				var first []string
				for range 2 {
					output, err := run(t, nil, script.String(), psql, append(arguments, "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--dbname="+address)...)
					if err != nil || strings.TrimSpace(output) != "DO" {
						t.Fatalf("psql: %v\n%s", err, output)
					}
					if first == nil {
						first = objects(t, conn)
					}
				}
				expectSame(t, objects(t, conn), first)
				before := fingerprint(t, conn)
				cfg := tc.cfg
				cfg.Cleanup = withoutCleanup
				columns := map[string][2]string{}
				for _, col := range cfg.Columns {
					columns[col.Name] = map[string][2]string{"inet": {"10.0.0.1", "::1"}, "text[]": {"{a}", "{}"}, "text": {"a", "b"}}[col.Type]
				}
				useAll(t, setUp(t, conn.Query, cfg), columns)
				expectSame(t, fingerprint(t, conn), before)
			})
		}
	}
}

func TestSetupSQLWritesWhatSetupRuns(t *testing.T) {
	t.Parallel()
	var sent []string
	conn := dial(t, pgtest.Database(t), nil)
	cfg := pgsession.Config{Columns: []pgsession.Column{{Name: "ip", Type: "inet"}}, Cleanup: withoutCleanup}
	setUp(t, func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
		if strings.HasPrefix(sql, "do ") {
			sent = append(sent, sql)
		}
		return conn.Query(ctx, sql, args...)
	}, cfg)
	var script strings.Builder
	must(t, pgsession.SetupSQL(&script, cfg))
	if len(sent) != 1 || script.String() != sent[0]+";\n" {
		t.Errorf("Setup ran %d statements, and SetupSQL wrote another", len(sent))
	}
}
