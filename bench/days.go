package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/pgsession/pgsession"
)

const (
	dayWorkers        = 8
	samplesPerDay     = 8
	hotShareAtLeast   = 0.99
	dataTimesAtMost   = 1.25
	bytesMoreAtMost   = 600
	latenessTolerable = time.Hour // of the compressed day
)

// The plots of a day.
const (
	sizePlot = "day"
	hotPlot  = "hot"
)

// days replays the same traffic on each store, one after the other. All times are compressed alike:
// timeouts, the touch interval, the second by which prune_after and fiber's
// deadlines count, the intervals of cleanup, and autovacuum's naptime as far as it goes, to a second. Not
// compressed is what cannot be: the durations of transactions and of a vacuum, so these are longer.
func days(ctx context.Context, url string, res *results, opts options) error {
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return err
	}
	defer pool.Close()
	traffic := newMix(1, opts.users, opts.days, dayWorkers)
	var events int
	for _, w := range traffic.workers {
		events += len(w)
	}
	res.printf("%d events of %d sessions, %d of them there at the start; %d days of %v: %.0f times as fast",
		events, traffic.sessions, len(traffic.standing), opts.days, opts.day, opts.speed())
	var beyond error
	var known bool
	rivals := dayRivals()
	for _, r := range rivals {
		if opts.store != "" && opts.store != r.name {
			continue
		}
		known = true
		err := replayOn(ctx, url, pool, res, r, traffic, opts)
		switch {
		case errors.Is(err, errBeyondLimit): // after the others
			beyond = errors.Join(beyond, err)
		case err != nil:
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	if !known {
		return fmt.Errorf("no such store: %s", opts.store)
	}
	return beyond
}

// replay is that of one store.
type replay struct {
	*results
	rival
	*clock
	pool    *pgxpool.Pool
	store   sessionStore
	touches []*touchCounter
	missing atomic.Int64 // sessions that were not there
	late    atomic.Int64 // nanoseconds, the worst
	moved   atomic.Int64 // updates by prune
}

func replayOn(
	ctx context.Context, url string, pool *pgxpool.Pool, res *results, r rival, traffic *mix, opts options,
) error {
	p := &replay{results: res, rival: r, clock: &clock{speed: opts.speed()}, pool: pool}
	at := place{url: url, pool: pool, clients: dayWorkers, clock: p.clock}
	if err := r.setup(ctx, at); err != nil {
		return err
	}
	defer func() { _, _ = pool.Exec(context.WithoutCancel(ctx), "drop table "+r.table+" cascade") }()
	if opts.with != "" && r.kind == oursKind {
		if _, err := pool.Exec(ctx, "alter table "+r.table+" set ("+opts.with+")"); err != nil {
			return err
		}
		p.printf("with %s", opts.with)
	}
	var err error
	if p.store, err = r.open(ctx, at); err != nil {
		return err
	}
	for range traffic.workers {
		counter, err := newTouchCounter(ctx, at, r)
		if err != nil {
			return err
		}
		defer counter.pool.Close()
		p.touches = append(p.touches, counter)
	}
	sessions := traffic.standing
	p.start = time.Now().Add(time.Duration(len(sessions)) * 20 * time.Microsecond) // filling takes that
	err = r.fill(ctx, at, len(sessions), func(i int) ([]any, error) {
		s := sessions[i]
		return p.row(p.clock, key(int(s.session)), document(s.session, s.revision), s.created, s.lastUsed+idleTimeout)
	})
	if err != nil {
		return err
	}
	return p.run(ctx, traffic, opts)
}

func (p *replay) run(ctx context.Context, traffic *mix, opts options) error {
	var walBefore string
	err := p.pool.QueryRow(ctx, "select pg_current_wal_lsn()::text").Scan(&walBefore)
	if err != nil {
		return err
	}
	var prunes sync.WaitGroup
	running, stop := context.WithCancel(ctx)
	defer stop()
	var pruneErr error
	prunes.Go(func() { pruneErr = p.prune(running) })

	p.start = time.Now()
	group, groupCtx := errgroup.WithContext(ctx)
	for w, events := range traffic.workers {
		group.Go(func() error { return p.work(groupCtx, p.touches[w], events) })
	}
	end := time.Duration(opts.days) * opts.day
	p.printf("%-9s  hour      live      rows  bytes/live  HOT of touches  HOT of all updates   dead  autovacuums", p.name)
	var last daySample
	size, hot := curve{Plot: sizePlot, Name: p.name}, curve{Plot: hotPlot, Name: p.name}
	note := func(at time.Duration, s, before daySample) {
		hour := p.long(at).Hours()
		p.printf("%s", s.line(p.name, hour, before))
		size.X, size.Y = append(size.X, hour), append(size.Y, s.perLive())
		if touches := s.touches - before.touches; touches > 0 {
			hot.X, hot.Y = append(hot.X, hour), append(hot.Y, 100*float64(s.touchesHot-before.touchesHot)/float64(touches))
		}
	}
	group.Go(func() error {
		step := opts.day / samplesPerDay
		before, err := p.sample(groupCtx)
		if err == nil {
			note(0, before, before)
		}
		for at := step; at <= end && err == nil; at += step {
			select {
			case <-time.After(time.Until(p.start.Add(at))):
			case <-groupCtx.Done():
				return groupCtx.Err()
			}
			if last, err = p.sample(groupCtx); err == nil {
				note(at, last, before)
				before = last
			}
		}
		return err
	})
	err = group.Wait()
	stop()
	prunes.Wait()
	if err = errors.Join(err, pruneErr); err != nil {
		return err
	}
	p.Curves = append(p.Curves, size, hot)
	return p.report(ctx, last, walBefore)
}

func (p *replay) report(ctx context.Context, last daySample, walBefore string) error {
	var logged int64
	err := p.pool.QueryRow(ctx, "select pg_wal_lsn_diff(pg_current_wal_lsn(), $1::pg_lsn)::int8", walBefore).Scan(&logged)
	if err != nil {
		return err
	}
	size, err := tableSize(ctx, p.pool, p.table)
	if err != nil {
		return err
	}
	share := float64(last.touchesHot) / float64(last.touches)
	var line strings.Builder
	fmt.Fprintf(&line, "%-9s  touches that wrote: %d, HOT %.2f %%; moved by prune: %d; %.0f bytes a live session: table %.0f",
		p.rival.name, last.touches, 100*share, p.moved.Load(), last.perLive(), float64(size.table)/float64(last.live))
	for _, index := range size.indexes {
		fmt.Fprintf(&line, ", %s %.0f", index.name, float64(index.bytes)/float64(last.live))
	}
	late := p.long(time.Duration(p.late.Load()))
	p.printf("%s; log %.0f MB; at worst %v late; %d not found",
		line.String(), float64(logged)/1e6, late.Round(time.Minute), p.missing.Load())
	if late > latenessTolerable {
		return fmt.Errorf("%w: the traffic was %v late, which is too much: use fewer users or a longer day", errBeyondLimit, late)
	}
	if p.kind != oursKind {
		return nil
	}
	var beyond error
	if share < hotShareAtLeast {
		beyond = fmt.Errorf("%w: HOT share of touches", errBeyondLimit)
	}
	if last.perLive() > dataTimesAtMost*dataSize+bytesMoreAtMost {
		beyond = errors.Join(beyond, fmt.Errorf("%w: size per session", errBeyondLimit))
	}
	return beyond
}

// work does the events of one worker, each when it is due.
func (p *replay) work(ctx context.Context, touches *touchCounter, events []event) error {
	for _, e := range events {
		if wait := time.Until(p.at(e.at)); wait > 0 {
			time.Sleep(wait)
		} else if late := int64(-wait); late > p.late.Load() {
			p.late.Store(late)
		}
		if err := p.do(ctx, touches, e); errors.Is(err, pgsession.ErrNotFound) {
			p.missing.Add(1)
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (p *replay) do(ctx context.Context, touches *touchCounter, e event) error {
	t := key(int(e.session))
	switch e.deed {
	case request:
		if _, err := p.store.read(ctx, t); err != nil {
			return err
		}
		return touches.touch(ctx, t, document(e.session, e.revision))
	case destroy:
		return p.store.destroy(ctx, t)
	case login:
		if err := p.store.write(ctx, t, document(e.session, e.revision)); err != nil {
			return err
		}
		return p.store.destroy(ctx, key(int(e.from)))
	default: // create, update
		return p.store.write(ctx, t, document(e.session, e.revision))
	}
}

// prune is the store's cleanup, at its interval.
func (p *replay) prune(ctx context.Context) error {
	for {
		select {
		case <-time.After(p.shorten(p.day.cleanup)):
		case <-ctx.Done():
			return nil
		}
		rows, err := p.pool.Query(ctx, p.present(p.day.pruneSQL))
		if err != nil {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // the replay is over
			}
			return err
		}
		moved, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil && ctx.Err() == nil {
			return err
		}
		for _, n := range moved {
			p.moved.Add(n)
		}
	}
}

// present puts the time into a statement of fiber's.
func (p *replay) present(sql string) string {
	now := p.fiberTime(p.long(time.Since(p.start))).Unix()
	return strings.ReplaceAll(sql, "$now", strconv.FormatInt(now, 10))
}

// daySample is what is read now and then. Counts are since the start.
type daySample struct {
	live, rows, size    int64
	touches, touchesHot int64
	updates, updatesHot int64
	dead, autovacuums   int64
}

func (s daySample) perLive() float64 { return float64(s.size) / float64(s.live) }

// line is what happened since the sample before.
func (s daySample) line(name string, hour float64, before daySample) string {
	percent := func(hot, all int64) string {
		if all == 0 {
			return "-"
		}
		return fmt.Sprintf("%.2f %%", 100*float64(hot)/float64(all))
	}
	return fmt.Sprintf("%-9s  %4.0f  %8d  %8d  %10.0f  %14s  %18s  %5d  %11d",
		name, hour, s.live, s.rows, s.perLive(),
		percent(s.touchesHot-before.touchesHot, s.touches-before.touches),
		percent(s.updatesHot-before.updatesHot, s.updates-before.updates), s.dead, s.autovacuums-before.autovacuums)
}

func (p *replay) sample(ctx context.Context) (s daySample, err error) {
	err = p.pool.QueryRow(ctx, `
select count(*) filter (where `+p.present(p.day.live)+`), count(*), pg_total_relation_size('`+p.table+`')
  from `+p.table).Scan(&s.live, &s.rows, &s.size)
	if err != nil {
		return s, err
	}
	err = p.pool.QueryRow(ctx, `
select n_tup_upd, n_tup_hot_upd, n_dead_tup, autovacuum_count from pg_stat_all_tables where relid = $1::regclass`, p.table).
		Scan(&s.updates, &s.updatesHot, &s.dead, &s.autovacuums)
	for _, c := range p.touches {
		s.touches += c.all.Load()
		s.touchesHot += c.hot.Load()
	}
	return s, err
}
