package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// errFailed is that of a rival that did not do what it was to do.
var errFailed = errors.New("failed")

// row is what all contenders do in turns, at the same time of the run.
type row struct {
	name     string
	clients  int
	keys     string
	duration time.Duration
}

// workloadsOf are what a contender does in a row. What was created is destroyed next.
func workloadsOf(row string, c *contender) []string {
	switch {
	case row == "churn":
		return []string{creating, ending}
	case row != "read":
		return []string{row}
	case c.isCached():
		return []string{byView, byGet, byFresh}
	default:
		return []string{byFresh}
	}
}

var headlineRows = []string{"read", "churn", updating, touching, mixing}

// rows of one size of sessions.
func (o options) rows(size int) (rows []row) {
	names := o.workloads
	if len(names) == 0 {
		names = headlineRows
	}
	for _, keys := range o.keys {
		for _, clients := range o.clients {
			for _, name := range names {
				few := size != o.data[0] && clients != o.clients[len(o.clients)/2] ||
					keys == "zipf" && (name != mixing || clients != o.clients[len(o.clients)-1])
				if few && !o.full || keys == "zipf" && name == "churn" { // which draws no keys
					continue
				}
				rows = append(rows, row{name: name, clients: clients, keys: keys})
			}
		}
	}
	return rows
}

// headline measures all rivals side by side: in each row each workload in turns, a slot of time for each
// rival, for some rounds, of which the first is not counted.
func headline(ctx context.Context, url string, res *results, opts options) (err error) {
	b := &board{options: opts, results: res, progress: newProgress(opts.budget)}
	redis, meter, stop, err := b.servers(ctx, url)
	if err != nil {
		return err
	}
	defer stop()
	b.meter = meter
	for i, size := range opts.data {
		a := arena{
			url: url, redis: redis, size: size, only: opts.rivals, sessions: opts.sessions,
		}
		for _, r := range opts.rows(size) {
			a.clients = max(a.clients, r.clients)
		}
		if size > 16*1024 {
			a.sessions = min(a.sessions, opts.large)
		}
		// Each size has its share of the time; the first has most of the rows.
		left := 0
		for _, later := range opts.data[i:] {
			left += len(opts.rows(later))
		}
		share := time.Until(b.progress.end) * time.Duration(len(opts.rows(size))) / time.Duration(max(left, 1))
		if err := b.size(ctx, a, time.Now().Add(share)); err != nil {
			return err
		}
	}
	b.progress.clear()
	fmt.Printf("%d cells in %v\n", len(res.Cells), time.Since(b.progress.start).Round(time.Second))
	return b.failed
}

// board is a run of the table.
type board struct {
	options
	*results
	progress *progress
	meter    *meter // nil: the server is elsewhere
	failed   error
}

// servers starts Redis, and reads what all servers use.
func (b *board) servers(ctx context.Context, url string) (rivals []rival, m *meter, stop func(), err error) {
	directory, err := os.MkdirTemp("", "pgsession-bench-*")
	if err != nil {
		return nil, nil, nil, err
	}
	stops := []func(){func() { _ = os.RemoveAll(directory) }}
	stop = func() {
		for _, f := range slices.Backward(stops) {
			f()
		}
	}
	var pids []int
	for _, durable := range []bool{false, true} {
		server, err := startRedis(ctx, directory, durable)
		if err != nil { // those who would use it fail by that
			for _, r := range redisRivals("", durable) {
				r.open = func(context.Context, place) (sessionStore, error) { return nil, err }
				rivals = append(rivals, r)
			}
			continue
		}
		stops = append(stops, server.stop)
		pids = append(pids, server.pid)
		rivals = append(rivals, redisRivals(server.address, durable)...)
		if b.Machine.Redis, err = server.says(ctx, "redis_version"); err != nil {
			fmt.Println("redis:", err)
		}
	}
	m, err = newMeter(ctx, url, pids...)
	if err != nil {
		fmt.Println("the servers' time is not counted:", err)
		return rivals, nil, stop, nil
	}
	stops = append(stops, m.close)
	return rivals, m, stop, nil
}

// size measures all rows of sessions of one size.
func (b *board) size(ctx context.Context, a arena, end time.Time) error {
	contenders := a.open(ctx, func(name string) {
		b.progress.show(fmt.Sprintf("%d sessions of %d bytes for %s", a.sessions, a.size, name))
	})
	defer func() {
		for _, c := range contenders {
			c.end()
		}
	}()
	if len(b.Rivals) == 0 {
		b.describe(contenders)
	}
	for _, c := range contenders {
		if c.failed != nil {
			b.fail(c, c.failed)
		}
	}
	if err := b.warmUp(ctx, a, contenders, min(mostWarmUp, time.Until(end)/warmUpShare)); err != nil {
		return err
	}
	rows := b.rows(a.size)
	for i, r := range rows {
		weight := func(r row) (n int) {
			for _, c := range contenders {
				n += len(workloadsOf(r.name, c))
			}
			return n
		}
		total := 0
		for _, later := range rows[i:] {
			total += weight(later)
		}
		share := time.Duration(float64(time.Until(end)) * float64(weight(r)) / float64(max(total, 1)))
		r.duration = share/time.Duration(max(weight(r), 1)*(b.rounds+1)) - slotOverhead
		r.duration = min(max(r.duration, leastSlot), mostSlot)
		if err := b.row(ctx, a, contenders, r, time.Now().Add(share)); err != nil {
			return err
		}
	}
	b.progress.clear()
	return ctx.Err()
}

// warmUp has each connection plan and compile what it will run.
func (b *board) warmUp(ctx context.Context, a arena, contenders []*contender, d time.Duration) error {
	draws := newDraws(a.sessions, a.size, false)
	for _, c := range contenders {
		for _, w := range []string{byFresh, updating, touching, creating, ending} {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if c.failed != nil {
				break
			}
			b.progress.show("warming up: " + c.name)
			err := c.guard(func() error { return c.draw(draws) })
			if err == nil {
				_, err = c.run(ctx, load{workload: w, clients: a.clients, duration: d})
			}
			if err != nil {
				b.fail(c, err)
			}
		}
	}
	return nil
}

const (
	mostWarmUp   = 400 * time.Millisecond // of each workload of each rival
	warmUpShare  = 500                    // of the time, of which a tenth is for all of them
	slotOverhead = 4 * time.Millisecond   // readings, and the answers that are on their way at a slot's end
	leastSlot    = 15 * time.Millisecond
	mostSlot     = 500 * time.Millisecond
	leastRounds  = 3
)

func (b *board) fail(c *contender, err error) {
	c.failed = err
	for i, info := range b.Rivals {
		if info.Name == c.name {
			b.Rivals[i].Failed = err.Error()
		}
	}
	b.progress.clear()
	fmt.Printf("%s failed: %v\n", c.name, err)
	b.failed = errors.Join(b.failed, fmt.Errorf("%w: %s: %w", errFailed, c.name, err))
}

// row measures one row, in rounds, as many as there is time for, and at least a few.
func (b *board) row(ctx context.Context, a arena, contenders []*contender, r row, end time.Time) error {
	d := newDraws(a.sessions, a.size, r.keys == "zipf")
	cells := map[string]*cell{}
	at := func(c *contender, workload string) *cell {
		k := c.name + " " + workload
		if cells[k] == nil {
			cells[k] = &cell{
				Rival: c.name, Kind: c.kind, Workload: workload,
				Data: a.size, Clients: r.clients, Sessions: a.sessions, Keys: r.keys,
			}
			b.Cells = append(b.Cells, cells[k])
		}
		return cells[k]
	}
	for _, c := range contenders {
		for _, w := range workloadsOf(r.name, c) {
			at(c, w)
			if c.failed != nil {
				at(c, w).Failed = c.failed.Error()
			}
		}
		if c.failed != nil {
			continue
		}
		err := c.guard(func() error { return c.draw(d) })
		if err == nil && c.isCached() && (r.name == "read" || r.name == mixing) {
			err = c.guard(func() error { return c.warm(ctx, d) })
		}
		if err != nil {
			b.fail(c, err)
		}
	}
	for round := -1; round < b.rounds; round++ {
		if round >= leastRounds && time.Now().After(end) {
			break
		}
		for i := range contenders {
			// Who goes first alternates, so that nobody follows the same one always.
			c := contenders[(i+round+1)%len(contenders)]
			for _, w := range workloadsOf(r.name, c) {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if c.failed != nil {
					continue
				}
				b.progress.show(fmt.Sprintf("%d bytes, %d clients, %s: %s", a.size, r.clients, w, c.name))
				o, err := b.slot(ctx, c, load{workload: w, clients: r.clients, duration: r.duration})
				switch {
				case err != nil:
					b.fail(c, err)
					at(c, w).Failed = err.Error()
				case round >= 0 && o.Calls > 0:
					at(c, w).Rounds = append(at(c, w).Rounds, o)
				}
			}
		}
	}
	return nil
}

// slot is one contender's turn.
func (b *board) slot(ctx context.Context, c *contender, l load) (outcome, error) {
	if b.meter == nil {
		return c.run(ctx, l)
	}
	before, err := b.meter.used(ctx)
	if err != nil {
		return outcome{}, err
	}
	o, err := c.run(ctx, l)
	if err != nil {
		return o, err
	}
	after, err := b.meter.used(ctx)
	o.Server = after - before
	return o, err
}
