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

// schedule sees to it that there is a job, or says by a noCronError why not.
func (s *Store) schedule(ctx context.Context, state *schemaState, plan cleanupPlan) error {
	cfg := s.store.cfg
	obstacle := state.obstacle(plan)
	if state.cron == "" || obstacle != nil && !state.mayExecute(cfg, "cleanup_status") {
		return obstacle
	}
	status, err := s.cleanupStatus(ctx)
	if err != nil {
		return err
	}
	if obstacle != nil {
		if status.Job != "" && (state.cronDatabase == "" || state.cronDatabase == state.database) {
			return nil // another role's, who had no such obstacle
		}
		return obstacle
	}
	jobs, err := s.jobs(ctx)
	if err != nil {
		return cronError("the jobs of pg_cron cannot be read", err)
	}
	name, schedule, command := cfg.jobName(), cfg.Cleanup.jobSchedule(), cfg.jobCommand()
	if cfg.SkipMigrate {
		if len(jobs) == 0 && status.Job == "" {
			return noCron("there is no job %q, and Config.SkipMigrate is set", name)
		}
		return nil
	}
	if len(jobs) == 0 && status.Job == name && status.At.Sub(status.JobRun) < latePeriods*cfg.Cleanup.jobPeriod() {
		return nil // another role's, and it runs
	}
	if state.lender != "" && !slices.ContainsFunc(jobs, func(j cronJob) bool { return !j.own }) {
		return noCron("the job would run as a superuser what the role %q may replace; run Migrate as a member of that role",
			state.lender)
	}
	changed := false
	for _, j := range jobs {
		switch {
		case j.schedule == schedule && j.command == command:
		case j.own:
			changed = true
			err = s.cron(ctx, `select cron.schedule($1::pg_catalog.text, $2::pg_catalog.text, $3::pg_catalog.text)`,
				name, schedule, command)
		default:
			changed = true
			err = s.cron(ctx, `select cron.alter_job($1::pg_catalog.int8, $2::pg_catalog.text, $3::pg_catalog.text)`,
				j.id, schedule, command)
		}
	}
	if len(jobs) == 0 {
		changed = true
		err = s.cron(ctx, `select cron.schedule($1::pg_catalog.text, $2::pg_catalog.text, $3::pg_catalog.text)`,
			name, schedule, command)
	}
	if err != nil {
		return cronError("pg_cron refuses the job", err)
	}
	if !changed && status.Job == name {
		return nil
	}
	cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "pgsession: scheduled a job of pg_cron", slog.String("job", name),
		slog.String("schedule", schedule), slog.String("command", command))
	return s.recordJob(ctx, name)
}

// unschedule removes the job that the library made, where there is one and the current role may. That
// it cannot is no reason not to start: the job and the ticker do not disturb each other.
func (s *Store) unschedule(ctx context.Context, state *schemaState, plan cleanupPlan) error {
	cfg := s.store.cfg
	if cfg.SkipMigrate || state.obstacle(plan) != nil {
		return nil //nolint:nilerr // what keeps the job from being made keeps it from being removed
	}
	jobs, err := s.jobs(ctx)
	for _, j := range jobs {
		if err = s.cron(ctx, `select cron.unschedule($1::pg_catalog.int8)`, j.id); err != nil {
			break
		}
	}
	var refused *noCronError
	switch {
	case err == nil && len(jobs) == 0:
		return nil
	case err != nil && !errors.As(cronError("", err), &refused):
		return err
	case err != nil:
		// Another Setup may have been faster.
		if left, leftErr := s.jobs(ctx); leftErr != nil || len(left) > 0 {
			cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "pgsession: a job of pg_cron cannot be removed",
				slog.String("job", cfg.jobName()), slog.Any("error", err))
		}
		return nil
	}
	cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "pgsession: removed a job of pg_cron", slog.String("job", cfg.jobName()),
		slog.String("mode", cfg.Cleanup.Mode.String()))
	return s.recordJob(ctx, "")
}

func (s *Store) recordJob(ctx context.Context, name string) error {
	var nothing pgtype.Text
	var arg any
	if name != "" {
		arg = name
	}
	return s.one(ctx, s.store.sql.cleanupJob, []any{arg}, &nothing)
}

// cronJob is a row of cron.job.
type cronJob struct {
	id                int64
	schedule, command string
	own               bool // it is the current role's
}

// jobs are those of the library for this store that the current role can see: its own, and a
// superuser all.
func (s *Store) jobs(ctx context.Context) (jobs []cronJob, err error) {
	var j cronJob
	err = s.each(ctx, statement{sql: `
select j.jobid, j.schedule, j.command, j.username operator(pg_catalog.=) current_user::pg_catalog.text
  from cron.job as j
 where j.jobname::pg_catalog.text operator(pg_catalog.=) $1::pg_catalog.text
   and j.database operator(pg_catalog.=) pg_catalog.current_database()::pg_catalog.text`},
		[]any{s.store.cfg.jobName()}, []any{&j.id, &j.schedule, &j.command, &j.own},
		func() { jobs = jobs[:0] }, func() { jobs = append(jobs, j) })
	return jobs, err
}

// cron calls a function of pg_cron whose answer tells nothing.
func (s *Store) cron(ctx context.Context, sql string, args ...any) error {
	return s.each(ctx, statement{sql: "select pg_catalog.count(r.*)::pg_catalog.int8 from (" + sql + ") as r", write: true},
		args, []any{new(int64)}, func() {}, func() {})
}

// cronError makes an answer of the server a reason; what is no answer stays an error.
func cronError(what string, err error) error {
	if state := sqlState(err); state == "" || strings.HasPrefix(state, classConnection) {
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
