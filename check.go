package pgsession

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// Severity is how bad a [Finding] is.
type Severity int

const (
	// SeverityInfo: nothing is wrong, but it is good to know.
	SeverityInfo Severity = iota
	// SeverityWarning: it works, but not as well or as safely as it should.
	SeverityWarning
	// SeverityError: it does not work, or what must be kept from others is not.
	SeverityError
)

func (s Severity) String() string {
	if s < SeverityInfo || s > SeverityError {
		return fmt.Sprintf("Severity(%d)", int(s))
	}
	return [...]string{"info", "warning", "error"}[s]
}

// Finding is something that [Store.Check] noticed.
type Finding struct {
	Code     string // one of the Finding constants, which do not change
	Severity Severity
	Message  string // what is the case
	Remedy   string // what to do
}

func (f Finding) String() string {
	return fmt.Sprintf("%s: %s: %s; %s", f.Severity, f.Code, f.Message, f.Remedy)
}

// The codes of findings.
const (
	FindingSchema       = "schema"          // the schema is not what this version needs, or is a newer one's
	FindingRights       = "rights"          // the current role lacks rights
	FindingPooler       = "pooler"          // a pooler is in the way
	FindingReplica      = "replica"         // the server is a standby
	FindingClock        = "clock"           // this machine's clock is not the server's
	FindingListener     = "listener"        // it is not proved that notifications arrive
	FindingCleanup      = "cleanup"         // rows that should be gone are there
	FindingJob          = "job"             // pg_cron's job does not run
	FindingBloat        = "bloat"           // much of the table is dead or empty
	FindingIndex        = "index"           // an index is missing
	FindingDurability   = "durability"      // the table is unlogged, or not as Config.Durability says
	FindingQueue        = "notify-queue"    // the server's queue of notifications fills
	FindingListenBug    = "listen-bug"      // the server's version loses notifications
	FindingHorizon      = "horizon"         // something keeps dead rows from being removed
	FindingHOT          = "hot"             // an index makes each write of a session write indexes
	FindingACL          = "acl"             // somebody may do what is not for them
	FindingOwner        = "superuser-owner" // the functions run as a superuser
	FindingIsolation    = "isolation"       // transactions are not read committed by default
	FindingUnobservable = "unobservable"    // something could not be looked at
)

// Limits say from where on [Store.Check] warns.
type Limits struct {
	// Lag is the age of the oldest row that should be gone.
	//
	// Defaults to 15 minutes, or 5 of Cleanup.Interval if that is longer.
	Lag time.Duration

	// Snapshot is the age of the oldest transaction that keeps dead rows from being removed.
	//
	// Defaults to 5 minutes.
	Snapshot time.Duration

	// SnapshotAge is its age in transactions of the server, for what has no other age, as replication
	// slots, or where the current role may not see it.
	//
	// Defaults to 1,000,000.
	SnapshotAge int64

	// Queue is how full the server's queue of notifications is, from 0 to 1. When it is full, commits fail.
	//
	// Defaults to 0.1.
	Queue float64

	// Dead is the share of rows that are dead, from 0 to 1, where there are 10,000 at least.
	//
	// Defaults to 0.5.
	Dead float64

	// Clock is the difference between this machine's clock and the server's.
	//
	// Defaults to 5 seconds.
	Clock time.Duration
}

func (l Limits) withDefaults(interval time.Duration) Limits {
	setDefault(&l.Lag, max(15*time.Minute, 5*min(interval, maxTimeout)))
	setDefault(&l.Snapshot, 5*time.Minute)
	setDefault(&l.SnapshotAge, 1_000_000)
	setDefault(&l.Queue, 0.1)
	setDefault(&l.Dead, 0.5)
	setDefault(&l.Clock, 5*time.Second)
	return l
}

func (l Limits) validate() error {
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"Lag", l.Lag}, {"Snapshot", l.Snapshot}, {"Clock", l.Clock}} {
		if d.value < 0 {
			return fmt.Errorf("%w: Config.Check.%s is %v; it must be positive", ErrInvalid, d.field, d.value)
		}
	}
	switch {
	case l.SnapshotAge < 0:
		return fmt.Errorf("%w: Config.Check.SnapshotAge is %d; it must be positive", ErrInvalid, l.SnapshotAge)
	case !(l.Queue > 0 && l.Queue <= 1): // NaN is neither
		return fmt.Errorf("%w: Config.Check.Queue is %v; it must be from 0 to 1", ErrInvalid, l.Queue)
	case !(l.Dead > 0 && l.Dead <= 1):
		return fmt.Errorf("%w: Config.Check.Dead is %v; it must be from 0 to 1", ErrInvalid, l.Dead)
	}
	return nil
}

// Check looks for what is wrong, or will be, and returns what it finds, the worst first. It changes
// nothing, and opens a connection by each of Config.Listen and Listeners to look at. Any role may call
// it: what that may not see is a finding too. An error means that it could not look at all.
func (s *Store) Check(ctx context.Context) ([]Finding, error) {
	c := checker{store: s, cfg: s.store.cfg}
	if err := c.check(ctx); err != nil {
		return nil, &Error{Op: "check", Err: err}
	}
	slices.SortStableFunc(c.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(b.Severity, a.Severity), strings.Compare(a.Code, b.Code))
	})
	return c.findings, nil
}

// checker collects findings.
type checker struct {
	store    *Store
	cfg      *config
	state    *schemaState
	findings []Finding
}

func (c *checker) find(severity Severity, code, remedy, format string, args ...any) {
	c.findings = append(c.findings, Finding{code, severity, fmt.Sprintf(format, args...), remedy})
}

func (c *checker) check(ctx context.Context) (err error) {
	if c.state, err = c.store.inspect(ctx); err != nil {
		return err
	}
	c.checkSchema()
	for _, check := range []func(context.Context) error{
		c.checkServer, c.checkConnection, c.checkTable, c.checkIndexes, c.checkACLs, c.checkHorizon, c.checkCleanup,
	} {
		if err := check(ctx); err != nil {
			return err
		}
	}
	c.checkListeners(ctx)
	return ctx.Err()
}

const (
	remedySetup   = "run Setup or Migrate as the owner, or as a member of it"
	remedyRestore = remedySetup + ": it takes back what a restore without privileges gave to everyone"
)

func (c *checker) checkSchema() {
	state, cfg := c.state, c.cfg
	problems, _ := state.problems(cfg)
	problems = slices.DeleteFunc(problems, func(p string) bool { return strings.HasPrefix(p, "PUBLIC ") }) // checkACLs has them
	if len(problems) > 0 {
		c.find(SeverityError, FindingSchema, remedySetup, "the schema %q is not what this version needs: %s",
			cfg.Schema, strings.Join(problems, "; "))
	}
	if state.version > functionsVersion {
		c.find(SeverityInfo, FindingSchema, "upgrade this program when it suits you",
			"the functions are a newer program's, of version %d; this one's are %d", state.version, functionsVersion)
	}
	if !state.exists || state.table == "" {
		return
	}
	if !state.mayExecute(cfg, appFunctions...) && !state.mayExecute(cfg, adminFunctions...) {
		missing := slices.DeleteFunc(slices.Clone(appFunctions), func(f string) bool { return state.mayExecute(cfg, f) })
		c.find(SeverityError, FindingRights, "name the role in Config.AppRole or AdminRole of the one that runs Setup",
			"the current role may not execute %s", strings.Join(missing, ", "))
	} else if !state.mayExecute(cfg, "prune") && cfg.Cleanup.Mode != CleanupOff && cfg.Cleanup.Mode != CleanupPgCron {
		c.find(SeverityInfo, FindingRights, "have another role prune, as the README says, and set CleanupOff here",
			"the current role may not prune")
	}
	for _, column := range []string{"prune_after", "subject", "renewed_to"} {
		if _, ok := state.indexed[column]; !ok {
			c.find(SeverityWarning, FindingIndex, "create it as migrations/001_create_table.sql does, concurrently",
				"there is no valid index on the column %q: prunes, a subject's sessions, or logins by Set read the whole table",
				column)
		}
	}
	switch {
	case state.unlogged:
		c.find(SeverityWarning, FindingDurability, "for durable sessions call Store.SwitchDurability with DurabilityLogged",
			"the table is unlogged: a crash of the server or a failover to a standby loses all sessions")
	case cfg.Durability == DurabilityUnlogged:
		c.find(SeverityInfo, FindingDurability, "call Store.SwitchDurability, or set another Config.Durability",
			"Config.Durability is DurabilityUnlogged, and the table is logged")
	}
}

// listenBugs are the minor versions that mended, in each major one, that a listener which is slow to
// read loses a notification: vacuum removed the state of the transaction that sent it ("could not
// access status of transaction"), and the server passed over the notification and went on, telling
// nobody. Release notes of PostgreSQL 15.16, 2026-02-12, "Prevent truncation of CLOG that is still needed
// by unread NOTIFY messages" and "Escalate errors occurring during NOTIFY message processing to FATAL";
// 14.21, 16.12, 17.8 and 18.2 are of the same day.
var listenBugs = map[int64]int64{14: 21, 15: 16, 16: 12, 17: 8, 18: 2}

func (c *checker) checkServer(ctx context.Context) error {
	var version int64
	var recovery, stats bool
	var isolation string
	var usage float64
	var now pgtype.Timestamptz
	sent := time.Now()
	err := c.store.one(ctx, statement{sql: serverSQL}, nil, &version, &recovery, &isolation, &usage, &stats, &now)
	if err != nil {
		return err
	}
	round := time.Since(sent)
	if skew := now.Time.Sub(sent.Add(round / 2)); skew.Abs() > c.cfg.Check.Clock+round/2 {
		c.find(SeverityWarning, FindingClock, "let both machines keep their time by NTP",
			"the server's clock is %v from this machine's: deadlines are the server's, and what shows them here is that far off",
			skew.Round(time.Millisecond))
	}
	if recovery {
		c.find(SeverityError, FindingReplica, "connect to the primary, as by target_session_attrs=read-write",
			"the server is a standby: nothing can be written, and notifications cannot be heard")
	}
	if isolation != "read committed" {
		c.find(SeverityWarning, FindingIsolation, "set default_transaction_isolation for this role to read committed",
			"transactions are %s by default: writes of one session fail and are retried, and reads are not cached", isolation)
	}
	if usage > c.cfg.Check.Queue {
		c.find(SeverityWarning, FindingQueue, "end the session that listens and stays in a transaction: "+
			"see pg_stat_activity for the oldest; when the queue is full, commits that notify fail",
			"the server's queue of notifications is full to %.2g %%", usage*100)
	}
	if minor, ok := listenBugs[version/10000]; ok && version%10000 < minor {
		c.find(SeverityWarning, FindingListenBug, fmt.Sprintf("upgrade to PostgreSQL %d.%d or newer", version/10000, minor),
			"PostgreSQL %d.%d can lose notifications to a listener that is slow to read", version/10000, version%10000)
	}
	if !stats {
		c.find(SeverityInfo, FindingUnobservable, "grant pg_read_all_stats to the role that checks",
			"the current role cannot see when the transactions of others began; their age in transactions is all there is")
	}
	return nil
}

func (c *checker) checkConnection(ctx context.Context) error {
	known, real, err := c.store.backend(ctx)
	if err != nil {
		return err
	}
	switch {
	case known == 0:
		c.find(SeverityInfo, FindingUnobservable, "check with a QueryFunc of pgx's own",
			"the driver does not tell its connection's process, so that a pooler cannot be told from the server")
	case known != real:
		c.find(SeverityInfo, FindingPooler, "none is needed: each call is one statement; prepared statements need PgBouncer 1.21",
			"a pooler is between the QueryFunc and the server")
	}
	return nil
}

func (c *checker) checkTable(ctx context.Context) error {
	var owner string
	var super bool
	var live, dead, pages, block int64
	var rows float64
	there := false
	err := c.store.each(ctx, statement{sql: tableSQL}, []any{c.cfg.Schema, c.cfg.Table},
		[]any{&owner, &super, &live, &dead, &pages, &rows, &block}, func() { there = false }, func() { there = true })
	if err != nil || !there {
		return err
	}
	if super {
		c.find(SeverityWarning, FindingOwner, "create a role without rights, make it the owner by Config.Owner, and run Setup",
			"the table's owner, %q, is a superuser, and the functions run with its rights", owner)
	}
	if all := live + dead; dead >= minDead && float64(dead) > c.cfg.Check.Dead*float64(all) {
		c.find(SeverityWarning, FindingBloat, "see whether autovacuum runs, and whether something holds the horizon",
			"%d of the table's %d rows are dead", dead, all)
	}
	// Values over 2 kB are stored apart, so rows that take twice as much are half empty.
	const most = 4096
	if pages >= 1000 && rows > 0 && float64(pages*block)/rows > most {
		c.find(SeverityWarning, FindingBloat, "rewrite it once, by pg_repack, or by VACUUM FULL, which locks it",
			"the table takes %d bytes for each of its rows: most of it is empty", int64(float64(pages*block)/rows))
	}
	return nil
}

// minDead is from how many dead rows on they are worth a finding.
const minDead = 10_000

func (c *checker) checkIndexes(ctx context.Context) error {
	var index, column, method string
	return c.store.each(ctx, statement{sql: indexesSQL}, []any{c.cfg.Schema, c.cfg.Table},
		[]any{&index, &column, &method}, func() {}, func() {
			what := "each write"
			if column == "expires_at" {
				what = "each touch, and each write,"
			}
			c.find(SeverityWarning, FindingHOT, "drop it; for reports use a copy, or an expression that these do not change",
				"the index %q (%s) has the column %q in it: %s writes all indexes, and the table bloats",
				index, method, column, what)
		})
}

func (c *checker) checkACLs(ctx context.Context) error {
	var open []string
	for _, f := range allFunctions {
		if name := c.cfg.Table + "_" + f; c.state.functions[name]["public"] {
			open = append(open, name)
		}
	}
	if len(open) > 0 {
		c.find(SeverityError, FindingACL, remedyRestore, "everyone may execute %s", strings.Join(open, ", "))
	}
	var object, grantee, privileges string
	return c.store.each(ctx, statement{sql: aclsSQL}, []any{c.cfg.Schema, c.cfg.Table},
		[]any{&object, &grantee, &privileges}, func() {}, func() {
			switch grantee {
			case c.state.owners[c.cfg.Table]: // which Setup gave what it needs
			case "":
				c.find(SeverityError, FindingACL, fmt.Sprintf("revoke %s on it from public", privileges),
					"everyone has %s on %s", privileges, object)
			case c.cfg.AppRole, c.cfg.AdminRole:
				c.find(SeverityWarning, FindingACL, fmt.Sprintf("revoke %s on it from the role", privileges),
					"the role %q has %s on %s, which the functions are there to keep from it", grantee, privileges, object)
			default:
				c.find(SeverityInfo, FindingACL, "revoke it if that is not on purpose",
					"the role %q has %s on %s", grantee, privileges, object)
			}
		})
}

func (c *checker) checkHorizon(ctx context.Context) error {
	limits := c.cfg.Check
	var kind, name string
	var transactions int64
	var seconds float64 // below 0: unknown
	return c.store.each(ctx, statement{sql: horizonSQL}, nil, []any{&kind, &name, &transactions, &seconds},
		func() {}, func() {
			age := fmt.Sprintf("for %d transactions", transactions)
			if seconds >= 0 {
				if seconds <= limits.Snapshot.Seconds() {
					return
				}
				age = fmt.Sprintf("for %v", time.Duration(seconds*float64(time.Second)).Round(time.Second))
			} else if transactions <= limits.SnapshotAge {
				return
			}
			remedy := map[string]string{
				"session":              "end the transaction, or the session by pg_terminate_backend",
				"replication slot":     "bring its reader back, or drop it by pg_drop_replication_slot",
				"prepared transaction": "commit or roll it back: COMMIT PREPARED, ROLLBACK PREPARED",
			}[kind]
			c.find(SeverityWarning, FindingHorizon, remedy,
				"the %s %s has kept dead rows from being removed %s: touches stop being HOT, and the table grows",
				kind, name, age)
		})
}

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
	known := c.store.store.cleanup.get()
	if status.Lag > c.cfg.Check.Lag {
		c.find(SeverityWarning, FindingCleanup, "see that an instance or a job prunes; Store.Prune does it now",
			"%d rows or more should be gone, the oldest for %v; the last prune ended %s", status.Due,
			status.Lag.Round(time.Second), when(status.LastRun))
	}
	if known.Mode == CleanupPgCron && status.jobIsLate(c.cfg) {
		c.find(SeverityWarning, FindingJob, "see cron.job and cron.job_run_details: it is inactive, or pg_cron cannot connect",
			"pg_cron's job %q has last run %s", status.Job, when(status.JobRun))
	}
	lent, err := c.store.lentJobRoles(ctx, c.state, status)
	if err != nil && sqlState(err) == "" {
		return err
	}
	for _, role := range lent {
		c.find(SeverityError, FindingJob, "unschedule it as a superuser, and run Migrate as a member of the owner",
			"pg_cron's job %q runs as %q, a superuser, what the role %q may replace", c.cfg.jobName(), role, c.state.lender)
	}
	if known.Reason != "" {
		c.find(SeverityInfo, FindingCleanup, "none is needed", "this instance prunes by its ticker: %s", known.Reason)
	}
	return nil
}

func when(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return "at " + t.Format(time.RFC3339)
}

// checkListeners looks at the connections that hear of changes.
func (c *checker) checkListeners(ctx context.Context) {
	n := c.store.store.notify
	started, live, reason := n.health()
	listeners := c.cfg.listeners()
	switch {
	case len(listeners) == 0 && c.cfg.Cache.Mode == CacheOn:
		c.find(SeverityInfo, FindingListener, "set Config.Listen to ListenFrom(pool)",
			"there is no Config.Listen, so nothing is cached, and Subscribe hears nothing")
	case len(listeners) == 0:
	case !started:
		c.find(SeverityInfo, FindingListener, "call Setup", "Setup has not run in this process, so nothing listens")
	case !live:
		c.find(SeverityWarning, FindingListener, "see to what the reason says; until then reads go to the database",
			"it is not proved that notifications arrive: %s", reason)
	}
	for i, listen := range listeners {
		if err := c.checkListener(ctx, i, listen); err != nil {
			c.find(SeverityWarning, FindingListener, "see that Config.Listen reaches the server",
				"a connection to listen on cannot be had: %v", err)
		}
	}
}
