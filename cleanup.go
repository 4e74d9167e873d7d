package pgsession

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// CleanupMode says who deletes expired sessions and old tombstones.
type CleanupMode int

const (
	// CleanupAuto: pg_cron, where it is installed in this database and the role of Setup may schedule
	// jobs; else the ticker, and the log says why. It watches the job: while that does not run, the
	// tickers of the instances whose role may prune do its work, and the others only say so in the log.
	CleanupAuto CleanupMode = iota
	// CleanupTicker: a goroutine of each store, of which one at a time does the work.
	CleanupTicker
	// CleanupPgCron: a job of pg_cron, which Setup and Migrate schedule and keep as Config says. Where
	// that cannot be, they return an error that says why.
	CleanupPgCron
	// CleanupOpportunistic: one write in Cleanup.OneIn is followed by the pruning of one batch, in a
	// goroutine, one at a time. For programs that run too briefly or too rarely for a ticker. Without
	// writes nothing is pruned.
	CleanupOpportunistic
	// CleanupOff: nobody; call [Store.Prune], or the procedure that the README names, from a job.
	CleanupOff
)

func (m CleanupMode) String() string {
	if m < CleanupAuto || m > CleanupOff {
		return fmt.Sprintf("CleanupMode(%d)", int(m))
	}
	return [...]string{"auto", "ticker", "pg_cron", "opportunistic", "off"}[m]
}

// Cleanup is the part of [Config] about pruning. Expired sessions are gone for every reader at once;
// pruning only gives back their room.
type Cleanup struct {
	// Mode says who prunes. Setup and Migrate with a mode that needs no job of pg_cron remove the one
	// that the library made for this store, if their role may: so give all instances the same.
	//
	// Defaults to CleanupAuto.
	Mode CleanupMode

	// Interval is the time between two prunes: of one instance, give or take a tenth, so that
	// instances drift apart; of a job of pg_cron in whole minutes, rounded down to what its schedules
	// can say, but 1 minute at least.
	//
	// Defaults to 1 minute.
	Interval time.Duration

	// BatchSize is how many rows one statement prunes, and hands to OnPrune. A batch keeps one of the
	// server's processors for as long, and then rests for its commit: with 200, for about a millisecond,
	// so that a read that waits for that processor hardly waits. More are pruned faster.
	//
	// Defaults to 200, and to 1,000 with CleanupOpportunistic, which prunes one at a time.
	BatchSize int

	// OneIn is, for CleanupOpportunistic, in how many calls of Create and Set, and writes of Update,
	// one is followed by a prune, at random. More than BatchSize would not keep up with the writes.
	//
	// Defaults to 100.
	OneIn int

	// OnPrune is called with sessions that have expired, before they are deleted: with each at least
	// once, by one of the instances. They are deleted when it returns nil. Where this process dies they
	// come again after Lease, and so does one that cannot be deleted, an hour later or more. It is called
	// by one goroutine at a time in this process, also by [Store.Prune]; its context ends Lease after a
	// batch was claimed, and with Close, which waits for it.
	//
	// Where it returns an error, or panics, it is called with each half of the batch, and so on, until it is
	// known for which sessions it fails alone. Those come again later, each time later: a quarter of the time
	// since they expired, from a minute to a day. All others are deleted, and the prune goes on, and returns
	// the first error. Where no call succeeds, some log2 of BatchSize calls, the prune ends, and the next ones
	// begin with one session until it succeeds; so does one after a batch that did not end in time.
	//
	// Sessions that are destroyed, revoked or cleared are not pruned but ended: see [Store.Subscribe].
	// From Setup on expired sessions are deleted only by instances with a hook: give it to all that prune.
	// After a day in which none of them ran Setup or pruned, the others do; the log of the first one says
	// so, at Warn. So where Mode does not, have one of these prune daily at least. With CleanupPgCron it is
	// an error, and CleanupAuto is the ticker.
	// A session that is destroyed, or begun anew by Set, after it has expired and before it was handed over,
	// is told to nobody. It must call neither Prune nor Close.
	//
	// Defaults to nil.
	OnPrune func(ctx context.Context, sessions []PrunedSession) error

	// Lease is how long OnPrune may take for a batch.
	//
	// Defaults to 5 minutes.
	Lease time.Duration
}

// PrunedSession is what Cleanup.OnPrune gets.
type PrunedSession struct {
	Session
	// Err is why the session could not be decoded; it has nothing but its ID then.
	Err error
}

func (c Cleanup) withDefaults() Cleanup {
	setDefault(&c.Interval, time.Minute)
	if c.Mode == CleanupOpportunistic {
		setDefault(&c.BatchSize, 1000)
	}
	setDefault(&c.BatchSize, 200)
	setDefault(&c.OneIn, 100)
	setDefault(&c.Lease, 5*time.Minute)
	return c
}

func (c Cleanup) validate() error {
	switch {
	case c.Mode < CleanupAuto || c.Mode > CleanupOff:
		return fmt.Errorf("%w: Config.Cleanup.Mode is %d, which is no CleanupMode", ErrInvalid, c.Mode)
	case c.Interval < time.Millisecond || c.Interval > maxTimeout:
		return fmt.Errorf("%w: Config.Cleanup.Interval is %v; it must be from 1ms to 100 years", ErrInvalid, c.Interval)
	case c.BatchSize < 1 || c.BatchSize > math.MaxInt32:
		return fmt.Errorf("%w: Config.Cleanup.BatchSize is %d; it must be positive", ErrInvalid, c.BatchSize)
	case c.OneIn < 1:
		return fmt.Errorf("%w: Config.Cleanup.OneIn is %d; it must be positive", ErrInvalid, c.OneIn)
	case c.Lease < time.Millisecond || c.Lease > 24*time.Hour:
		return fmt.Errorf("%w: Config.Cleanup.Lease is %v; it must be from 1ms to 24h", ErrInvalid, c.Lease)
	case c.OnPrune != nil && c.Mode == CleanupPgCron:
		return fmt.Errorf("%w: Config.Cleanup.OnPrune cannot be called by pg_cron: choose another Config.Cleanup.Mode",
			ErrInvalid)
	}
	return nil
}

// Clear ends every live session, in batches, and returns how many there were. A session that is
// created meanwhile may stay. An error may come after some were ended.
func (s *Store) Clear(ctx context.Context) (int64, error) {
	n, err := s.endAll(ctx, Revocation{Everyone: true})
	if err != nil {
		return n, &Error{Op: "clear", Err: err}
	}
	return n, nil
}

// errHooked is why a store without a hook must not prune.
var errHooked = fmt.Errorf("%w: an instance with a Config.Cleanup.OnPrune was at work within a day, and this one has none",
	ErrBusy)

// registerHook has expired sessions left to instances with a hook from now on.
func (s *sessions) registerHook(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.store.life, cancel)() // as in migrate: it may wait for a prune
	var nothing pgtype.Text
	return s.one(ctx, s.store.sql.hook, nil, &nothing)
}

// Prune deletes expired sessions and old tombstones, in batches, and returns how many rows; with
// Cleanup.OnPrune, after that was called with them. It waits
// for another prune that is running. Calling it is never needed for correctness: expired sessions
// are gone for every reader at once. Rows may stay for a second longer than their sessions: the index
// that finds them counts in seconds.
//
// It deletes events that are older than Config.Audit.Retention too, and does not count them.
//
// It returns ErrBusy where expired sessions are for the hook of another instance to see.
func (s *Store) Prune(ctx context.Context) (int64, error) {
	n, busy, err := s.prune(ctx, true)
	if err == nil && busy {
		err = errHooked
	}
	if err != nil {
		return n, &Error{Op: "prune", Err: err}
	}
	return n, nil
}

// prune is a whole run.
func (s *sessions) prune(ctx context.Context, wait bool) (total int64, busy bool, err error) {
	var r run
	for {
		more, err := s.pruneBatch(ctx, &r, wait)
		if err == nil && !more && !r.busy {
			err = s.pruneEvents(ctx)
		}
		if err != nil || !more {
			return r.deleted, r.busy, cmp.Or(err, r.failed)
		}
	}
}

// run is how far a run of prune has come.
type run struct {
	deleted int64
	from    any // where the next batch begins
	busy    bool
	failed  error // the hook's first: others were deleted meanwhile
}

// pruneBatch prunes one batch, and says whether there may be more.
func (s *sessions) pruneBatch(ctx context.Context, r *run, wait bool) (more bool, err error) {
	if s.store.cfg.Cleanup.OnPrune != nil {
		return s.handOverBatch(ctx, r, wait)
	}
	var deleted, expired int64
	var next, lapsed pgtype.Timestamptz // null: no more
	err = s.one(ctx, s.store.sql.prune, []any{int64(s.store.cfg.Cleanup.BatchSize), r.from, wait, r.deleted},
		&deleted, &expired, &next, &r.busy, &lapsed)
	if err != nil {
		return false, err
	}
	if lapsed.Valid {
		s.store.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "pgsession: no instance with a Config.Cleanup.OnPrune was at work "+
			"within a day; expired sessions are deleted unseen from now on", slog.String("schema", s.store.cfg.Schema),
			slog.String("table", s.store.cfg.Table), slog.Time("last", lapsed.Time))
	}
	r.deleted += deleted
	s.store.stats.pruned.Add(deleted)
	s.auditExpired(ctx, expired)
	r.from = next.Time
	return next.Valid && !r.busy, nil
}
