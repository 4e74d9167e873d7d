package pgsession_test

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// only keeps the findings of a code.
func only(findings []pgsession.Finding, code string) []pgsession.Finding {
	return slices.DeleteFunc(findings, func(f pgsession.Finding) bool { return f.Code != code })
}

func TestCheckFindsThatNobodyPrunesBehindRowsThatLive(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	w.exec(t, `insert into {table} (version, created_at, expires_at, prune_after, codec, id, data)
		select 1, now() - interval '9 d', now() + interval '1 d', now() - interval '3 d', 0, 'alive ' || i, '' from generate_series(1, 10000) as i`)
	w.exec(t, `insert into {table} (version, created_at, expires_at, prune_after, codec, id, data)
		select 1, now() - interval '9 d', now() - interval '2 d', now() - interval '2 d', 0, 'dead ' || i, '' from generate_series(1, 5000) as i`)
	finding(t, check(t, w.store), pgsession.FindingCleanup, pgsession.SeverityWarning, "72h0m", "never", "Store.Prune")
	if n := w.prune(t); n != 5000 { // as the remedy says
		t.Errorf("%d rows were pruned", n)
	}
	if found := only(check(t, w.store), pgsession.FindingCleanup); len(found) > 0 {
		t.Errorf("found after a prune: %v", found)
	}

	// Half of a run leaves what it has not come to.
	w.exec(t, `update {table} set prune_after = now() - interval '1 h'`)
	w.exec(t, `select {schema}.session_prune(9000)`)
	finding(t, check(t, w.store), pgsession.FindingCleanup, pgsession.SeverityWarning, "all that is due for 1h0m")
	w.prune(t)
	if found := only(check(t, w.store), pgsession.FindingCleanup); len(found) > 0 {
		t.Errorf("found after a prune: %v", found)
	}
}

func TestCheckFindsThatNobodyPrunesAnyMore(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	owner := setUp(t, pgtest.Connect(t, c.ownerAddress).Query, c.cfg)
	app := setUp(t, pgtest.Connect(t, c.appAddress).Query, c.cfg)
	opportunistic := c.cfg
	opportunistic.Cleanup.Mode, opportunistic.Logger = pgsession.CleanupOpportunistic, slog.New(slog.DiscardHandler)
	waiting := storeOf(t, pgtest.Connect(t, c.appAddress).Query, opportunistic)

	if found := only(check(t, owner), pgsession.FindingCleanup); len(found) > 0 {
		t.Errorf("a new table: %v", found)
	}
	finding(t, check(t, app), pgsession.FindingCleanup, pgsession.SeverityInfo, "no prune is recorded")

	_, err := owner.Prune(t.Context())
	must(t, err)
	for name, store := range map[string]*pgsession.Store{"owner": owner, "app": app} {
		if found := only(check(t, store), pgsession.FindingCleanup); len(found) > 0 {
			t.Errorf("%s, after a prune: %v", name, found)
		}
	}
	exec(t, c.superuser, "update pgsession.session_cleanup set ran_at = now() - interval '20 minutes'")
	for _, store := range []*pgsession.Store{owner, app} {
		finding(t, check(t, store), pgsession.FindingCleanup, pgsession.SeverityWarning, "nobody has pruned for 20m")
	}
	if found := only(check(t, waiting), pgsession.FindingCleanup); len(found) > 0 {
		t.Errorf("without writes: %v", found)
	}
	rare := c.cfg
	rare.Cleanup.Interval = time.Hour
	if found := only(check(t, storeOf(t, pgtest.Connect(t, c.appAddress).Query, rare)), pgsession.FindingCleanup); len(found) > 0 {
		t.Errorf("once an hour: %v", found)
	}
	// Who shall do it where there are hooks.
	exec(t, c.superuser, "update pgsession.session_cleanup set hooked_at = now()")
	finding(t, check(t, owner), pgsession.FindingCleanup, pgsession.SeverityWarning, "Cleanup.OnPrune")
}

// One after the other, on one server: a database has one pg_cron.
func TestCheckOfPgCron(t *testing.T) {
	t.Parallel()
	server, pool := cronServer(t)
	exec(t, pool, "create role owner_of_all nologin")
	exec(t, pool, "grant create on database postgres to owner_of_all")
	exec(t, pool, "grant usage on schema cron to owner_of_all")
	deployer := roleAt(t, pool, server.URL(), "deployer", "login in role owner_of_all")

	t.Run("a monitor finds that the job does not run", func(t *testing.T) {
		must(t, storeOf(t, pool.Query, cronConfig("late")).Migrate(t.Context()))
		monitor := storeOf(t, pool.Query, pgsession.Config{Schema: "late"}) // which never runs Setup
		if found := only(check(t, monitor), pgsession.FindingJob); len(found) > 0 {
			t.Errorf("it is not late: %v", found)
		}
		exec(t, pool, "update late.session_cleanup set job_at = now() - interval '4 minutes'")
		finding(t, check(t, monitor), pgsession.FindingJob, pgsession.SeverityWarning, "pgsession prune late.session", `select "late"."session_cleanup_job"(null)`)
		// It leaves the work to hooks.
		exec(t, pool, "update late.session_cleanup set hooked_at = now()")
		if found := only(check(t, monitor), pgsession.FindingJob); len(found) > 0 {
			t.Errorf("there are hooks: %v", found)
		}
		exec(t, pool, "update late.session_cleanup set hooked_at = null")
		exec(t, pool, "call late.session_prune_all()")
		if found := only(check(t, monitor), pgsession.FindingJob); len(found) > 0 {
			t.Errorf("it has run: %v", found)
		}
		exec(t, pool, "update late.session_cleanup set job_at = now() - interval '4 minutes'")
		exec(t, pool, `select "late"."session_cleanup_job"(null)`)
		if found := only(check(t, monitor), pgsession.FindingJob); len(found) > 0 {
			t.Errorf("there is none: %v", found)
		}
	})
	t.Run("a superuser's job runs what another role may replace", func(t *testing.T) {
		exec(t, pool, "delete from cron.job")
		cfg := cronConfig("lent")
		cfg.Owner = "owner_of_all"
		plain := pgtest.Connect(t, deployer)
		must(t, storeOf(t, plain.Query, cfg).Migrate(t.Context()))
		must(t, storeOf(t, pool.Query, cronConfig("other")).Migrate(t.Context())) // a superuser's all through
		store := storeOf(t, pool.Query, cfg)
		if found := only(check(t, store), pgsession.FindingJob); len(found) > 0 {
			t.Errorf("the owner's job: %v", found)
		}
		exec(t, pool, "delete from cron.job where jobname like '%lent%'")
		for _, schedule := range []string{
			`select cron.schedule('pgsession prune lent.session', '* * * * *', 'select 1')`,
			`select cron.schedule('mine', '* * * * *', 'call "lent"."session_prune_all"(10000)')`,
			`select cron.schedule('mine', '* * * * *', 'begin; CALL Lent . session_prune_all ()')`,
		} {
			exec(t, pool, schedule)
			finding(t, check(t, store), pgsession.FindingJob, pgsession.SeverityError, `superuser "postgres"`, `"owner_of_all"`, "select cron.unschedule(")
			for _, f := range only(check(t, storeOf(t, plain.Query, cfg)), pgsession.FindingJob) {
				t.Errorf("who cannot see the job: %s", f)
			}
			exec(t, pool, "update cron.job set active = false where username = 'postgres'")
			if found := only(check(t, store), pgsession.FindingJob); len(found) > 0 {
				t.Errorf("it does not run: %v", found)
			}
			exec(t, pool, "update cron.job set active = true where username = 'postgres'")
			for _, f := range only(check(t, store), pgsession.FindingJob) {
				unschedule, migrate, _ := strings.Cut(f.Remedy, "; then ")
				for statement := range strings.SplitSeq(unschedule, "; ") {
					exec(t, pool, statement)
				}
				if !strings.HasPrefix(migrate, "run Migrate as the owner") {
					t.Errorf("the remedy is %s", f.Remedy)
				}
			}
			must(t, storeOf(t, plain.Query, cfg).Migrate(t.Context()))
			if found := only(check(t, store), pgsession.FindingJob); len(found) > 0 {
				t.Errorf("the remedy has not ended it: %v", found)
			}
			if got := jobs(t, pool); len(got) != 2 {
				t.Errorf("the jobs are %q", got)
			}
			exec(t, pool, "delete from cron.job where jobname like '%lent%'")
		}
		for _, schedule := range []string{
			`select cron.schedule('mine', '* * * * *', 'call other.session_prune_all()')`,
			`select cron.schedule('mine', '* * * * *', 'call not_lent.session_prune_all()')`,
			`select cron.schedule('mine', '* * * * *', 'select 1')`,
		} {
			exec(t, pool, schedule)
			if found := only(check(t, store), pgsession.FindingJob); len(found) > 0 {
				t.Errorf("%s: %v", schedule, found)
			}
		}
	})
}
