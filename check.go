package pgsession

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
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
	Remedy   string // what to do; where a statement does it, that
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
	FindingCleanup      = "cleanup"         // rows that should be gone are there, or nobody prunes
	FindingJob          = "job"             // pg_cron's job does not run, or runs what others may replace
	FindingForeignKey   = "foreign-key"     // a foreign key keeps sessions from being pruned or renewed
	FindingBloat        = "bloat"           // much of the table, or of an index, is dead or empty
	FindingIndex        = "index"           // an index is missing, or not valid
	FindingDurability   = "durability"      // the table is unlogged, or not as Config.Durability says
	FindingQueue        = "notify-queue"    // the server's queue of notifications fills
	FindingListenBug    = "listen-bug"      // the server's version loses notifications
	FindingHorizon      = "horizon"         // something keeps dead rows from being removed
	FindingHOT          = "hot"             // an index makes each write of a session write indexes
	FindingACL          = "acl"             // somebody may do what is not for them
	FindingOwner        = "superuser-owner" // functions run as a superuser
	FindingRowSecurity  = "row-security"    // policies may hide sessions from the functions
	FindingIsolation    = "isolation"       // transactions are not read committed by default
	FindingUnobservable = "unobservable"    // something could not be looked at
)

// Limits say from where on [Store.Check] warns.
type Limits struct {
	// Lag is the age of the oldest row that should be gone, how long no row was looked at that a prune
	// would have, and the age of the last prune. Where a cluster prunes more rarely than by default, give
	// the same Cleanup to a program that only checks.
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
	mayRead  bool // the current role, the table
	findings []Finding
}

func (c *checker) find(severity Severity, code, remedy, format string, args ...any) {
	c.findings = append(c.findings, Finding{code, severity, fmt.Sprintf(format, args...), remedy})
}

// each calls row, which finds, for each row. A statement that is run again finds anew.
func (c *checker) each(ctx context.Context, sql string, args, dest []any, row func()) error {
	before := len(c.findings)
	return c.store.each(ctx, statement{sql: sql}, args, dest, func() { c.findings = c.findings[:before] }, row)
}

func (c *checker) check(ctx context.Context) (err error) {
	if c.state, err = c.store.inspect(ctx); err != nil {
		return err
	}
	c.checkSchema()
	for _, check := range []func(context.Context) error{
		c.checkServer, c.checkConnection, c.checkTable, c.checkIndexes, c.checkHOT, c.checkForeignKeys, c.checkOwners,
		c.checkFunctionACLs, c.checkACLs, c.checkHorizon, c.checkCleanup, c.checkJobs,
	} {
		if err := check(ctx); err != nil {
			return err
		}
	}
	c.checkListeners(ctx)
	return ctx.Err()
}

const remedySetup = "run Setup or Migrate as the owner, or as a member of it"

func (c *checker) checkSchema() {
	state, cfg := c.state, c.cfg
	problems, _ := state.problems(cfg)
	// checkFunctionACLs has these.
	problems = slices.DeleteFunc(problems, func(p string) bool { return strings.HasPrefix(p, "PUBLIC ") })
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
	for _, index := range state.missingIndexes() {
		c.find(SeverityWarning, FindingIndex, fmt.Sprintf("create index concurrently on %s.%s %s",
			quoteIdentifier(cfg.Schema), quoteIdentifier(cfg.Table), index.definition),
			"there is no valid index on the column %q that can be used: %s read the whole table", index.column, index.serves)
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
