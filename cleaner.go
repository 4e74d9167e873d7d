package pgsession

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// CleanupStatus is what is known of the pruning of a table, by whatever instance or job, from
// [Store.CleanupStatus]. Times are by the server's clock, in UTC; zero: never.
type CleanupStatus struct {
	At         time.Time     // when this was read
	LastRun    time.Time     // when the last batch of a run came to its end
	LastPruned int64         // rows that this run has deleted
	Pruned     int64         // rows that all runs deleted
	Due        int64         // rows that should be gone, of the 10,000 that are looked at; not those that a hook has just now
	Lag        time.Duration // of them, the age of the oldest; some minutes are usual
	Job        string        // the job of pg_cron that the library scheduled; "": none
	JobRole    string        // whose it is: only that role, and a superuser, can see, change or remove it
	JobPeriod  time.Duration // the time between two of its runs
	JobRun     time.Time     // when the procedure for pg_cron last came to its end, or its job was scheduled
	Hook       time.Time     // when one with a Cleanup.OnPrune last ran Setup or pruned, to the hour; zero: there is none
	KeptAt     time.Time     // when rows last could not be deleted, as for a foreign key; they are tried again later
	Kept       int64         // how many in that run
	KeptReason string        // the error of the first of them
}

// latePeriods is after how many of its periods without a run a job is late.
const latePeriods = 3

// jobIsLate goes by the job's own period: this Config may be another than the one that it was made with.
func (c *CleanupStatus) jobIsLate(cfg *config) bool {
	return c.At.Sub(c.JobRun) > latePeriods*cmp.Or(c.JobPeriod, cfg.Cleanup.jobPeriod())
}

// CleanupStats is what an instance last knew of the pruning.
type CleanupStats struct {
	// Mode is who prunes as Setup found: never CleanupAuto. Before Setup it is CleanupOff.
	Mode CleanupMode
	// Reason is why CleanupAuto is not pg_cron; "" if it is.
	Reason string
	// CleanupStatus is as this instance last read it: the ticker does after each cycle, and so does what
	// watches a job. With CleanupOpportunistic it is read after a prune, and else by Store.CleanupStatus.
	CleanupStatus
}

// CleanupStatus reads how the pruning of the table goes, whoever does it. AppRole and AdminRole may.
func (s *Store) CleanupStatus(ctx context.Context) (CleanupStatus, error) {
	status, err := s.cleanupStatus(ctx)
	if err != nil {
		return CleanupStatus{}, &Error{Op: "cleanup status", Err: err}
	}
	return status, nil
}

func (s *sessions) cleanupStatus(ctx context.Context) (CleanupStatus, error) {
	status, err := s.readCleanup(ctx, 10_000)
	if err == nil {
		s.store.cleanup.update(func(c *CleanupStats) { c.CleanupStatus = status })
		s.store.cleanup.wasRead()
	}
	return status, err
}

// readCleanup looks at so many of the rows that may be due; with 0, at the record only.
func (s *sessions) readCleanup(ctx context.Context, limit int64) (status CleanupStatus, err error) {
	var now, ranAt, jobAt, hookedAt, keptAt pgtype.Float8
	var ranDeleted, kept pgtype.Int8
	var lag, period float64
	err = s.one(ctx, s.store.sql.cleanupStatus, []any{limit}, &now, &ranAt, &jobAt, &hookedAt, &keptAt,
		&ranDeleted, &status.Pruned, &status.Due, &lag, &status.Job, &status.JobRole, &period, &kept, &status.KeptReason)
	if err != nil {
		return CleanupStatus{}, err
	}
	for _, t := range []struct {
		to   *time.Time
		from pgtype.Float8
	}{
		{&status.At, now},
		{&status.LastRun, ranAt},
		{&status.JobRun, jobAt},
		{&status.Hook, hookedAt},
		{&status.KeptAt, keptAt},
	} {
		if t.from.Valid {
			*t.to = time.UnixMicro(int64(math.Round(t.from.Float64 * 1e6))).UTC()
		}
	}
	status.LastPruned, status.Kept = ranDeleted.Int64, kept.Int64
	status.Lag = time.Duration(lag * float64(time.Second))
	status.JobPeriod = time.Duration(period * float64(time.Second))
	return status, nil
}

// cleanupKnowledge is what Stats tells.
type cleanupKnowledge struct {
	mu    sync.Mutex
	stats CleanupStats
	read  time.Time // by this machine's clock
	told  time.Time // the KeptAt that the log has
}

func (k *cleanupKnowledge) update(f func(*CleanupStats)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(&k.stats)
}

func (k *cleanupKnowledge) wasRead() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.read = time.Now()
}

func (k *cleanupKnowledge) readAt() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.read
}

func (k *cleanupKnowledge) get() (stats CleanupStats) {
	k.update(func(c *CleanupStats) { stats = *c })
	return stats
}

// tellKept says in the log that rows cannot be deleted, once in keptInterval: every instance reads of it.
func (s *sessions) tellKept(ctx context.Context) {
	k, cfg := &s.store.cleanup, s.store.cfg
	k.mu.Lock()
	status, told := k.stats.CleanupStatus, k.told
	news := !status.KeptAt.Before(told.Add(keptInterval)) && status.At.Sub(status.KeptAt) < keptInterval
	if news {
		k.told = status.KeptAt
	}
	k.mu.Unlock()
	if news {
		cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "pgsession: rows cannot be deleted; they stay, and will be tried again",
			slog.Int64("rows", status.Kept), slog.String("reason", status.KeptReason), slog.Time("at", status.KeptAt),
			slog.String("schema", cfg.Schema), slog.String("table", cfg.Table))
	}
}

// keptInterval is also how soon a row is tried again that could not be deleted.
const keptInterval = time.Hour

// cleaner is the goroutine that prunes, or watches a job that does. Many instances have one; the prune
// lock in the database lets one at a time work, batch by batch, and the others go back to sleep.
type cleaner struct {
	store *Store
	plan  cleanupPlan
	// late: the job has not run for too long, and the log says so.
	late bool
	// denied: this role may not prune, and the log says so.
	denied bool

	cancel context.CancelFunc
	done   sync.WaitGroup
}

// startCleaner starts what Setup found to be the way, once.
func (s *Store) startCleaner(ctx context.Context, plan cleanupPlan) {
	cfg := s.store.cfg
	s.store.cleanup.update(func(c *CleanupStats) { c.Mode, c.Reason = plan.mode, plan.reason })
	if s.cleaner != nil || (plan.mode != CleanupTicker && plan.mode != CleanupPgCron) {
		return
	}
	if cfg.Cleanup.Mode == CleanupAuto {
		attrs := []slog.Attr{
			slog.String("schema", cfg.Schema), slog.String("table", cfg.Table), slog.String("by", plan.mode.String()),
		}
		if plan.reason != "" {
			attrs = append(attrs, slog.String("reason", plan.reason))
		}
		cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "pgsession: who prunes", attrs...)
	}
	life, cancel := context.WithCancel(s.store.life)
	c := &cleaner{store: s, plan: plan, cancel: cancel}
	c.done.Go(func() { c.run(life) })
	s.cleaner = c
}

// stop ends the goroutine and waits for it. It may be called on nil, and again.
func (c *cleaner) stop() {
	if c != nil {
		c.cancel()
		c.done.Wait()
	}
}

func (c *cleaner) run(ctx context.Context) {
	interval := c.store.store.cfg.Cleanup.Interval
	// The first at any moment of an interval, so that instances that start together do not prune
	// together.
	timer := time.NewTimer(rand.N(interval))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		next := interval
		if c.cycle(ctx) {
			next = max(interval, min(deniedIntervals*interval, time.Hour))
		}
		c.store.tellKept(ctx)
		timer.Reset(next - next/10 + rand.N(next/5+1))
	}
}

// deniedIntervals is after how many of them a role tries again that may not prune: it may be granted that,
// as by the Migrate after a restore without its ACLs.
const deniedIntervals = 10

// cycle says whether this role may not prune.
func (c *cleaner) cycle(ctx context.Context) (denied bool) {
	s := c.store
	if c.plan.mode == CleanupPgCron && !c.jobIsLate(ctx) {
		return false
	}
	if c.plan.mode == CleanupPgCron && (s.store.cfg.Cleanup.Mode != CleanupAuto || !c.plan.mayPrune) {
		return false
	}
	deleted, busy, err := s.prune(ctx, false)
	stats := &s.store.stats
	denied = sqlState(err) == codePermissionDenied && !errors.As(err, new(hookError))
	switch {
	case ctx.Err() != nil:
		return false
	case denied:
		stats.prunesFailed.Add(1)
		if !c.denied {
			c.log(ctx, slog.LevelWarn, "pgsession: this role may not prune; leaving cleanup to others, and trying again rarely",
				slog.Any("error", err))
		}
		c.denied = true
	case err != nil:
		stats.prunesFailed.Add(1)
		c.log(ctx, slog.LevelWarn, "pgsession: cleanup failed; it will be tried again", slog.Any("error", err))
	case busy:
		stats.prunesLeft.Add(1)
	default:
		stats.prunes.Add(1)
		stats.lastPrune.Store(time.Now().UnixNano())
		if deleted > 0 {
			c.log(ctx, slog.LevelDebug, "pgsession: cleanup", slog.Int64("deleted", deleted))
		}
	}
	if c.denied && err == nil {
		c.denied = false
		c.log(ctx, slog.LevelInfo, "pgsession: this role may prune again")
	}
	// For Stats. Where it fails, so does what is logged.
	_, _ = s.cleanupStatus(ctx)
	return denied
}

// jobIsLate reads when the job last ran, and says in the log when that becomes too long ago, or is no
// longer: a job is easily scheduled and never runs, as where pg_cron cannot connect.
func (c *cleaner) jobIsLate(ctx context.Context) bool {
	status, err := c.store.cleanupStatus(ctx)
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		c.store.store.stats.prunesFailed.Add(1)
		c.log(ctx, slog.LevelWarn, "pgsession: the state of cleanup cannot be read", slog.Any("error", err))
		return false
	}
	late := status.jobIsLate(c.store.store.cfg)
	switch {
	case late && !c.late:
		c.log(ctx, slog.LevelWarn, "pgsession: the job of pg_cron does not run; see cron.job_run_details",
			slog.String("job", status.Job), slog.Time("last_run", status.JobRun))
	case !late && c.late:
		c.log(ctx, slog.LevelInfo, "pgsession: the job of pg_cron runs again", slog.String("job", status.Job))
	}
	c.late = late
	return late
}

func (c *cleaner) log(ctx context.Context, level slog.Level, message string, attrs ...slog.Attr) {
	cfg := c.store.store.cfg
	attrs = append(attrs, slog.String("schema", cfg.Schema), slog.String("table", cfg.Table))
	cfg.Logger.LogAttrs(ctx, level, message, attrs...) //nolint:sloglint // each caller's is a constant
}

// sweeper prunes a batch after some of the writes, for CleanupOpportunistic.
type sweeper struct {
	running atomic.Bool
	mu      sync.Mutex // adding to done, against close
	closed  bool
	done    sync.WaitGroup
}

// sweepTimeout bounds one sweep, but for what a hook takes.
const sweepTimeout = 30 * time.Second

// sweep is to be called after a write. It does not wait.
func (s *sessions) sweep() {
	cfg := &s.store.cfg.Cleanup
	if cfg.Mode != CleanupOpportunistic || s.inTx || rand.N(cfg.OneIn) != 0 {
		return
	}
	w := &s.store.sweeper
	if !w.running.CompareAndSwap(false, true) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	w.done.Go(func() {
		defer w.running.Store(false)
		s.sweepOnce()
	})
}

func (s *sessions) sweepOnce() {
	timeout := sweepTimeout
	if s.store.cfg.Cleanup.OnPrune != nil {
		timeout += s.store.cfg.Cleanup.Lease
	}
	ctx, cancel := context.WithTimeout(s.store.life, timeout)
	defer cancel()
	stats, log := &s.store.stats, s.store.cfg.Logger
	var r run
	_, err := s.pruneBatch(ctx, &r, false)
	if err == nil && !r.busy {
		_, err = s.pruneEventsBatch(ctx, nil)
	}
	err = cmp.Or(err, r.failed)
	switch {
	case s.store.life.Err() != nil:
		return
	case err != nil:
		if stats.prunesFailed.Add(1) == 1 {
			log.LogAttrs(ctx, slog.LevelWarn, "pgsession: cleanup failed; it will be tried again, and failures counted",
				slog.String("table", s.store.cfg.Table), slog.Any("error", err))
		}
		return
	case r.busy:
		stats.prunesLeft.Add(1)
		return
	}
	stats.prunes.Add(1)
	stats.lastPrune.Store(time.Now().UnixNano())
	if time.Since(s.store.cleanup.readAt()) > s.store.cfg.Cleanup.Interval {
		_, _ = s.cleanupStatus(ctx) // for Stats
		s.tellKept(ctx)
	}
}

func (w *sweeper) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.done.Wait()
}
