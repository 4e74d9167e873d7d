package pgsession_test

import (
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

func jobOfASuperuser(t *testing.T, server *postgres.Server, pool *pgxpool.Pool) {
	ctx := t.Context()
	exec(t, pool, "create role low nologin")
	member := roleAt(t, pool, server.URL(), "member", "login in role low")
	roleAt(t, pool, server.URL(), "watcher", "login")
	exec(t, pool, "grant usage on schema cron to member")
	exec(t, pool, "create role root superuser login")
	log := &logs{}
	cfg := cronConfig("lent")
	cfg.AdminRole = "watcher"
	must(t, storeOf(t, pool.Query, cfg).Setup(ctx))
	// A superuser's of another name too.
	exec(t, pool, `insert into cron.job (schedule, command, database, username, jobname)
		select schedule, command, database, 'root', jobname from cron.job`)

	// Handed over by hand, it is found.
	exec(t, pool, "alter procedure lent.session_prune_all owner to low")
	owned := cfg
	owned.Owner, owned.Logger = "low", slog.New(log)
	for _, superuser := range []string{"postgres", "root"} {
		finding(t, check(t, storeOf(t, pool.Query, cfg)), pgsession.FindingJob, pgsession.SeverityError, `superuser "`+superuser+`"`, `"low"`)
	}

	// Handed over by Migrate, it is removed, whatever the mode.
	again := func() {
		exec(t, pool, "delete from cron.job")
		for _, kind := range []string{"procedure lent.session_prune_all", "table lent.session"} {
			exec(t, pool, "alter "+kind+" owner to postgres")
		}
		exec(t, pool, "drop schema lent cascade")
		must(t, storeOf(t, pool.Query, cfg).Setup(ctx))
		if n := len(jobs(t, pool)); n != 1 {
			t.Errorf("%d jobs", n)
		}
	}
	for _, mode := range []pgsession.CleanupMode{pgsession.CleanupPgCron, pgsession.CleanupAuto, pgsession.CleanupOff} {
		again()
		owned.Cleanup.Mode = mode
		store := storeOf(t, pool.Query, owned)
		err := store.Setup(ctx)
		if mode == pgsession.CleanupPgCron {
			wantText(t, err, `as a superuser what the role "low" may replace`)
		} else {
			must(t, err)
		}
		expectSame(t, jobs(t, pool), nil)
		if s, err := store.CleanupStatus(ctx); err != nil || s.Job != "" {
			t.Errorf("mode %v: %+v, %v", mode, s, err)
		}
		for _, f := range check(t, store) {
			if f.Code == pgsession.FindingJob {
				t.Errorf("mode %v: %s", mode, f)
			}
		}
	}
	log.says(t, "ran as a superuser", "pgsession prune lent.session", "postgres", "low")

	// A member of the owner cannot see a superuser's, and does not hide it behind its own.
	exec(t, pool, "select lent.session_cleanup_job('pgsession prune lent.session', 'root', 60)")
	owned.Cleanup.Mode = pgsession.CleanupPgCron
	wantText(t, storeOf(t, pgtest.Connect(t, member).Query, owned).Setup(ctx), `as the superuser "root" what the role "low" may replace`)
	// A superuser finds that it is gone; then the member's is made, and kept by a superuser.
	wantText(t, storeOf(t, pool.Query, owned).Setup(ctx), "run Migrate as a member of that role")
	for _, query := range []pgsession.QueryFunc{pgtest.Connect(t, member).Query, pool.Query} {
		must(t, storeOf(t, query, owned).Setup(ctx))
		expectSame(t, jobs(t, pool), []string{`pgsession prune lent.session | * * * * * | call "lent"."session_prune_all"(200) | member`})
	}
}
