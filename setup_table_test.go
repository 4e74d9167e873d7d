package pgsession_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// ownColumns are the columns that the library made, and a type that each does not have.
var ownColumns = []struct{ name, typeName, other string }{
	{"version", "int8", "int4"},
	{"created_at", "timestamptz", "timestamp"},
	{"expires_at", "timestamptz", "text"},
	{"absolute_expires_at", "timestamptz", "date"},
	{"prune_after", "timestamptz", "timestamp"},
	{"revoked_at", "timestamptz", "timestamp"},
	{"idle_timeout", "interval", "time"},
	{"codec", "int2", "int4"},
	{"id", "text", "varchar"},
	{"subject", "text", "varchar"},
	{"renewed_to", "text", "bpchar"},
	{"data", "bytea", "text"},
}

// namesInSQL are all names of parameters, results, variables and aliases that the functions use.
func namesInSQL(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, pattern := range []string{"sql/*.sql", "sql/partial/*.sql"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, re := range []*regexp.Regexp{
				regexp.MustCompile(`\b([pvc]_[a-z_]+)\b`),
				regexp.MustCompile(`(?m)^\s+out ([a-z_]+) `),
				regexp.MustCompile(`(?m)^\s+([a-z_]+)\s+[a-z0-9]+,?$`), // of "returns table (...)"
				regexp.MustCompile(`\bas ([a-z_]+)\b`),
				regexp.MustCompile(`\b([a-z])\.[a-z]+`),
			} {
				for _, match := range re.FindAllStringSubmatch(string(text), -1) {
					names = append(names, match[1])
				}
			}
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	for _, name := range []string{"p_id", "v_now", "status", "columns", "v_old_version", "last_id", "next_from", "t", "e"} {
		if !slices.Contains(names, name) {
			t.Fatalf("the names in sql/ do not have %q: %q", name, names)
		}
	}
	return slices.DeleteFunc(names, func(name string) bool {
		return slices.ContainsFunc(ownColumns, func(own struct{ name, typeName, other string }) bool { return own.name == name })
	})
}

func TestColumnsThatTheDBAAddsNeitherBreakNorShadowAnything(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	names := append(namesInSQL(t), "id2", "select", `quo"ted`)
	for _, c := range []struct {
		name string
		// again: the functions are installed once more, on a table that has the columns already.
		again bool
	}{{"added afterwards", false}, {"there when the functions are installed", true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := pgsession.Config{Schema: pgtest.Schema(t), Columns: []pgsession.Column{{Name: "ip", Type: "inet"}}}
			store := setUp(t, pool.Query, cfg)
			token, session, err := store.Create(t.Context(), pgsession.Session{Subject: "ada", Data: []byte("before")})
			if err != nil {
				t.Fatal(err)
			}
			table := identifier(cfg.Schema, "session")
			var add, same []string
			for _, name := range names {
				add = append(add, fmt.Sprintf("add column %s text not null default 'kept'", identifier(name)))
				same = append(same, identifier(name)+" = 'the DBA''s'")
			}
			exec(t, pool, "alter table "+table+strings.Join(add, ", "))
			exec(t, pool, "update "+table+" set "+strings.Join(same, ", "))
			if c.again {
				exec(t, pool, "drop function "+identifier(cfg.Schema, "session_touch"))
				if err := store.Setup(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			useAsRequest(t, store, map[string][2]string{"ip": {"10.0.0.1", "::1"}})

			// Every way of writing the row, and the DBA's values stay.
			session.Data = []byte("after")
			if session, err = store.Set(t.Context(), token, session); err != nil {
				t.Fatal(err)
			}
			if _, err := store.Set(t.Context(), token, pgsession.Session{IdleTimeout: session.IdleTimeout * 2}); err != nil {
				t.Fatal(err)
			}
			if _, err := store.Touch(t.Context(), token); err != nil {
				t.Fatal(err)
			}
			exec(t, pool, "update "+table+" set prune_after = 'epoch', expires_at = expires_at + interval '1 hour'")
			if _, err := store.Prune(t.Context()); err != nil {
				t.Fatal(err)
			}
			kept := "select count(*) from " + table + " where id = $1 and " + strings.Join(same, " and ")
			if n := value[int](t, pool, kept, string(session.ID)); n != 1 {
				t.Error("a value of the DBA's was changed by a live session's writes")
			}
			if n, err := store.Destroy(t.Context(), token); n != 1 || err != nil {
				t.Errorf("Destroy = %d, %v", n, err)
			}
			if n := value[int](t, pool, kept, string(session.ID)); n != 1 {
				t.Error("a value of the DBA's was changed in the tombstone")
			}
			if _, err := store.Clear(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestColumnsNamedLikeEverythingInTheFunctionsCanBePromoted(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	for batch := range slices.Chunk(namesInSQL(t), 48) {
		cfg := pgsession.Config{Schema: pgtest.Schema(t)}
		values := map[string][2]string{}
		for _, name := range batch {
			if slices.Contains([]string{"age", "expires_in", "absolute_expires_in", "bytes"}, name) {
				continue // the view's
			}
			cfg.Columns = append(cfg.Columns, pgsession.Column{Name: name, Type: "text"})
			values[name] = [2]string{"one of " + name, "two of " + name}
		}
		useAll(t, setUp(t, pool.Query, cfg), values)
	}
}

// inTransaction calls f in a transaction that is rolled back.
func inTransaction(t *testing.T, db interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}, f func(tx pgx.Tx),
) {
	t.Helper()
	tx, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	f(tx)
}

func TestATableThatDiffersIsASchemaErrorThatListsEachDifference(t *testing.T) {
	t.Parallel()
	pool := pgtest.Connect(t, pgtest.Database(t))
	const schema, foreign = "ours", "foreign_types"
	cfg := pgsession.Config{Schema: schema}
	setUp(t, pool.Query, cfg)
	exec(t, pool, "create schema "+foreign)
	table := identifier(schema, "session")
	retype := func(column, typeName string) string {
		return fmt.Sprintf("alter table %s alter column %s type %s using null", table, column, typeName)
	}
	// The view hangs on the columns, and the indexes on their types.
	const bare = "drop view %[1]s.session_view; drop index %[1]s.session_subject_idx, %[1]s.session_renewed_to_idx, %[1]s.session_prune_after_idx;" +
		"alter table %[1]s.session drop constraint session_data_check, drop constraint session_finite_check"

	type difference struct {
		name, before string
		want         []string
	}
	var cases []difference
	var everyMissing, everyRetyped difference
	for _, own := range ownColumns {
		missing := difference{
			"no " + own.name, fmt.Sprintf("alter table %s drop column %s cascade", table, own.name),
			[]string{fmt.Sprintf("column %q is missing|%s", own.name, own.typeName)},
		}
		retyped := difference{
			own.name + " as " + own.other, retype(own.name, own.other),
			[]string{fmt.Sprintf("column %q has the type %s instead of %s", own.name, own.other, own.typeName)},
		}
		alien := difference{
			own.name + " of a type of another schema that is named like ours",
			fmt.Sprintf("create domain %s.%s as text; ", foreign, own.typeName) + retype(own.name, foreign+"."+own.typeName),
			[]string{fmt.Sprintf("column %q has the type a type of another schema, %s instead of %s", own.name, own.typeName, own.typeName)},
		}
		everyMissing.before += missing.before + ";"
		everyMissing.want = append(everyMissing.want, missing.want...)
		everyRetyped.before += retyped.before + ";"
		everyRetyped.want = append(everyRetyped.want, retyped.want...)
		cases = append(cases, missing, retyped, alien)
	}
	everyMissing.name, everyRetyped.name = "no column at all", "every column of another type"
	cases = append(
		cases, everyMissing, everyRetyped,
		difference{
			"a view in the table's place",
			fmt.Sprintf("alter table %s rename to elsewhere; create view %s as select * from %s.elsewhere", table, table, schema),
			[]string{`"session" is not a plain table`},
		},
		difference{
			"a partitioned table in its place",
			fmt.Sprintf(`alter table %s rename to elsewhere;
				create table %s (like %s.elsewhere, primary key (id)) partition by hash (id)`, table, table, schema),
			[]string{`"session" is not a plain table`},
		},
		difference{
			"a table with others below it", fmt.Sprintf("create table %s.below () inherits (%s)", schema, table),
			[]string{`"session" is not a plain table`},
		},
		difference{
			"no unique index", fmt.Sprintf("alter table %s drop constraint session_pkey", table),
			[]string{`"id" has no unique index`},
		},
		difference{
			"unique indexes of other things",
			fmt.Sprintf(`alter table %[1]s drop constraint session_pkey;
				create unique index a on %[1]s (id, version);
				create unique index b on %[1]s (id) where subject is null;
				create unique index c on %[1]s (lower(id));
				create index d on %[1]s (id)`, table),
			[]string{`"id" has no unique index`},
		},
	)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inTransaction(t, pool, func(tx pgx.Tx) {
				exec(t, tx, fmt.Sprintf(bare, schema))
				for statement := range strings.SplitSeq(c.before, ";") {
					exec(t, tx, statement)
				}
				before := fingerprint(t, tx)
				want := append(slices.Clone(c.want), `view "session_view" is missing`)
				expectProblems(t, storeOf(t, tx.Query, cfg).Setup(t.Context()), want...)
				expectSame(t, fingerprint(t, tx), before)
			})
		})
	}
}
