package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

var latencyWorkloads = []string{byGet, byFresh, updating, mixing}

// latency measures latencies by an open loop: requests arrive at random, at the same times for all rivals.
func latency(ctx context.Context, url string, res *results, opts options) error {
	b := &board{options: opts, results: res, progress: newProgress(opts.budget)}
	redis, meter, stop, err := b.servers(ctx, url)
	if err != nil {
		return err
	}
	defer stop()
	b.meter = meter
	a := arena{
		url: url, redis: redis, size: opts.data[0], sessions: opts.sessions,
		clients: slices.Max(opts.clients), only: opts.rivals,
	}
	contenders := a.open(ctx, func(name string) { b.progress.show("sessions for " + name) })
	defer func() {
		for _, c := range contenders {
			c.end()
		}
	}()
	b.describe(contenders)
	for _, c := range contenders {
		if c.failed != nil {
			b.fail(c, c.failed)
		}
	}
	if err := b.warmUp(ctx, a, contenders, min(mostWarmUp, opts.budget/warmUpShare)); err != nil {
		return err
	}
	workloads := opts.workloads
	if len(workloads) == 0 {
		workloads = latencyWorkloads
	}
	for i, w := range workloads {
		end := time.Now().Add(time.Until(b.progress.end) / time.Duration(len(workloads)-i))
		if err := b.openLoop(ctx, a, contenders, w, end); err != nil {
			return err
		}
	}
	b.progress.clear()
	fmt.Printf("%d cells in %v\n", len(res.Cells), time.Since(b.progress.start).Round(time.Second))
	return b.failed
}

// openLoop measures one workload, in a few rounds.
func (b *board) openLoop(ctx context.Context, a arena, contenders []*contender, workload string, end time.Time) error {
	rounds := min(b.rounds, leastRounds)
	d := newDraws(a.sessions, a.size, slices.Contains(b.keys, "zipf"))
	slot := time.Until(end)/time.Duration(len(contenders)*(rounds+1)) - 10*time.Millisecond
	l := load{workload: workload, clients: a.clients, duration: max(slot, 100*time.Millisecond), rate: b.rate}
	cells := make([]*cell, len(contenders))
	for i, c := range contenders {
		cells[i] = &cell{
			Rival: c.name, Kind: c.kind, Workload: workload, Data: a.size, Clients: a.clients, Sessions: a.sessions,
			Keys: strings.Join(b.keys, ","), Rate: b.rate,
		}
		b.Cells = append(b.Cells, cells[i])
		if c.failed == nil {
			err := c.guard(func() error { return c.draw(d) })
			if err == nil && c.isCached() {
				err = c.guard(func() error { return c.warm(ctx, d) })
			}
			if err != nil {
				b.fail(c, err)
			}
		}
	}
	histograms := make([]*hdrhistogram.Histogram, len(contenders))
	for i := range histograms {
		histograms[i] = newHistogram()
	}
	for round := -1; round < rounds; round++ {
		for i := range contenders {
			i = (i + round + 1) % len(contenders)
			c := contenders[i]
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if c.failed != nil {
				cells[i].Failed = c.failed.Error()
				continue
			}
			b.progress.show(fmt.Sprintf("%.0f requests/s, %s: %s", b.rate, workload, c.name))
			l := l
			l.seed = uint64(round + 2)
			if workload == byGet && !c.isCached() {
				l.workload = byFresh // the only read of theirs
			}
			if round < 0 {
				l.duration /= 4
			}
			o, err := b.slot(ctx, c, l)
			if err != nil {
				b.fail(c, err)
				cells[i].Failed = err.Error()
				continue
			}
			if round >= 0 {
				cells[i].Rounds = append(cells[i].Rounds, o)
				cells[i].RoundQuantiles = append(cells[i].RoundQuantiles, o.latencies.ValueAtPercentilesSlice(quantiles))
				histograms[i].Merge(o.latencies)
			}
		}
	}
	for i, c := range cells {
		if histograms[i].TotalCount() > 0 {
			c.Quantiles = histograms[i].ValueAtPercentilesSlice(quantiles)
		}
	}
	return nil
}
