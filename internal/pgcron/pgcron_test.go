// Package pgcron tests that a job of pg_cron which the library schedules really runs. pg_cron starts jobs
// at the beginning of a minute, so it takes up to one, and is a package of its own: it waits while the
// tests of others run.
package pgcron_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestTheJobRuns(t *testing.T) {
	t.Parallel()
	server := pgtest.PrivateServer(t, postgres.Options{Settings: map[string]string{
		"shared_preload_libraries": "pg_cron", "cron.database_name": "postgres", "cron.use_background_workers": "on",
		"max_worker_processes": "20",
	}})
	pgtest.ExtensionAt(t, server.URL(), "pg_cron")
	pool := pgtest.Connect(t, server.URL())
	ctx := t.Context()
	exec := func(sql string) {
		t.Helper()
		if _, err := pool.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	// As a role that is no superuser: what production has.
	exec("create role cleaner login")
	exec("grant create on database postgres to cleaner")
	exec("grant usage on schema cron to cleaner")
	address, err := postgres.WithUser(server.URL(), "cleaner", "")
	if err != nil {
		t.Fatal(err)
	}
	var stores []*pgsession.Store
	for _, schema := range []string{"pgsession", `It's "odd"`} {
		store, err := pgsession.New(pgtest.Connect(t, address).Query, pgsession.Config{
			Schema: schema, Cleanup: pgsession.Cleanup{BatchSize: 100},
			Audit: pgsession.Audit{Table: true}, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		if err := store.Setup(ctx); err != nil {
			t.Fatal(err)
		}
		if s := store.Stats().Cleanup; s.Mode != pgsession.CleanupPgCron {
			t.Fatalf("%+v", s)
		}
		exec(`insert into ` + pgx.Identifier{schema, "session"}.Sanitize() + ` (version, created_at, expires_at, prune_after, codec, id, data)
			select 1, now(), now() + case when i > 1000 then interval '1 day' else - interval '1 hour' end, now() - interval '1 minute', 0, i::text, ''
			  from generate_series(1, 1010) as i`)
		exec(`insert into ` + pgx.Identifier{schema, "session_events"}.Sanitize() + ` (at, kind)
			select now() - interval '91 days', 'created' from generate_series(1, 250)`)
		stores = append(stores, store)
	}

	// Once at the beginning of each minute; one may be too near to be met.
	deadline := time.Now().Add(150 * time.Second)
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for _, store := range stores {
		for {
			status, err := store.CleanupStatus(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if status.Due == 0 && status.Pruned == 1000 && status.LastPruned == 1000 && !status.LastRun.IsZero() {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("it did not run: %+v", status)
			}
			<-poll.C
		}
		n, err := store.Count(ctx, pgsession.Filter{})
		if s := store.Stats(); n != 10 || err != nil || s.Prunes != 0 || s.Pruned != 0 {
			t.Errorf("%d sessions are left, %v; this instance has pruned: %+v", n, err, s)
		}
		// The job goes on with the events.
		for expired, old := 0, 1; expired != 1000 || old != 0; {
			expired, old = 0, 0
			for event, err := range store.AuditEvents(ctx, pgsession.AuditFilter{}) {
				switch {
				case err != nil:
					t.Fatal(err)
				case event.Kind == pgsession.AuditExpired:
					expired++
				default:
					old++
				}
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d events of expired sessions, %d of long ago", expired, old)
			}
			<-poll.C
		}
	}
	var failed int
	err = pool.QueryRow(ctx, "select count(*) from cron.job_run_details where status = 'failed'").Scan(&failed)
	if err != nil || failed > 0 {
		t.Errorf("%d runs failed, %v", failed, err)
	}
}
