package pgsession_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
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
		{"is late by its own schedule", jobHasItsOwnPeriod},
		{"is there after Setup, whatever became of the one before", jobThatWasLost},
		{"does not run as a superuser what another role may replace", jobOfASuperuser},
		{"that may not be removed is named in the log", jobThatStays},
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
	want := []string{job + ` | * * * * * | call "a"."session_prune_all"(200) | postgres`}
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
	expectSame(t, jobs(t, pool), []string{`pgsession prune c.session | * * * * * | call "c"."session_prune_all"(200) | deployer`})
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
	expectSame(t, jobs(t, pool), []string{`pgsession prune c.session | 0 */1 * * * | call "c"."session_prune_all"(200) | deployer`})

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

func jobHasItsOwnPeriod(t *testing.T, _ *postgres.Server, pool *pgxpool.Pool) {
	cfg := cronConfig("period")
	cfg.Cleanup.Interval = time.Hour
	must(t, storeOf(t, pool.Query, cfg).Migrate(t.Context()))
	app := cronConfig("period")
	app.SkipMigrate = true
	store := storeOf(t, pool.Query, app)
	must(t, store.Setup(t.Context()))
	late := func(ago string) bool {
		exec(t, pool, "update period.session_cleanup set job_at = now() - interval '"+ago+"'")
		return slices.ContainsFunc(check(t, store), func(f pgsession.Finding) bool { return f.Code == pgsession.FindingJob })
	}
	if s, err := store.CleanupStatus(t.Context()); err != nil || s.JobPeriod != time.Hour || s.JobRole != "postgres" {
		t.Errorf("%+v, %v", s, err)
	}
	if late("30 minutes") || !late("4 hours") {
		t.Error("a job of each hour is late after half an hour, or is not after four")
	}
	// One that finds that another prune runs has run.
	var key int64
	inTransaction(t, pool, func(tx pgx.Tx) {
		exec(t, tx, "select period.session_prune()")
		key = value[int64](t, tx, `select (l.classid::int8 << 32) | l.objid::int8 from pg_locks as l
			where l.locktype = 'advisory' and l.pid = pg_backend_pid()`)
	})
	inTransaction(t, pool, func(tx pgx.Tx) {
		exec(t, tx, "select pg_advisory_xact_lock($1)", key)
		exec(t, pool, "call period.session_prune_all()")
	})
	if s, err := store.CleanupStatus(t.Context()); err != nil || s.At.Sub(s.JobRun) > time.Hour {
		t.Errorf("after a run that left the work to another: %+v, %v", s, err)
	}
}

func jobThatWasLost(t *testing.T, _ *postgres.Server, pool *pgxpool.Pool) {
	cfg := cronConfig("lost")
	cfg.Cleanup.Interval = time.Hour
	ctx := t.Context()
	must(t, storeOf(t, pool.Query, cfg).Setup(ctx))
	want := []string{`pgsession prune lost.session | 0 */1 * * * | call "lost"."session_prune_all"(200) | postgres`}
	recorded := func() string {
		t.Helper()
		return value[string](t, pool, "select concat_ws(' ', job, job_role) from lost.session_cleanup")
	}
	skip := cfg
	skip.SkipMigrate = true
	for name, losses := range map[string][]string{
		"unscheduled by hand":       {"select cron.unschedule(jobid) from cron.job"},
		"the extension made anew":   {"drop extension pg_cron", "create extension pg_cron"},
		"the database was renamed":  {"update cron.job set database = 'before'"},
		"the record":                {"select lost.session_cleanup_job(null)"},
		"the row of the record":     {"delete from lost.session_cleanup"},
		"recorded as nobody's role": {"select lost.session_cleanup_job('x', 'nobody', 60)", "delete from cron.job"},
	} {
		for _, loss := range losses {
			exec(t, pool, loss)
		}
		pool.Reset() // pg_cron keeps its table's OID as long as a connection lives
		if len(jobs(t, pool)) == 0 {
			wantText(t, storeOf(t, pool.Query, skip).Setup(ctx), "Config.SkipMigrate is set")
		}
		if err := storeOf(t, pool.Query, cfg).Setup(ctx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		expectSame(t, jobs(t, pool), want)
		if got := value[string](t, pool, "select string_agg(database, ',') from cron.job"); got != "postgres" {
			t.Errorf("%s: the job is for the database %q", name, got)
		}
		if got := recorded(); got != "pgsession prune lost.session postgres" {
			t.Errorf("%s: recorded is %q", name, got)
		}
	}

	// One for another database, which is there, is not this store's.
	exec(t, pool, "update cron.job set database = 'template1'")
	wantText(t, storeOf(t, pool.Query, cfg).Setup(ctx), "for another database")
	ticker := cfg
	ticker.Cleanup.Mode = pgsession.CleanupTicker
	must(t, storeOf(t, pool.Query, ticker).Setup(ctx))
	if n := value[int](t, pool, "select count(*) from cron.job where database = 'template1'"); n != 1 {
		t.Errorf("of another database's jobs %d are left", n)
	}
	exec(t, pool, "delete from cron.job")

	// What there is no more is not recorded.
	for _, loss := range []string{"delete from cron.job", "drop extension pg_cron"} {
		must(t, storeOf(t, pool.Query, cfg).Setup(ctx))
		exec(t, pool, loss)
		must(t, storeOf(t, pool.Query, ticker).Setup(ctx))
		if got := recorded(); got != "" {
			t.Errorf("after %s and a Setup with CleanupTicker: recorded is %q", loss, got)
		}
	}
	exec(t, pool, "create extension pg_cron")
	pool.Reset()
}

func jobThatStays(t *testing.T, server *postgres.Server, pool *pgxpool.Pool) {
	ctx := t.Context()
	exec(t, pool, "create role keeper nologin")
	exec(t, pool, "grant create on database postgres to keeper")
	maker := roleAt(t, pool, server.URL(), "maker", "login in role keeper")
	pruner := roleAt(t, pool, server.URL(), "pruner", "login")
	clerk := roleAt(t, pool, server.URL(), "clerk", "login")
	exec(t, pool, "grant usage on schema cron to maker, pruner")
	cfg := cronConfig("stays")
	cfg.Owner, cfg.AdminRole, cfg.AppRole = "keeper", "pruner", "clerk"
	must(t, storeOf(t, pgtest.Connect(t, maker).Query, cfg).Migrate(ctx))
	const stays = "a job of pg_cron stays"
	said := func(address string, cleanup pgsession.Cleanup) (log *logs) {
		t.Helper()
		log = &logs{}
		other := cfg
		other.Logger, other.Cleanup = slog.New(log), cleanup
		must(t, storeOf(t, pgtest.Connect(t, address).Query, other).Setup(ctx))
		if n := len(jobs(t, pool)); n != 1 {
			t.Errorf("%d jobs", n)
		}
		return log
	}
	for _, cleanup := range []pgsession.Cleanup{
		{Mode: pgsession.CleanupTicker}, {Mode: pgsession.CleanupOff}, {OnPrune: new(catcher).catch},
	} {
		log := said(pruner, cleanup)
		log.says(t, stays, "pgsession prune stays.session", "maker")
		if records := log.with(stays); len(records) != 1 || records[0].Level != slog.LevelWarn {
			t.Errorf("%+v", records)
		}
	}
	// Who may not prune has no say in who does.
	if records := said(clerk, pgsession.Cleanup{Mode: pgsession.CleanupOff}).with(stays); len(records) != 0 {
		t.Errorf("%+v", records)
	}
	// And its maker, or a superuser, removes it.
	cfg.Cleanup.Mode = pgsession.CleanupOff
	must(t, storeOf(t, pgtest.Connect(t, maker).Query, cfg).Setup(ctx))
	expectSame(t, jobs(t, pool), nil)
}
