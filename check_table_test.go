package pgsession_test

import (
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

func TestCheckFindsIndexesThatOnlyLookLikeOurs(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	drop := func(column string) string { return "drop index {schema}.session_" + column + "_idx; " }
	for _, test := range []struct {
		name, do, column string // column: that of which an index is missed; "": none
	}{
		{"partial, to prune by", drop("prune_after") + "create index on {table} (prune_after) where revoked_at is null", "prune_after"},
		{"of other rows, to prune by", drop("prune_after") + "create index on {table} (prune_after) where idle_timeout is not null", "prune_after"},
		{"brin, to prune by", drop("prune_after") + "create index on {table} using brin (prune_after)", "prune_after"},
		{"an expression, to prune by", drop("prune_after") + "create index on {table} ((prune_after is null))", "prune_after"},
		{"the second column, to prune by", drop("prune_after") + "create index on {table} (created_at, prune_after)", "prune_after"},
		{"invalid, to prune by", "update pg_index set indisvalid = false where indexrelid = '{schema}.session_prune_after_idx'::regclass", "prune_after"},
		{"with more columns, to prune by", drop("prune_after") + "create index on {table} (prune_after, id) include (subject)", ""},
		{"hash, of the subject", drop("subject") + "create index on {table} using hash (subject)", "subject"},
		{"the subject alone", drop("subject") + "create index on {table} (subject) where subject is not null and revoked_at is null", "subject"},
		{"tombstones' subjects", drop("subject") + "create index on {table} (subject, id) where subject is not null and revoked_at is not null", "subject"},
		{"fewer subjects", drop("subject") + "create index on {table} (subject, id) where subject is not null and revoked_at is null and idle_timeout is not null", "subject"},
		{"one or the other condition", drop("subject") + "create index on {table} (subject, id) where subject is not null or revoked_at is null", "subject"},
		{"another collation", drop("subject") + `create index on {table} (subject collate "POSIX", id)`, "subject"},
		{"another order", drop("subject") + "create index on {table} (subject text_pattern_ops, id)", "subject"},
		{"all subjects", drop("subject") + "create index on {table} (subject, id)", ""},
		{"all subjects, tombstones' too", drop("subject") + "create index on {table} (subject, id, created_at) where subject is not null", ""},
		{"the conditions in another order", drop("subject") + "create index on {table} (subject, id) where revoked_at is null and (subject is not null)", ""},
		{"partial, of renewals", drop("renewed_to") + "create index on {table} (renewed_to) where revoked_at is null", "renewed_to"},
		{"whole, of renewals", drop("renewed_to") + "create index on {table} (renewed_to)", ""},
		{"none at all", drop("renewed_to") + drop("subject") + "drop index {schema}.session_prune_after_idx", "renewed_to"},
	} {
		t.Run(test.name, func(t *testing.T) {
			inTransaction(t, w.admin, func(tx pgx.Tx) {
				log := &logs{}
				store := storeOf(t, tx.Query, pgsession.Config{Schema: w.schema, Cleanup: withoutCleanup, Logger: slog.New(log)})
				noFinding(t, check(t, store), append(bugged(t, w.admin), pgsession.FindingOwner)...)
				for statement := range strings.SplitSeq(w.fill(test.do), "; ") {
					exec(t, tx, statement)
				}
				// Setup's log and Check say the same.
				must(t, store.Setup(t.Context()))
				logged := len(log.with("an index is missing"))
				if test.column == "" {
					noFinding(t, check(t, store), append(bugged(t, w.admin), pgsession.FindingOwner)...)
					if logged != 0 {
						t.Errorf("logged %d times", logged)
					}
					return
				}
				findings := check(t, store)
				finding(t, findings, pgsession.FindingIndex, pgsession.SeverityWarning, `"`+test.column+`"`)
				missing := 0
				for _, f := range findings {
					if f.Code != pgsession.FindingIndex {
						continue
					}
					if statement, ok := strings.CutPrefix(f.Remedy, "create index concurrently "); ok {
						missing++
						exec(t, tx, "create index "+statement)
					} else {
						index := strings.TrimPrefix(f.Remedy, "reindex index concurrently ")
						exec(t, tx, "update pg_index set indisvalid = true where indexrelid = $1::text::regclass", index)
					}
				}
				if logged != missing {
					t.Errorf("logged %d times, found %d times", logged, missing)
				}
				noFinding(t, check(t, store), append(bugged(t, w.admin), pgsession.FindingOwner)...)
			})
		})
	}
}

func TestCheckFindsAnIndexThatCouldNotBeMade(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	w.exec(t, `insert into {table} (version, created_at, expires_at, prune_after, codec, id, data)
		select 1, now(), now() + interval '1 h', now() + interval '1 h', 0, i::text, '' from generate_series(1, 2) as i`)
	_, err := w.admin.Exec(t.Context(), w.fill("create unique index concurrently mine on {table} (codec, (1))"))
	wantSQLState(t, "an index of what is not unique", err, "23505")
	finding(t, check(t, w.store), pgsession.FindingIndex, pgsession.SeverityWarning, w.schema+".mine", "not valid")
	w.exec(t, "delete from {table}")
	followed(t, w.admin, w.store, pgsession.FindingIndex)
}

func TestCheckFindsForeignKeysThatKeepSessions(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	for _, test := range []struct {
		actions string
		words   []string // nil: nothing is found
	}{
		{"", []string{`"cart_sid_fkey"`, "no prune can delete", "Renew of such a session fails", "on delete cascade", "on update cascade"}},
		{"on update cascade", []string{"no prune can delete", "with on delete cascade or set null"}},
		{"on update cascade on delete restrict", []string{"no prune can delete"}},
		{"on update restrict on delete cascade", []string{"Renew of such a session fails", "with on update cascade"}},
		{"on delete cascade deferrable initially deferred", nil},
		{"on update cascade on delete cascade", nil},
		{"on update cascade on delete set null", nil},
	} {
		t.Run(test.actions, func(t *testing.T) {
			inTransaction(t, w.admin, func(tx pgx.Tx) {
				store := storeOf(t, tx.Query, pgsession.Config{Schema: w.schema, Cleanup: withoutCleanup})
				exec(t, tx, w.fill("create table {schema}.cart (sid text references {table} (id) "+test.actions+")"))
				findings := check(t, store)
				if test.words == nil {
					noFinding(t, findings, append(bugged(t, w.admin), pgsession.FindingOwner)...)
				} else {
					finding(t, findings, pgsession.FindingForeignKey, pgsession.SeverityWarning, test.words...)
				}
				// It is as it says.
				token, _, err := store.Create(t.Context(), pgsession.Session{Data: []byte("here")})
				must(t, err)
				exec(t, tx, w.fill("insert into {schema}.cart select t.id from {table} as t"))
				savepoint, err := tx.Begin(t.Context())
				must(t, err)
				_, _, err = store.WithQuery(savepoint.Query).Renew(t.Context(), token, pgsession.Renewal{})
				must(t, savepoint.Rollback(t.Context()))
				if says := slices.ContainsFunc(test.words, func(w string) bool { return strings.HasPrefix(w, "Renew") }); (err != nil) != says {
					t.Errorf("Renew: %v", err)
				}
			})
		})
	}
}

func TestCheckFindsEmptyRoomInTheTableAndItsIndexes(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	pool := pgtest.Connect(t, address)
	app, appAddress := roleIn(t, address)
	cfg := pgsession.Config{AppRole: app}
	store := setUp(t, pool.Query, cfg)
	blind := setUp(t, pgtest.Connect(t, appAddress).Query, cfg) // to the widths of columns
	quiet := func(what string) {
		t.Helper()
		for _, f := range slices.Concat(check(t, store), check(t, blind)) {
			if f.Code == pgsession.FindingBloat {
				t.Errorf("%s: %s", what, f)
			}
		}
	}
	// What a backend has counted it may report after a vacuum has: at its end it has reported.
	reported := func(statement string) {
		t.Helper()
		conn := dial(t, address, nil)
		exec(t, conn, statement)
		must(t, conn.Close(t.Context()))
		eventually(t, "its backend has ended", func() bool {
			return value[int](t, pool, "select count(*) from pg_stat_activity where pid = $1", int(conn.PgConn().PID())) == 0
		})
	}
	exec(t, pool, "alter table pgsession.session set (autovacuum_enabled = off)")
	exec(t, pool, "create index mine on pgsession.session (created_at)")
	quiet("empty")
	fill := `insert into pgsession.session (version, created_at, expires_at, prune_after, codec, id, subject, data)
		select 1, now() - i * interval '1 s', now() + interval '1 h', now() + i * interval '1 s', 0, md5(i::text) || '-----------', 'user ' || i, repeat('x', 60)::bytea
		  from generate_series(1, 120000) as i`
	reported(fill)
	quiet("filled, and not yet counted")
	exec(t, pool, "analyze pgsession.session")
	quiet("filled")
	exec(t, pool, "vacuum pgsession.session")
	quiet("filled, and vacuumed")

	reported("delete from pgsession.session where id > '02'")
	exec(t, pool, "vacuum analyze pgsession.session")
	for _, index := range []string{"session_pkey", "session_subject_idx"} {
		finding(t, check(t, store), pgsession.FindingBloat, pgsession.SeverityWarning, "the index pgsession."+index, "most of it is empty", "reindex index concurrently pgsession."+index)
	}
	reported("delete from pgsession.session")
	exec(t, pool, "vacuum analyze pgsession.session")
	finding(t, check(t, store), pgsession.FindingBloat, pgsession.SeverityWarning, "the table takes", "for 0 rows", "VACUUM FULL")
	for _, f := range check(t, store) {
		if f.Code == pgsession.FindingBloat && strings.HasPrefix(f.Remedy, "reindex") {
			exec(t, pool, f.Remedy)
		}
	}
	exec(t, pool, "vacuum full analyze pgsession.session")
	quiet("rewritten")
}
