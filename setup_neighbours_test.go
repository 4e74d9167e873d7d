package pgsession_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// neighbours are pairs of stores whose names are easily taken for each other.
var neighbours = []struct {
	name        string
	left, right pgsession.Config
}{
	{"in one schema", pgsession.Config{Table: "a"}, pgsession.Config{Table: "b"}},
	{"quotes", pgsession.Config{Table: `a"b`}, pgsession.Config{Table: `a""b`}},
	{"quotes around", pgsession.Config{Table: `"a"`}, pgsession.Config{Table: `a`}},
	{"case", pgsession.Config{Table: "Session"}, pgsession.Config{Table: "session"}},
	{"a dot", pgsession.Config{Schema: "s.t", Table: "u"}, pgsession.Config{Schema: "s", Table: "t.u"}},
	{"a dot in quotes", pgsession.Config{Schema: `s"."t`, Table: "u"}, pgsession.Config{Schema: "s", Table: `t"."u`}},
	{"an underscore", pgsession.Config{Table: "session"}, pgsession.Config{Table: "session_list"}},
	{"a backslash", pgsession.Config{Table: `a\b`}, pgsession.Config{Table: `a\\b`}},
	{"composed and decomposed", pgsession.Config{Table: "\u00e9"}, pgsession.Config{Table: "e\u0301"}},
	{"one table in two schemas", pgsession.Config{Schema: "one"}, pgsession.Config{Schema: "two"}},
	{
		"longest names that end differently",
		pgsession.Config{Table: "a_table_whose_name_is_as_long_as_it_can_be____1"},
		pgsession.Config{Table: "a_table_whose_name_is_as_long_as_it_can_be____2"},
	},
}

func TestTwoStoresDoNotDisturbEachOther(t *testing.T) {
	t.Parallel()
	for _, n := range neighbours {
		t.Run(n.name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Connect(t, pgtest.Database(t))
			n.left.Lock, n.right.Lock = pgsession.LockFail, pgsession.LockFail
			n.left.Cleanup, n.right.Cleanup = withoutCleanup, withoutCleanup
			right := setUp(t, pool.Query, n.right)
			before := fingerprint(t, pool)
			left := setUp(t, pool.Query, n.left)
			must(t, right.Setup(t.Context()))
			after := fingerprint(t, pool)
			for _, object := range before {
				if !slices.Contains(after, object) {
					t.Errorf("setting up the other store changed %s", object)
				}
			}
			if len(after) < 2*len(before)-1 {
				t.Errorf("one store is %d objects, both are %d", len(before), len(after))
			}

			// The same token in both.
			ctx := t.Context()
			_, err := right.Set(ctx, "token", pgsession.Session{Subject: "ada", Data: []byte("right")})
			must(t, err)
			useAll(t, left, nil)
			_, err = left.Set(ctx, "token", pgsession.Session{Subject: "ada", Data: []byte("left")})
			must(t, err)
			expect := func(what string) {
				t.Helper()
				session, err := right.Get(ctx, "token")
				if err != nil || string(session.Data) != "right" {
					t.Fatalf("%s in the other store: %q, %v", what, session.Data, err)
				}
			}
			expect("Set")

			// Locks: of the session, of its subject, and of pruning.
			inTransaction(t, pool, func(tx pgx.Tx) {
				inside := left.WithQuery(tx.Query)
				_, err := inside.Set(ctx, "token", pgsession.Session{Subject: "ada", Data: []byte("changed")})
				must(t, err)
				if _, err := left.Set(ctx, "token", pgsession.Session{}); !errors.Is(err, pgsession.ErrBusy) {
					t.Errorf("the session is not locked in its own store: %v", err)
				}
				_, err = inside.Revoke(ctx, pgsession.Revocation{Subject: "ada"})
				must(t, err)
				exec(t, tx, "select "+identifier(schemaOf(n.left), tableOf(n.left)+"_prune")+"()")
				_, err = right.Set(ctx, "token", pgsession.Session{Subject: "ada", Data: []byte("right")})
				must(t, err)
				_, _, err = right.Create(ctx, pgsession.Session{Subject: "ada"})
				must(t, err)
				if busy := value[bool](t, pool, "select busy from "+identifier(schemaOf(n.right), tableOf(n.right)+"_prune")+"(p_wait => false)"); busy {
					t.Error("one store's prune keeps the other from pruning")
				}
				if busy := value[bool](t, pool, "select busy from "+identifier(schemaOf(n.left), tableOf(n.left)+"_prune")+"(p_wait => false)"); !busy {
					t.Error("two prunes of one store run at once")
				}
			})
			expect("a lock")

			// Bulk operations, and pruning what is over.
			_, err = left.Revoke(ctx, pgsession.Revocation{Subject: "ada"})
			must(t, err)
			expect("Revoke")
			_, err = left.Clear(ctx)
			must(t, err)
			expect("Clear")
			exec(t, pool, "update "+identifier(schemaOf(n.left), tableOf(n.left))+" set prune_after = 'epoch'")
			exec(t, pool, "update "+identifier(schemaOf(n.right), tableOf(n.right))+" set prune_after = 'epoch'")
			exec(t, pool, "call "+identifier(schemaOf(n.left), tableOf(n.left)+"_prune_all")+"()")
			expect("Prune")
			if n := value[int](t, pool, "select count(*) from "+identifier(schemaOf(n.left), tableOf(n.left))); n != 0 {
				t.Errorf("%d rows are left after Clear and Prune", n)
			}

			// Nor does the end of one end the other.
			exec(t, pool, "drop table "+identifier(schemaOf(n.left), tableOf(n.left))+" cascade")
			must(t, right.Setup(ctx))
			expect("dropping the table")
		})
	}
}

func schemaOf(cfg pgsession.Config) string {
	if cfg.Schema == "" {
		return "pgsession"
	}
	return cfg.Schema
}

func tableOf(cfg pgsession.Config) string {
	if cfg.Table == "" {
		return "session"
	}
	return cfg.Table
}

func TestAStoreWhoseTableIsAnotherStoresPartIsRefused(t *testing.T) {
	t.Parallel()
	pool := pgtest.Connect(t, pgtest.Database(t))
	setUp(t, pool.Query, pgsession.Config{})
	before := fingerprint(t, pool)
	for _, suffix := range []string{"_view", "_schema_version", "_pkey", "_subject_idx", "_renewed_to_idx", "_prune_after_idx", "_result"} {
		err := storeOf(t, pool.Query, pgsession.Config{Table: "session" + suffix}).Setup(t.Context())
		_ = schemaErrorOf(t, err)
		expectSame(t, fingerprint(t, pool), before)
	}
}

func TestAStoreWhosePartsNameIsTakenIsRefused(t *testing.T) {
	t.Parallel()
	for name, taken := range map[string]string{
		"a view by a table":           "create table pgsession.session_view (id int)",
		"the audit by another store":  "create table pgsession.session_audit (id text primary key, data bytea)",
		"the events by a table":       "create table pgsession.session_events (id int)",
		"the beat by a table":         "create table pgsession.session_beat (id int)",
		"the cleanup by a table":      "create table pgsession.session_cleanup (id int)",
		"a result by a table":         "create table pgsession.session_result (status text)",
		"a result by another type":    "create type pgsession.session_result as (status text)",
		"a result by an enum":         "create type pgsession.session_result as enum ('status')",
		"a result by a type of words": "create type pgsession.session_result as (status text, subject text, data text)",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Connect(t, pgtest.Database(t))
			exec(t, pool, "create schema pgsession")
			exec(t, pool, taken)
			before := fingerprint(t, pool)
			err := storeOf(t, pool.Query, pgsession.Config{}).Setup(t.Context())
			if problem := schemaErrorOf(t, err); problem.Err == nil && !strings.Contains(err.Error(), "is not this store's table") {
				t.Errorf("%v does not say what is in the way", err)
			}
			expectSame(t, fingerprint(t, pool), before)
		})
	}
}
