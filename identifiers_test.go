package pgsession_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// oddNames are names that PostgreSQL allows for everything, of up to 47 bytes: the longest name of a
// table.
var oddNames = []string{
	`foo"ba"r`, `"`, `""`, `"a"."b"`, `a.b`, `MixedCase`, `ÀÉ`, `select`, `user`, `none`, `pgsession`, `session`, `public`,
	`セッション`, `सत्र`, `הפעלה`, `сессия`, `🍪👩‍👩‍👧`, "e\u0301", "\u202eright to left", "\ufeffBOM\u00a0\u2028", "\x01\x7f",
	`$`, `$$`, `$1 $2`, `$body$`, `? :name @p1`, `'`, `'; select 1; --`, `\`, `\'`, `%s %!`, `{{`, `{{ fail "no" }} {{/*`, "`",
	`--`, `/*`, `*/`, `;`, `session_get(text)[]`, `<a href="?a=b&c">`, ` `, ` space `, "\t", `123`, `-1`, `a-b`,
	"\n", "a\nb", "a\rb", "\n; select attack(); --", "x\ncreate table oops ();--",
	strings.Repeat("x", 47), strings.Repeat(`"`, 47), strings.Repeat("日", 15), strings.Repeat("🍪", 11) + "abc",
}

func TestAnyNameWorksForSchemasTablesColumnsAndRoles(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	superuser := pgtest.Connect(t, address)
	exec(t, superuser, `create function public.attack() returns int4 language plpgsql as $$ begin raise exception 'attacked'; end $$`)
	creators, _ := pgtest.Role(t)
	exec(t, superuser, fmt.Sprintf("grant create on database %s to %s",
		value[string](t, superuser, "select quote_ident(current_database())"), identifier(creators)))
	for _, name := range oddNames {
		t.Run(fmt.Sprintf("%q", name), func(t *testing.T) {
			t.Parallel()
			owner, ownerAddress := roleIn(t, address, name)
			app, appAddress := roleIn(t, address, name, "app")
			admin, adminAddress := roleIn(t, address, name, "adm")
			exec(t, superuser, fmt.Sprintf("grant %s to %s", identifier(creators), identifier(owner)))
			cfg := pgsession.Config{
				Schema: name, Table: name, Columns: []pgsession.Column{{Name: name, Type: "text"}},
				Owner: owner, AppRole: app, AdminRole: admin, Cleanup: withoutCleanup,
			}
			if name == "public" {
				cfg.Schema = "not public" // is there, and somebody's
			}
			values := map[string][2]string{name: {name, name + name}}
			store := setUp(t, dial(t, ownerAddress, nil).Query, cfg)
			for _, mode := range []string{"cache_statement", "simple_protocol"} {
				conn := pgtest.Connect(t, withParameter(t, appAddress, "default_query_exec_mode", mode))
				request := setUp(t, conn.Query, cfg)
				useAsRequest(t, request, values)
				_, _, err := request.Create(t.Context(), pgsession.Session{Subject: name, Columns: map[string]any{name: name}})
				must(t, err)
			}
			useAsAdmin(t, setUp(t, dial(t, adminAddress, nil).Query, cfg))
			exec(t, superuser, "drop function "+identifier(cfg.Schema, name+"_touch"))
			must(t, store.Setup(t.Context()))
			useAll(t, store, values)
			exec(t, superuser, "call "+identifier(cfg.Schema, name+"_prune_all")+"()")

			// In that schema, under that name, and nowhere else.
			for _, suffix := range []string{"", "_view", "_pkey", "_prune_after_idx", "_subject_idx", "_renewed_to_idx", "_schema_version", "_beat", "_cleanup", "_audit", "_events", "_events_id_idx", "_events_sub_idx", "_result"} {
				if n := value[int](t, superuser, `
					select count(*) from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
					 where n.nspname = $1 and c.relname = $2`, cfg.Schema, name+suffix); n != 1 {
					t.Errorf("%d relations %q in the schema %q", n, name+suffix, cfg.Schema)
				}
			}
			if n := value[int](t, superuser, `
				select count(*) from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
				 where n.nspname = $1`, cfg.Schema); n != 20 {
				t.Errorf("%d relations in the schema %q", n, cfg.Schema)
			}
			if column := value[string](t, superuser, `
				select attname::text from pg_attribute where attrelid = $1::regclass order by attnum desc limit 1`,
				identifier(cfg.Schema, name)); column != name {
				t.Errorf("the column is %q", column)
			}
		})
	}
	t.Cleanup(func() {
		// The test's own context has ended.
		var strays []string
		rows, err := superuser.Query(context.Background(), `
			select n.nspname || '.' || c.relname from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
			 where c.oid >= 16384 and (n.nspname = 'public' or c.relname ~ 'oops')`)
		if err == nil {
			strays, err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
		strays = slices.DeleteFunc(strays, func(s string) bool { return strings.Contains(s, "create table oops ()") })
		if err != nil || len(strays) > 0 {
			t.Errorf("what came astray: %q, %v", strays, err)
		}
	})
}

func TestTheLongestNamesWorkAndLongerOnesAreRefused(t *testing.T) {
	t.Parallel()
	pool := pgtest.Connect(t, pgtest.Database(t))
	query := func(context.Context, string, ...any) (pgx.Rows, error) { panic("New sent a statement") }
	for _, unit := range []string{"x", "日", "🍪", `"`} {
		fill := func(n int) string {
			return strings.Repeat(unit, n/len(unit)) + strings.Repeat("y", n%len(unit))
		}
		cfg := pgsession.Config{
			Schema: fill(63), Table: fill(47), Columns: []pgsession.Column{{Name: fill(63), Type: "text"}},
		}
		useAll(t, setUp(t, pool.Query, cfg), map[string][2]string{fill(63): {"one", "two"}})
		if n := value[int](t, pool, `
			select count(*) from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
			 where n.nspname = $1 and c.relname = $2`, fill(63), fill(47)+"_prune_after_idx"); n != 1 {
			t.Errorf("the index of the table of 47 bytes of %q has another name", unit)
		}
		for field, long := range map[string]pgsession.Config{
			"Config.Schema":    {Schema: fill(64)},
			"Config.Table":     {Table: fill(48)},
			"Config.Columns":   {Columns: []pgsession.Column{{Name: fill(64), Type: "text"}}},
			"Config.Owner":     {Owner: fill(64)},
			"Config.AppRole":   {AppRole: fill(64)},
			"Config.AdminRole": {AdminRole: fill(64)},
		} {
			if _, err := pgsession.New(query, long); !errors.Is(err, pgsession.ErrInvalid) || !strings.Contains(err.Error(), field) {
				t.Errorf("%s too long: err = %v, want an ErrInvalid that names it", field, err)
			}
			if err := pgsession.SetupSQL(&strings.Builder{}, long); !errors.Is(err, pgsession.ErrInvalid) {
				t.Errorf("%s too long: SetupSQL's err = %v", field, err)
			}
		}
	}
	// Each function and index of the longest table has a name of its own: the count is that of any.
	if got, want := len(objects(t, pool)), 4*len(expectedObjects("s", func(s string) string { return s })); got != want {
		t.Errorf("%d objects of 4 stores, want %d", got, want)
	}
}

func TestImpossibleNamesAreRefused(t *testing.T) {
	t.Parallel()
	query := func(context.Context, string, ...any) (pgx.Rows, error) { panic("New sent a statement") }
	for _, name := range []string{"\x00", "a\x00b", "\xff", "a\xc3", "\xed\xa0\x80"} {
		if utf8.ValidString(name) && !strings.Contains(name, "\x00") {
			t.Fatalf("%q is possible", name)
		}
		for field, cfg := range map[string]pgsession.Config{
			"Config.Schema": {Schema: name}, "Config.Table": {Table: name},
			"Config.Columns": {Columns: []pgsession.Column{{Name: name, Type: "text"}}},
			"Config.Owner":   {Owner: name}, "Config.AppRole": {AppRole: name}, "Config.AdminRole": {AdminRole: name},
		} {
			if _, err := pgsession.New(query, cfg); !errors.Is(err, pgsession.ErrInvalid) || !strings.Contains(err.Error(), field) {
				t.Errorf("%s %q: err = %v, want an ErrInvalid that names it", field, name, err)
			}
		}
	}
	// What only the server knows: pg_ is reserved for its own schemas.
	pool := pgtest.Connect(t, pgtest.Database(t))
	err := storeOf(t, pool.Query, pgsession.Config{Schema: "pg_mine"}).Setup(t.Context())
	if e := schemaErrorOf(t, err); e.Err == nil || !strings.Contains(e.Err.Error(), "pg_mine") {
		t.Errorf("err = %v", err)
	}
}
