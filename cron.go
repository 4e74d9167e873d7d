package pgsession

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// cleanupPlan is who prunes, as found by Setup.
type cleanupPlan struct {
	mode     CleanupMode
	reason   string // why CleanupAuto is not pg_cron
	mayPrune bool   // the current role
	mayHook  bool   // there is a Config.Cleanup.OnPrune, and the current role may call it
}

// planCleanup finds out who prunes, and makes pg_cron's job what Config says: one that there is or
// one that there is not. Under Config.SkipMigrate it only looks.
//
// The job is that of the role that scheduled it, and runs as that role: it is the one to change or
// remove it, or a superuser. Others cannot see it in pg_cron's tables, and know of it by the record
// that the store keeps.
func (s *Store) planCleanup(ctx context.Context, state *schemaState) (cleanupPlan, error) {
	cfg := s.store.cfg
	plan := cleanupPlan{mode: cfg.Cleanup.Mode, mayPrune: state.mayExecute(cfg, "prune", "prune_events", "prune_all",
		"cleanup_job")}
	plan.mayHook = cfg.Cleanup.OnPrune != nil && state.mayExecute(cfg, "hook", "claim", "confirm")
	switch {
	case plan.mode == CleanupAuto && cfg.Cleanup.OnPrune != nil:
		plan.mode, plan.reason = CleanupTicker, "Config.Cleanup.OnPrune is set, which pg_cron cannot call"
		return plan, s.unschedule(ctx, state, plan)
	case plan.mode != CleanupAuto && plan.mode != CleanupPgCron:
		return plan, s.unschedule(ctx, state, plan)
	}
	err := s.schedule(ctx, state, plan)
	var reason *noCronError
	switch {
	case err == nil:
		plan.mode = CleanupPgCron
		return plan, nil
	case !errors.As(err, &reason):
		return plan, err
	case plan.mode == CleanupPgCron:
		return plan, fmt.Errorf("Config.Cleanup.Mode is CleanupPgCron: %w", err)
	}
	plan.mode, plan.reason = CleanupTicker, reason.Error()
	return plan, nil
}

// noCronError is why there can be no job.
type noCronError struct {
	reason string
	err    error
}

func (e *noCronError) Error() string {
	if e.err != nil {
		return e.reason + ": " + e.err.Error()
	}
	return e.reason
}

func (e *noCronError) Unwrap() error { return e.err }

func noCron(format string, args ...any) error {
	return &noCronError{reason: fmt.Sprintf(format, args...)}
}

// obstacle is why the current role cannot schedule the job, as the catalogue has it; nil: it can.
func (state *schemaState) obstacle(plan cleanupPlan) error {
	switch {
	case state.cron == "" && state.cronDatabase != "":
		return noCron("pg_cron is not installed in this database; the server runs it in the database %q", state.cronDatabase)
	case state.cron == "":
		return noCron("pg_cron is not installed in this database")
	case state.cronDatabase != "" && state.cronDatabase != state.database:
		return noCron("pg_cron is installed in this database, but the server runs it in the database %q (cron.database_name)",
			state.cronDatabase)
	case !state.mayCron:
		return noCron("this role may not schedule jobs: it needs USAGE on the schema cron")
	case !plan.mayPrune:
		return noCron("this role may not prune, and a job runs as the role that schedules it")
	case !state.mayLogIn:
		return noCron("this role cannot log in, and a job runs as the role that schedules it")
	}
	return nil
}

// runsJobs says whether a job in this database's cron.job can run.
func (state *schemaState) runsJobs() bool {
	return state.cron != "" && (state.cronDatabase == "" || state.cronDatabase == state.database)
}

// knowsGone says whether a job of that role that [Store.jobs] does not find is none: pg_cron shows each
// role its own, and a superuser all.
func (state *schemaState) knowsGone(role string) bool {
	return !state.runsJobs() || state.mayCron && (state.super || role == state.role)
}

// schedule sees to it that there is a job, or says by a noCronError why not.
func (s *Store) schedule(ctx context.Context, state *schemaState, plan cleanupPlan) error {
	cfg := s.store.cfg
	obstacle := state.obstacle(plan)
	if obstacle != nil && !state.mayExecute(cfg, "cleanup_status") {
		return obstacle
	}
	jobs, status, err := s.knownJobs(ctx, state)
	if err != nil {
		return err
	}
	name := cfg.jobName()
	recorded := status.Job != ""
	if !cfg.SkipMigrate {
		if jobs, err = s.removeLent(ctx, state, jobs); err != nil {
			return err
		}
	}
	if recorded && len(jobs) == 0 && state.knowsGone(status.JobRole) { // by hand, with the extension, or just now
		recorded = false
		if err := s.forgetJob(ctx, state); err != nil {
			return err
		}
	}
	switch {
	case obstacle != nil && recorded && state.runsJobs():
		return nil // another role's, who had no such obstacle
	case obstacle != nil:
		return obstacle
	case cfg.SkipMigrate && len(jobs) == 0 && !recorded:
		return noCron("there is no job %q, and Config.SkipMigrate is set", name)
	case cfg.SkipMigrate:
		return nil
	case len(jobs) == 0 && recorded:
		exists, super, err := s.role(ctx, status.JobRole)
		switch {
		case err != nil:
			return err
		case super && state.lender != "":
			return noCron("the job %q runs as the superuser %q what the role %q may replace; have a superuser unschedule it",
				name, status.JobRole, state.lender)
		case exists && !status.jobIsLate(cfg):
			return nil // that role's, and it runs
		}
	case len(jobs) == 0 && state.super && state.lender != "":
		return noCron("the job would run as a superuser what the role %q may replace; run Migrate as a member of that role",
			state.lender)
	}
	return s.makeJob(ctx, state, jobs, status)
}

// makeJob makes the jobs what Config says, or one if there is none, and records whose it is.
func (s *Store) makeJob(ctx context.Context, state *schemaState, jobs []cronJob, status CleanupStatus) error {
	cfg := s.store.cfg
	name, schedule, command := cfg.jobName(), cfg.Cleanup.jobSchedule(), cfg.jobCommand()
	role, changed := state.role, len(jobs) == 0
	var err error
	if len(jobs) == 0 {
		err = s.scheduleJob(ctx)
	}
	for _, j := range jobs {
		switch {
		case err != nil || !j.gone && j.schedule == schedule && j.command == command:
			continue
		case !j.own:
			_, err = s.cron(ctx, `select cron.alter_job($1::pg_catalog.int8, $2::pg_catalog.text, $3::pg_catalog.text,
				$4::pg_catalog.text)`, j.id, schedule, command, state.database)
		case j.gone: // which cron.schedule leaves as it is
			if err = s.removeJobs(ctx, j); err == nil {
				err = s.scheduleJob(ctx)
			}
		default:
			err = s.scheduleJob(ctx)
		}
		changed = true
	}
	if err != nil {
		return cronError("pg_cron refuses the job", err)
	}
	if len(jobs) > 0 && !slices.ContainsFunc(jobs, func(j cronJob) bool { return j.role == role }) {
		role = jobs[0].role
	}
	if !changed && status.Job == name && status.JobRole == role && status.JobPeriod == cfg.Cleanup.jobPeriod() {
		return nil
	}
	cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "pgsession: scheduled a job of pg_cron", slog.String("job", name),
		slog.String("schedule", schedule), slog.String("command", command), slog.String("role", role))
	return s.recordJob(ctx, name, role, cfg.Cleanup.jobPeriod().Seconds())
}

// unschedule removes the job that the library made, where there is one and the current role may. That
// it cannot is no reason not to start: the job and the ticker do not disturb each other, but for a hook,
// which ends the job's work.
func (s *Store) unschedule(ctx context.Context, state *schemaState, plan cleanupPlan) error {
	cfg := s.store.cfg
	if cfg.SkipMigrate || !state.mayExecute(cfg, "cleanup_status") {
		return nil
	}
	jobs, status, err := s.knownJobs(ctx, state)
	var refused *noCronError
	if err == nil {
		err = cronError("pg_cron refuses", s.removeJobs(ctx, jobs...))
	}
	switch {
	case err == nil && len(jobs) > 0:
		cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "pgsession: removed a job of pg_cron", slog.String("job", cfg.jobName()),
			slog.String("mode", cfg.Cleanup.Mode.String()))
	case err != nil && !errors.As(err, &refused):
		return err
	}
	if refused == nil && (len(jobs) > 0 || status.Job != "" && state.knowsGone(status.JobRole)) {
		status.Job = ""
		if err := s.forgetJob(ctx, state); err != nil {
			return err
		}
	}
	// Who may not prune has no say in who does.
	if plan.mayPrune && (refused != nil || status.Job != "") {
		attrs := []slog.Attr{
			slog.String("job", cfg.jobName()), slog.String("role", status.JobRole),
			slog.String("mode", cfg.Cleanup.Mode.String()),
		}
		if refused != nil {
			attrs = append(attrs, slog.Any("error", refused))
		}
		cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "pgsession: a job of pg_cron stays that Config.Cleanup does not "+
			"ask for; its role or a superuser must unschedule it", attrs...)
	}
	return nil
}

// removeLent removes the jobs that run as a superuser what a role that is none may replace, as those that
// were made before the store got that owner; it returns the others. Who calls is a superuser, or sees none.
func (s *Store) removeLent(ctx context.Context, state *schemaState, jobs []cronJob) (others []cronJob, err error) {
	for _, j := range jobs {
		if !j.super || state.lender == "" {
			others = append(others, j)
			continue
		}
		if err := s.removeJobs(ctx, j); err != nil {
			return nil, fmt.Errorf("the job %q runs as the superuser %q what the role %q may replace, and cannot be removed: %w",
				s.store.cfg.jobName(), j.role, state.lender, err)
		}
		s.store.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "pgsession: removed a job of pg_cron that ran as a superuser what "+
			"another role may replace", slog.String("job", s.store.cfg.jobName()), slog.String("role", j.role),
			slog.String("owner", state.lender))
	}
	return others, nil
}

// role tells of a role what everyone may know.
func (s *Store) role(ctx context.Context, name string) (exists, super bool, err error) {
	err = s.each(ctx, statement{sql: `
select r.rolsuper
  from pg_catalog.pg_roles as r
 where r.rolname operator(pg_catalog.=) $1::pg_catalog.text::pg_catalog.name`},
		[]any{name}, []any{&super}, func() { exists, super = false, false }, func() { exists = true })
	return exists, super, err
}

// forgetJob clears the record of a job that is not there.
func (s *Store) forgetJob(ctx context.Context, state *schemaState) error {
	if s.store.cfg.SkipMigrate || !state.mayExecute(s.store.cfg, "cleanup_job") {
		return nil
	}
	return s.recordJob(ctx, nil, nil, nil)
}

func (s *Store) recordJob(ctx context.Context, name, role, period any) error {
	var nothing pgtype.Text
	return s.one(ctx, s.store.sql.cleanupJob, []any{name, role, period}, &nothing)
}

// cronJob is a row of cron.job.
type cronJob struct {
	id                int64
	schedule, command string
	role              string
	own, super, gone  bool // it is the current role's; that is a superuser; its database is no more, as after a renaming
}

// knownJobs are those of the library for this store that the current role can see, its own, and a
// superuser all, and what the record says. That is read first: who makes a job records it afterwards.
func (s *Store) knownJobs(ctx context.Context, state *schemaState) (jobs []cronJob, status CleanupStatus, err error) {
	if status, err = s.readCleanup(ctx, 0); err != nil || !state.mayCron {
		return nil, status, err
	}
	if jobs, err = s.jobs(ctx); err != nil {
		return nil, status, cronError("the jobs of pg_cron cannot be read", err)
	}
	return jobs, status, nil
}

// jobs leaves out those of other databases that are there: another store's, under the same name.
func (s *Store) jobs(ctx context.Context) (jobs []cronJob, err error) {
	var j cronJob
	err = s.each(ctx, statement{sql: `
select j.jobid, j.schedule, j.command, j.username, j.username operator(pg_catalog.=) current_user::pg_catalog.text,
       coalesce(r.rolsuper, false), d.datname is null
  from cron.job as j
  left join pg_catalog.pg_roles as r on r.rolname::pg_catalog.text operator(pg_catalog.=) j.username
  left join pg_catalog.pg_database as d on d.datname::pg_catalog.text operator(pg_catalog.=) j.database
 where j.jobname::pg_catalog.text operator(pg_catalog.=) $1::pg_catalog.text
   and (d.datname is null or d.datname operator(pg_catalog.=) pg_catalog.current_database())
 order by j.jobid`},
		[]any{s.store.cfg.jobName()}, []any{&j.id, &j.schedule, &j.command, &j.role, &j.own, &j.super, &j.gone},
		func() { jobs = jobs[:0] }, func() { jobs = append(jobs, j) })
	return jobs, err
}

// removeJobs unschedules jobs. That another Setup was faster is no error.
func (s *Store) removeJobs(ctx context.Context, jobs ...cronJob) error {
	for _, j := range jobs {
		_, err := s.cron(ctx, `select cron.unschedule($1::pg_catalog.int8)`, j.id)
		if err == nil {
			continue
		}
		left, leftErr := s.jobs(ctx)
		if leftErr != nil || slices.ContainsFunc(left, func(o cronJob) bool { return o.id == j.id }) {
			return err
		}
	}
	return nil
}

// scheduleJob makes the current role's job or changes it. One of its own for another database, under the
// same name, would become neither that one's nor this one's.
func (s *Store) scheduleJob(ctx context.Context) error {
	cfg := s.store.cfg
	n, err := s.cron(ctx, `
select cron.schedule($1::pg_catalog.text, $2::pg_catalog.text, $3::pg_catalog.text)
 where not exists (
       select
         from cron.job as j
        where j.jobname::pg_catalog.text operator(pg_catalog.=) $1::pg_catalog.text
          and j.username operator(pg_catalog.=) current_user::pg_catalog.text
          and j.database operator(pg_catalog.<>) pg_catalog.current_database()::pg_catalog.text)`,
		cfg.jobName(), cfg.Cleanup.jobSchedule(), cfg.jobCommand())
	if err == nil && n == 0 {
		return noCron("this role's job %q is one for another database; give that another name", cfg.jobName())
	}
	return err
}

// cron calls a function of pg_cron whose answer tells nothing, and returns how often.
func (s *Store) cron(ctx context.Context, sql string, args ...any) (n int64, err error) {
	err = s.each(ctx, statement{sql: "select pg_catalog.count(r.*)::pg_catalog.int8 from (" + sql + ") as r", write: true},
		args, []any{&n}, func() {}, func() {})
	return n, err
}

// cronError makes an answer of the server a reason; what is no answer stays an error.
func cronError(what string, err error) error {
	if state := sqlState(err); errors.As(err, new(*noCronError)) || state == "" || strings.HasPrefix(state, classConnection) {
		return err
	}
	return &noCronError{what, err}
}

// jobName is one for each store of a database, and fits pg_cron 1.3's limit of 63 bytes.
func (c *config) jobName() string {
	const prefix = "pgsession prune "
	if name := prefix + c.Schema + "." + c.Table; len(name) <= maxIdentifierLength && strings.Count(name, ".") == 1 {
		return name
	}
	sum := sha256.Sum256([]byte(quoteIdentifier(c.Schema) + "." + quoteIdentifier(c.Table)))
	return prefix + hex.EncodeToString(sum[:16])
}

func (c *config) jobCommand() string {
	return fmt.Sprintf("call %s.%s(%d)", quoteIdentifier(c.Schema), quoteIdentifier(c.Table+"_prune_all"), c.Cleanup.BatchSize)
}

// jobPeriod is the time between two runs of a job: Interval in whole minutes, rounded down to what a
// schedule of cron can say evenly within an hour, or a day.
func (c Cleanup) jobPeriod() time.Duration {
	switch {
	case c.Interval >= 24*time.Hour:
		return 24 * time.Hour
	case c.Interval >= time.Hour:
		return divisor(24, int(c.Interval/time.Hour)) * time.Hour
	}
	return divisor(60, max(1, int(c.Interval/time.Minute))) * time.Minute
}

// divisor is the greatest divisor of n that is not above limit.
func divisor(n, limit int) time.Duration {
	for n%limit != 0 {
		limit--
	}
	return time.Duration(limit)
}

// jobSchedule is the job's in cron's words. pg_cron 1.4 knows no seconds.
func (c Cleanup) jobSchedule() string {
	switch period := c.jobPeriod(); {
	case period == time.Minute:
		return "* * * * *"
	case period < time.Hour:
		return fmt.Sprintf("*/%d * * * *", period/time.Minute)
	case period < 24*time.Hour:
		return fmt.Sprintf("0 */%d * * *", period/time.Hour)
	}
	return "0 0 * * *"
}
