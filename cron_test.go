package pgsession_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

// That a job really runs, within the minute that it takes, is tested in internal/pgcron.

// cronServer is a server with pg_cron in the database postgres.
func cronServer(t *testing.T) (server *postgres.Server, pool *pgxpool.Pool) {
	t.Helper()
	server = pgtest.PrivateServer(t, postgres.Options{Settings: map[string]string{
		"shared_preload_libraries": "pg_cron", "cron.database_name": "postgres", "cron.use_background_workers": "on",
		"max_worker_processes": "20",
	}})
	pgtest.ExtensionAt(t, server.URL(), "pg_cron")
	return server, pgtest.Connect(t, server.URL())
}

// jobs are pg_cron's, as name, schedule, command and role.
func jobs(t *testing.T, db executor) []string {
	t.Helper()
	return column[string](t, db, "select concat_ws(' | ', jobname, schedule, command, username, case when not active then 'inactive' end) from cron.job")
}

func cronConfig(schema string) pgsession.Config {
	return pgsession.Config{
		Schema: schema, Logger: slog.New(slog.DiscardHandler), Cleanup: pgsession.Cleanup{Mode: pgsession.CleanupPgCron},
	}
}

// roleAt creates a role that can log in at a private server, which trusts it.
func roleAt(t *testing.T, pool *pgxpool.Pool, address, name, options string) string {
	t.Helper()
	exec(t, pool, "create role "+name+" "+options)
	address, err := postgres.WithUser(address, name, "")
	must(t, err)
	return address
}

// One after the other, on one server: a database has one pg_cron.
func TestPgCron(t *testing.T) {
	t.Parallel()
	server, pool := cronServer(t)
	for _, test := range []struct {
		name string
		f    func(t *testing.T, server *postgres.Server, pool *pgxpool.Pool)
	}{
		{"has the job that Config asks for", jobIsAsConfigured},
		{"has a job that was made in a transaction only if that is committed", jobInTransaction},
		{"is watched, and Auto prunes where it does not", jobThatDoesNotRun},
		{"says why it cannot be, and Auto is the ticker", jobThatCannotBe}, // restarts the server
	} {
		exec(t, pool, "delete from cron.job")
		t.Run(test.name, func(t *testing.T) { test.f(t, server, pool) })
	}
}

func jobIsAsConfigured(t *testing.T, server *postgres.Server, pool *pgxpool.Pool) {
	ctx := t.Context()
	set := func(query pgsession.QueryFunc, cfg pgsession.Config) (*pgsession.Store, error) {
		store := storeOf(t, query, cfg)
		return store, store.Setup(ctx)
	}
	const job = "pgsession prune a.session"

	// Made, kept, changed and removed.
	cfg := cronConfig("a")
	store, err := set(pool.Query, cfg)
	must(t, err)
	want := []string{job + ` | * * * * * | call "a"."session_prune_all"(10000) | postgres`}
	expectSame(t, jobs(t, pool), want)
	id := value[int64](t, pool, "select jobid from cron.job")
	must(t, store.Setup(ctx))
	must(t, store.Migrate(ctx))
	if s := store.Stats().Cleanup; s.Mode != pgsession.CleanupPgCron || s.Reason != "" {
		t.Errorf("%+v", s)
	}
	if status, err := store.CleanupStatus(ctx); err != nil || status.Job != job || status.JobRun.IsZero() {
		t.Errorf("%+v, %v", status, err)
	}
	cfg.Cleanup.Mode, cfg.Cleanup.BatchSize = pgsession.CleanupAuto, 500
	for _, c := range []struct {
		interval time.Duration
		schedule string
	}{
		{time.Second, "* * * * *"},
		{5 * time.Minute, "*/5 * * * *"},
		{44 * time.Minute, "*/30 * * * *"},
		{7 * time.Hour, "0 */6 * * *"},
		{99 * time.Hour, "0 0 * * *"},
		{time.Minute, "* * * * *"},
	} {
		cfg.Cleanup.Interval = c.interval
		_, err = set(pool.Query, cfg)
		must(t, err)
		expectSame(t, jobs(t, pool), []string{job + ` | ` + c.schedule + ` | call "a"."session_prune_all"(500) | postgres`})
	}
	if now := value[int64](t, pool, "select jobid from cron.job"); now != id {
		t.Errorf("the job is %d and was %d: it was not changed but made again", now, id)
	}
	// It does what it says.
	exec(t, pool, value[string](t, pool, "select command from cron.job"))

	skip := cfg
	skip.SkipMigrate, skip.Cleanup.Mode = true, pgsession.CleanupOff
	_, err = set(pool.Query, skip)
	must(t, err)
	if n := len(jobs(t, pool)); n != 1 {
		t.Errorf("SkipMigrate has left %d jobs", n)
	}
	for _, mode := range []pgsession.CleanupMode{pgsession.CleanupTicker, pgsession.CleanupOpportunistic, pgsession.CleanupOff} {
		_, err = set(pool.Query, cfg)
		must(t, err)
		off := cfg
		off.Cleanup.Mode = mode
		_, err = set(pool.Query, off)
		must(t, err)
		if left := jobs(t, pool); len(left) != 0 {
			t.Errorf("mode %v leaves %q", mode, left)
		}
		if status, err := store.CleanupStatus(ctx); err != nil || status.Job != "" {
			t.Errorf("%+v, %v", status, err)
		}
	}
	skip.Cleanup.Mode = pgsession.CleanupPgCron
	_, err = set(pool.Query, skip)
	wantText(t, err, "Config.SkipMigrate is set")
	if n := len(jobs(t, pool)); n != 0 {
		t.Errorf("SkipMigrate has made %d jobs", n)
	}

	// A hook is for the ticker.
	hooked := cfg
	hooked.Cleanup.OnPrune = new(catcher).catch
	store, err = set(pool.Query, hooked)
	must(t, err)
	if s := store.Stats().Cleanup; s.Mode != pgsession.CleanupTicker || !strings.Contains(s.Reason, "OnPrune") || len(jobs(t, pool)) != 0 {
		t.Errorf("with a hook: %+v, %q", s, jobs(t, pool))
	}

	// Names that need quotes, and that are too long for a readable name.
	odd := []pgsession.Config{cronConfig(`My "odd" Schema`), cronConfig("a"), cronConfig(strings.Repeat("s", 50)), cronConfig("a")}
	odd[0].Table, odd[1].Table, odd[3].Table = `it's; a "table"`, "b.c", "other"
	for _, cfg := range odd {
		_, err := set(pool.Query, cfg)
		must(t, err)
	}
	commands := column[string](t, pool, "select command from cron.job")
	if len(commands) != len(odd) || value[int](t, pool, "select count(distinct jobname) from cron.job") != len(odd) {
		t.Errorf("the jobs are %q", jobs(t, pool))
	}
	for _, command := range commands {
		exec(t, pool, command)
	}
	for _, cfg := range odd {
		cfg.Cleanup.Mode = pgsession.CleanupOff
		_, err := set(pool.Query, cfg)
		must(t, err)
	}
	expectSame(t, jobs(t, pool), nil)

	t.Run("fifty at once make one", func(t *testing.T) {
		cfg := cronConfig("many")
		store, err := set(pool.Query, pgsession.Config{Schema: "many", Cleanup: withoutCleanup})
		must(t, err)
		must(t, store.Close())
		var group sync.WaitGroup
		for range 50 {
			store := storeOf(t, pgtest.Connect(t, server.URL()).Query, cfg)
			group.Go(func() {
				if err := store.Setup(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if n := len(jobs(t, pool)); n != 1 {
			t.Errorf("%d jobs", n)
		}
		cfg.Cleanup.Mode = pgsession.CleanupOff
		for range 10 {
			store := storeOf(t, pgtest.Connect(t, server.URL()).Query, cfg)
			group.Go(func() {
				if err := store.Setup(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		expectSame(t, jobs(t, pool), nil)
	})
}

func jobThatCannotBe(t *testing.T, server *postgres.Server, pool *pgxpool.Pool) {
	elsewhere, drop, err := server.CreateDatabase(t.Context())
	must(t, err)
	t.Cleanup(drop)
	exec(t, pool, "create role owner_of_all nologin")
	exec(t, pool, "grant create on database postgres to owner_of_all")
	deployer := roleAt(t, pool, server.URL(), "deployer", "login in role owner_of_all")
	app := roleAt(t, pool, server.URL(), "app", "login")
	admin := roleAt(t, pool, server.URL(), "admin", "login")
	exec(t, pool, "create role nobody_logs_in nologin")
	exec(t, pool, "grant usage on schema cron to nobody_logs_in, deployer, owner_of_all")
	exec(t, pool, "grant owner_of_all to nobody_logs_in")

	base := pgsession.Config{Schema: "c", Owner: "owner_of_all", AppRole: "app", AdminRole: "admin", Logger: slog.New(slog.DiscardHandler)}
	make1 := base
	make1.Cleanup.Mode = pgsession.CleanupOff
	must(t, storeOf(t, pgtest.Connect(t, deployer).Query, make1).Setup(t.Context()))
	for _, c := range []struct {
		name, address string
		settings      map[string]string
		schema        string
		want          string
	}{
		{"another database", elsewhere, nil, "pgsession", `the server runs it in the database "postgres"`},
		{"no right to the schema", admin, nil, "c", "needs USAGE on the schema cron"},
		{"no right to prune", app, nil, "c", "needs USAGE on the schema cron"},
		{"a role that cannot log in", server.URL(), map[string]string{"role": "nobody_logs_in"}, "c", "cannot log in"},
	} {
		cfg := base
		cfg.Schema = c.schema
		if c.schema != "c" {
			cfg = pgsession.Config{Logger: cfg.Logger}
		}
		query := exclusive(dial(t, c.address, c.settings).Query)
		auto := storeOf(t, query, cfg)
		must(t, auto.Setup(t.Context()))
		if s := auto.Stats().Cleanup; s.Mode != pgsession.CleanupTicker || !strings.Contains(s.Reason, c.want) {
			t.Errorf("%s: %+v", c.name, s)
		}
		must(t, auto.Close())
		cfg.Cleanup.Mode = pgsession.CleanupPgCron
		err := storeOf(t, query, cfg).Setup(t.Context())
		wantText(t, err, c.want)
		wantText(t, err, "CleanupPgCron")
	}
	expectSame(t, jobs(t, pool), nil)

	// Its owner could make of the procedure what it likes, and be a superuser.
	lent := base
	lent.Cleanup.Mode = pgsession.CleanupPgCron
	wantText(t, storeOf(t, pool.Query, lent).Setup(t.Context()), `as a superuser what the role "owner_of_all" may replace`)
	expectSame(t, jobs(t, pool), nil)

	// The deploy job schedules it; who may not knows of it.
	strict := base
	strict.Cleanup.Mode = pgsession.CleanupPgCron
	must(t, storeOf(t, pgtest.Connect(t, deployer).Query, strict).Migrate(t.Context()))
	expectSame(t, jobs(t, pool), []string{`pgsession prune c.session | * * * * * | call "c"."session_prune_all"(10000) | deployer`})
	for _, address := range []string{app, admin} {
		for _, cfg := range []pgsession.Config{strict, base} {
			store := storeOf(t, pgtest.Connect(t, address).Query, cfg)
			must(t, store.Setup(t.Context()))
			if s := store.Stats().Cleanup; s.Mode != pgsession.CleanupPgCron {
				t.Errorf("%+v", s)
			}
		}
	}
	// Another role that could make one of its own leaves it at that.
	exec(t, pool, "grant usage on schema cron to admin")
	must(t, storeOf(t, pgtest.Connect(t, admin).Query, strict).Setup(t.Context()))
	if n := len(jobs(t, pool)); n != 1 {
		t.Errorf("the jobs are %q", jobs(t, pool))
	}
	// A superuser changes it, and it stays its maker's.
	strict.Cleanup.Interval = time.Hour
	must(t, storeOf(t, pool.Query, strict).Setup(t.Context()))
	expectSame(t, jobs(t, pool), []string{`pgsession prune c.session | 0 */1 * * * | call "c"."session_prune_all"(10000) | deployer`})

	// pg_cron itself says no.
	conn := dial(t, server.URL(), nil)
	exec(t, conn, "alter system set cron.enable_superuser_jobs = off")
	must(t, conn.Close(t.Context()))
	must(t, server.Restart(t.Context()))
	again := pgtest.Connect(t, server.URL())
	err = storeOf(t, again.Query, cronConfig("d")).Setup(t.Context())
	wantText(t, err, "pg_cron refuses the job")
	auto := cronConfig("d")
	auto.Cleanup.Mode = pgsession.CleanupAuto
	store := storeOf(t, again.Query, auto)
	must(t, store.Setup(t.Context()))
	if s := store.Stats().Cleanup; s.Mode != pgsession.CleanupTicker || !strings.Contains(s.Reason, "refuses") {
		t.Errorf("%+v", s)
	}
}

func jobThatDoesNotRun(t *testing.T, _ *postgres.Server, pool *pgxpool.Pool) {
	log := &logs{}
	cfg := cronConfig("pgsession")
	cfg.Logger, cfg.Cleanup.Interval = slog.New(log), time.Millisecond
	strict := storeOf(t, pool.Query, cfg)
	must(t, strict.Setup(t.Context()))
	cfg.Cleanup.Mode = pgsession.CleanupAuto
	auto := storeOf(t, pool.Query, cfg)
	must(t, auto.Setup(t.Context()))
	eventually(t, "both watch", func() bool {
		return !auto.Stats().Cleanup.At.IsZero() && !strict.Stats().Cleanup.At.IsZero()
	})
	exec(t, pool, "select cron.alter_job(jobid, active := false) from cron.job")
	w := &way{see: pool.Query, schema: "pgsession", table: "pgsession.session"}
	w.expire(t, 20, "s")
	if s := auto.Stats(); s.Prunes != 0 {
		t.Errorf("it prunes beside the job: %+v", s)
	}
	exec(t, pool, "update pgsession.session_cleanup set job_at = now() - interval '4 minutes'")
	eventually(t, "it is pruned", func() bool { return w.rows(t) == 0 && auto.Stats().Pruned == 20 })
	log.says(t, "does not run", "pgsession prune pgsession.session")
	eventually(t, "both have said so", func() bool { return len(log.with("does not run")) == 2 })
	finding(t, check(t, strict), pgsession.FindingJob, pgsession.SeverityWarning, "pgsession prune pgsession.session")
	if s := strict.Stats(); s.Prunes != 0 || s.Pruned != 0 {
		t.Errorf("CleanupPgCron prunes by itself: %+v", s)
	}
	eventually(t, "it runs again, when nobody else prunes", func() bool {
		exec(t, pool, "call pgsession.session_prune_all()")
		return len(log.with("runs again")) > 0
	})
	for _, f := range check(t, strict) {
		if f.Code == pgsession.FindingJob {
			t.Errorf("it runs again: %s", f)
		}
	}
}

func jobInTransaction(t *testing.T, _ *postgres.Server, pool *pgxpool.Pool) {
	tx, err := pool.BeginTx(t.Context(), pgx.TxOptions{})
	must(t, err)
	must(t, storeOf(t, tx.Query, cronConfig("pgsession")).Migrate(t.Context()))
	must(t, tx.Rollback(context.Background()))
	if n := value[int](t, pool, "select count(*) from cron.job"); n != 0 {
		t.Error(fmt.Sprint(n, " jobs of what was rolled back"))
	}
}
