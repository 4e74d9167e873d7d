package pgsession

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// hookDay is how long after sessions were handed to a hook expired ones are left to instances with one.
const hookDay = 24 * time.Hour

func (c *checker) checkCleanup(ctx context.Context) error {
	if !c.state.mayExecute(c.cfg, "cleanup_status") {
		if c.state.table != "" {
			c.find(SeverityInfo, FindingUnobservable, "grant EXECUTE on "+c.cfg.Table+"_cleanup_status to the role that checks",
				"the current role may not see how the pruning goes")
		}
		return nil
	}
	if !c.state.cleanup || c.state.strangers[c.state.owners[c.cfg.Table+"_cleanup_status"]] {
		return nil // checkSchema has it
	}
	status, err := c.store.cleanupStatus(ctx)
	switch {
	case err != nil && sqlState(err) == "":
		return err
	case err != nil:
		c.find(SeverityError, FindingCleanup, remedySetup, "how the pruning goes cannot be read: %v", err)
		return nil
	}
	if err := c.checkLag(ctx, status); err != nil {
		return err
	}
	if !status.KeptAt.IsZero() && status.At.Sub(status.KeptAt) < 24*time.Hour {
		c.find(SeverityWarning, FindingCleanup, "have foreign keys be ON DELETE CASCADE or SET NULL, and triggers not raise",
			"%d sessions or more could not be deleted %s: %s", status.Kept, when(status.KeptAt), status.KeptReason)
	}
	hooked := status.At.Sub(status.Hook).Abs() < hookDay // and the job has nothing to do
	if status.Job != "" && !hooked && status.jobIsLate(c.cfg) {
		c.find(SeverityWarning, FindingJob, "see cron.job and cron.job_run_details: it is inactive, or pg_cron cannot connect; "+
			"if it was removed on purpose: "+c.forgetJob(),
			"pg_cron's job %q has last run %s", status.Job, when(status.JobRun))
	}
	if reason := c.store.store.cleanup.get().Reason; reason != "" {
		c.find(SeverityInfo, FindingCleanup, "none is needed", "this instance prunes by its ticker: %s", reason)
	}
	return nil
}

// forgetJob is the statement that ends the record of a job.
func (c *checker) forgetJob() string {
	return fmt.Sprintf("select %s.%s(null)", quoteIdentifier(c.cfg.Schema), quoteIdentifier(c.cfg.Table+"_cleanup_job"))
}

// checkLag says that nobody prunes, or not enough. What should be gone shows it, but only among the rows
// that are looked at. That a row's prune_after is long past shows it too, whether the session lives
// or not: each prune that comes to its end deletes all such rows, or moves it. And so does the last prune.
func (c *checker) checkLag(ctx context.Context, status CleanupStatus) error {
	remedy := "see that an instance or a job prunes; Store.Prune does it now"
	if status.At.Sub(status.Hook).Abs() < hookDay {
		remedy = "see that an instance with Cleanup.OnPrune prunes: expired sessions are left to those for a day after one has"
	}
	overdue, known, err := c.overdue(ctx)
	idle := status.At.Sub(status.LastRun)
	limit := c.cfg.Check.Lag
	switch {
	case err != nil:
		return err
	case status.Lag > limit:
		c.find(SeverityWarning, FindingCleanup, remedy,
			"%d rows or more should be gone, the oldest for %v; the last prune ended %s",
			status.Due, status.Lag.Round(time.Second), when(status.LastRun))
	case overdue > limit:
		c.find(SeverityWarning, FindingCleanup, remedy,
			"no prune has looked at all that is due for %v; the last one ended %s",
			overdue.Round(time.Second), when(status.LastRun))
	case status.LastRun.IsZero() && !known:
		c.find(SeverityInfo, FindingCleanup, "see that an instance or a job prunes; the table's owner sees for how long none has",
			"no prune is recorded")
	case !status.LastRun.IsZero() && idle > limit && c.cfg.Cleanup.Mode != CleanupOpportunistic: // which waits for writes
		c.find(SeverityWarning, FindingCleanup, remedy, "nobody has pruned for %v", idle.Round(time.Second))
	}
	return nil
}

// overdue is how long ago the oldest prune_after was, if the current role may see.
func (c *checker) overdue(ctx context.Context) (overdue time.Duration, known bool, err error) {
	if !c.mayRead || c.state.types["prune_after"] != "timestamptz" {
		return 0, false, nil
	}
	var seconds float64
	err = c.each(ctx, fmt.Sprintf(`
select coalesce(pg_catalog.date_part('epoch',
           pg_catalog.clock_timestamp() operator(pg_catalog.-) pg_catalog.min(t.prune_after)), 0)
  from %s.%s as t`, quoteIdentifier(c.cfg.Schema), quoteIdentifier(c.cfg.Table)), nil, []any{&seconds}, func() {})
	return time.Duration(seconds * float64(time.Second)), true, err
}

func when(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return "at " + t.Format(time.RFC3339)
}

// checkJobs looks for jobs that run as a superuser what a role may replace that is none. pg_cron shows a
// job to superusers, and to the role that it is of.
func (c *checker) checkJobs(ctx context.Context) error {
	if c.state.cron == "" || c.state.table == "" {
		return nil
	}
	readable := false
	if err := c.each(ctx, mayReadJobsSQL, nil, []any{&readable}, func() {}); err != nil || !readable {
		return err
	}
	var jobs []string // and whose they are
	var id, name, user, command string
	ours := c.cfg.jobCommandPattern()
	err := c.store.each(ctx, statement{sql: superuserJobsSQL}, nil, []any{&id, &name, &user, &command},
		func() { jobs = nil }, func() {
			if name == c.cfg.jobName() || ours.MatchString(command) {
				jobs = append(jobs, id, user)
			}
		})
	if err != nil || len(jobs) == 0 {
		return err
	}
	var roles []string
	var role string
	err = c.store.each(ctx, statement{sql: lendersSQL}, []any{c.cfg.Schema, c.cfg.Table}, []any{&role},
		func() { roles = nil }, func() { roles = append(roles, fmt.Sprintf("%q", role)) })
	if err != nil || len(roles) == 0 {
		return err
	}
	for i := 0; i < len(jobs); i += 2 {
		c.find(SeverityError, FindingJob, fmt.Sprintf("select cron.unschedule(%s); %s; then run Migrate as the owner, or as a "+
			"member of it", jobs[i], c.forgetJob()),
			"pg_cron's job %s runs as the superuser %q what %s may replace: who is that can be a superuser",
			jobs[i], jobs[i+1], strings.Join(roles, ", "))
	}
	return nil
}

// jobCommandPattern matches a command that calls the procedure, whoever has written it.
func (c *config) jobCommandPattern() *regexp.Regexp {
	either := func(name string) string {
		return `(?:` + regexp.QuoteMeta(quoteIdentifier(name)) + `|` + regexp.QuoteMeta(name) + `)`
	}
	return regexp.MustCompile(`(?i)(?:^|[^\w$"])` + either(c.Schema) + `\s*\.\s*` + either(c.Table+"_prune_all") + `\s*\(`)
}

const mayReadJobsSQL = `
select pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_table_privilege(c.oid, 'select')
  from pg_catalog.pg_class as c
  join pg_catalog.pg_namespace as n on n.oid operator(pg_catalog.=) c.relnamespace
 where n.nspname operator(pg_catalog.=) 'cron'::pg_catalog.name
   and c.relname operator(pg_catalog.=) 'job'::pg_catalog.name`

const superuserJobsSQL = `
select j.jobid::pg_catalog.text, coalesce(j.jobname::pg_catalog.text, ''), r.rolname::pg_catalog.text, j.command
  from cron.job as j
  join pg_catalog.pg_roles as r on r.rolname::pg_catalog.text operator(pg_catalog.=) j.username and r.rolsuper
 where j.active
   and j.database operator(pg_catalog.=) pg_catalog.current_database()::pg_catalog.text
 order by j.jobid`

// lendersSQL tells who can replace what the procedure for pg_cron runs: its owner, that of a function that it
// calls, and that of the schema, which may drop all of them.
const lendersSQL = `
select distinct r.rolname::pg_catalog.text
  from pg_catalog.pg_namespace as n
  left join pg_catalog.pg_proc as p
    on p.pronamespace operator(pg_catalog.=) n.oid
   and p.proname operator(pg_catalog.=) any (array[
           $2::pg_catalog.text operator(pg_catalog.||) '_prune_all',
           $2::pg_catalog.text operator(pg_catalog.||) '_prune',
           $2::pg_catalog.text operator(pg_catalog.||) '_prune_events']::pg_catalog.name[])
  join pg_catalog.pg_roles as r
    on r.oid operator(pg_catalog.=) any (array[n.nspowner, p.proowner]) and not r.rolsuper
 where n.nspname operator(pg_catalog.=) $1::pg_catalog.text::pg_catalog.name
 order by 1`
