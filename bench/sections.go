package main

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
)

// workloadNames are those of the tables.
var workloadNames = map[string]string{
	byView: "View", byGet: "Get", byFresh: "read", creating: "create", updating: "update", touching: "touch",
	ending: "destroy", mixing: "mix",
}

// costs writes what an operation takes, and what it takes beyond raw SQL, in each table of the smallest
// sessions.
func (p *paper) costs(r *results) {
	p.line("\n## What an operation takes\n\nµs from one answer to the next, µs of processor time of the process that calls "+
		"and of the servers', and allocations; beyond raw pgx, the medians of the rounds' differences. Processor time does not "+
		"add up to the time between answers: there are %s, and a commit waits for the disk.",
		plural(r.Machine.Processors, "processor"))
	for _, t := range r.tables() {
		if t.data != r.Cells[0].Data || t.keys != "uniform" {
			continue
		}
		p.line("\n### %s\n\n| | | µs | client | server | allocations | beyond raw pgx: µs | allocations |\n"+
			"|---|---|---|---|---|---|---|---|", t)
		for _, c := range t.cells {
			if !c.measured() {
				continue
			}
			more, moreAllocs := "", ""
			if limit := t.find(rawName, c.Workload); limit.measured() && c.Rival != rawName {
				more = fmt.Sprintf("%+.1f", beyond(c, limit).median)
				moreAllocs = fmt.Sprintf("%+.1f", c.allocs()-limit.allocs())
			}
			allocs := fmt.Sprintf("%.1f", c.allocs())
			if c.allocs() == 0 && c.Workload != byView { // Node says nothing of it
				allocs, moreAllocs = "", ""
			}
			p.line("| %s | %s | %s | %.1f | %s | %s | %s | %s |", c.Rival, workloadNames[c.Workload],
				digits(c.perCall().median), c.client(), orNothing(c.server()), allocs, more, moreAllocs)
		}
	}
}

func digits(v float64) string {
	if v < 10 {
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

func orNothing(v float64) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f", v)
}

func (p *paper) latency(r *results) {
	if len(r.Cells) == 0 {
		return
	}
	first := r.Cells[0]
	p.line("\n## Latency\n\n%.0f requests a second arrive at random, at the same times for all, over %d connections; "+
		"sessions of %s bytes. The loop is open: a latency is counted from when the request arrived, so those that wait "+
		"for a slow one before them are slow too (a closed loop leaves them out: coordinated omission). Milliseconds.",
		first.Rate, first.Clients, grouped(first.Data))
	p.line("")
	p.server(r)
	names := map[string]string{byGet: "read hit (Get)", byFresh: "read miss", updating: "update", mixing: "mix"}
	for _, w := range []string{byGet, byFresh, updating, mixing} {
		c := chart{title: "Latency: " + names[w], x: "percentile", y: "milliseconds", logY: true}
		var rows []string
		for _, cell := range r.Cells {
			if cell.Workload != w {
				continue
			}
			if cell.Failed != "" {
				rows = append(rows, fmt.Sprintf("| %s | failed | | | |", cell.Rival))
			}
			if len(cell.Quantiles) == 0 {
				continue
			}
			text := func(percent float64) string {
				var each []float64
				for _, q := range cell.RoundQuantiles {
					each = append(each, float64(quantile(q, percent))/1e6)
				}
				return fmt.Sprintf("%.3g (%.3g to %.3g)",
					float64(quantile(cell.Quantiles, percent))/1e6, slices.Min(each), slices.Max(each))
			}
			rows = append(rows, fmt.Sprintf("| %s | %s | %s | %s | %.3g |", cell.Rival, text(50), text(99), text(99.9),
				float64(quantile(cell.Quantiles, 100))/1e6))
			l := line{name: cell.Rival, ours: cell.Kind == oursKind}
			for i, percent := range quantiles[:len(quantiles)-2] { // to 99.9
				l.x, l.y = append(l.x, rarity(percent)), append(l.y, float64(cell.Quantiles[i])/1e6)
			}
			c.lines = append(c.lines, l)
		}
		if len(rows) == 0 {
			continue
		}
		for _, percent := range []float64{50, 90, 99, 99.9} {
			c.ticksX = append(c.ticksX, tick{rarity(percent), fmt.Sprint(percent)})
		}
		p.line("\n### %s\n\n| | p50 (of each round) | p99 | p99.9 | worst |\n|---|---|---|---|---|\n%s",
			names[w], strings.Join(rows, "\n"))
		p.plot("latency-"+w, c)
	}
}

// rarity spreads percentiles: 90, 99 and 99.9 are as far apart.
func rarity(percent float64) float64 { return -math.Log10(1 - percent/100) }

func (p *paper) lines(r *results) {
	p.line("\n```\n%s\n```", strings.Join(r.Lines, "\n"))
}

// lineOf is a curve as a line.
func lineOf(c curve, scale float64) line {
	l := line{name: c.Name, x: c.X, ours: c.Name == oursName}
	scaled := func(values []float64) (all []float64) {
		for _, v := range values {
			all = append(all, v*scale)
		}
		return all
	}
	l.y, l.low, l.high = scaled(c.Y), scaled(c.Low), scaled(c.High)
	return l
}

// section begins that of a run: what it did, with what, and what it printed.
func (p *paper) section(title, text string, r *results) {
	p.line("\n## %s\n\n`go run . %s`, %s: %s\n", title, r.Name, r.Machine.Date.Format("2006-01-02"), text)
	p.server(r)
	p.lines(r)
}

// printed writes the section of a run that has no more to show than it printed.
func (p *paper) printed(title, text string) func(*results) {
	return func(r *results) { p.section(title, text, r) }
}

func (p *paper) updates(r *results) {
	p.section("Updates, by the way of telling others", "`commit_delay` has each commit take a millisecond, as on a slower disk; "+
		"one instance listens.", r)
	c := chart{title: "Updates a second by Config.Notify", x: "clients", y: "updates a second", logX: true, logY: true}
	for _, curve := range r.Curves {
		c.lines = append(c.lines, lineOf(curve, 1))
		if c.ticksX == nil {
			for _, x := range curve.X {
				c.ticksX = append(c.ticksX, tick{x, fmt.Sprint(x)})
			}
		}
	}
	p.plot("updates", c)
}

func (p *paper) growth(r *results) {
	p.section("Size", "one client, over all sessions at random, beyond the cache.", r)
	c := chart{title: "Median latency against rows", x: "sessions in the table", y: "µs", logX: true}
	for _, curve := range r.Curves {
		l := lineOf(curve, 1e-3)
		l.low, l.high = nil, nil
		c.lines = append(c.lines, l)
		if c.ticksX == nil {
			for _, x := range curve.X {
				c.ticksX = append(c.ticksX, tick{x, short(x)})
			}
		}
	}
	p.plot("growth", c)
}

func (p *paper) day(r *results) {
	p.section("A day", "the same traffic for each store, shortened; each as its middleware uses it. Shares and vacuums "+
		"are those since the line before.", r)
	for _, c := range []struct {
		name  string
		chart chart
	}{
		{sizePlot, chart{title: "Bytes a live session, over a day of traffic", x: "hour", y: "bytes"}},
		{hotPlot, chart{title: "HOT share of touches, over a day of traffic", x: "hour", y: "%"}},
	} {
		for _, curve := range r.Curves {
			if curve.Plot == c.name && len(curve.X) > 0 {
				c.chart.lines = append(c.chart.lines, lineOf(curve, 1))
			}
		}
		for hour := 0.0; hour <= 24; hour += 3 {
			c.chart.ticksX = append(c.chart.ticksX, tick{hour, fmt.Sprint(hour)})
		}
		p.plot(c.name, c.chart)
	}
}

func (p *paper) profile(r *results) {
	p.line("\n## Profiles\n\n`go run . profile`, %s: the client's processor time by layers. [PROFILE.md](PROFILE.md) says what "+
		"was done about it.",
		r.Machine.Date.Format("2006-01-02"))
	p.server(r)
	p.line("%s", strings.Join(r.Lines, "\n"))
}

func (p *paper) method(r *results) {
	p.line(`
## Method

- All rivals run on one server at the same time, each with a schema of its own, in interleaved rounds: in each round each
  has its turn of some tens of milliseconds, in an order that rotates. The first round warms up and is not counted. Ratios
  are taken within a round; the median and the middle four fifths are shown.
- Throughput is of a closed loop, latency of an open one, by HDR histograms of three digits.
- Keys are drawn before; "uniform" asks for all sessions alike, "zipf" with an exponent of %.2f. A write's data differ from
  what is there. What create made, destroy ends in the turn after it. The mix is 90 %% read, 8 %% touch, 2 %% update.
- Before a rival is measured it is checked: what it reads is what was written, and what it destroyed is gone.
- The processor time of the servers is that of PostgreSQL's processes, as pg_stat_activity lists them, and Redis's, by the
  kernel's count (/proc/PID/schedstat); PostgreSQL's own views count calls and wall time. Background work is in it.
- Allocations are of the whole process that calls, so those of our listener are in ours.
- Cleanup is off in all of them.

## Rivals
`, zipfExponent)
	for _, info := range r.Rivals {
		failed := ""
		if info.Failed != "" {
			failed = " **Failed: " + strings.TrimSpace(info.Failed) + "**"
		}
		versions := ""
		if len(info.Versions) > 0 {
			versions = " " + strings.Join(info.Versions, ", ") + "."
		}
		p.line("- **%s**: %s.%s%s", info.Name, info.What, versions, failed)
	}
	p.line(`
## To repeat it

    make bench        # ten minutes: the headline, latencies, updates by the way of telling others
    make bench-full   # some hours, 60 GB of disk: all of it
    cd bench && go run . headline -h

benchstat reads results/headline.txt: "benchstat -col /rival -filter '/clients:8' results/headline.txt".`)
}

// benchFormat is the Go benchmarks' format, a line for each round, for benchstat.
func (r *results) benchFormat() string {
	var b strings.Builder
	fmt.Fprintf(&b, "goos: %s\ngoarch: %s\npkg: %s/bench\ncpu: %s\n", runtime.GOOS, runtime.GOARCH, modulePath, r.Machine.CPU)
	for _, c := range r.Cells {
		name := fmt.Sprintf("Benchmark%s/data=%d/clients=%d/keys=%s/rival=%s-%d",
			strings.ToUpper(c.Workload[:1])+c.Workload[1:], c.Data, c.Clients, c.Keys,
			strings.NewReplacer(" ", "_", "/", "_").Replace(c.Rival), r.Machine.Processors)
		for _, o := range c.Rounds {
			fmt.Fprintf(&b, "%s %d %.1f ns/op %.1f client-ns/op %.1f server-ns/op %.2f allocs/op\n", name, o.Calls, o.perCall(),
				float64(o.CPU)/float64(o.Calls), float64(o.Server)/float64(o.Calls), float64(o.Allocs)/float64(o.Calls))
		}
	}
	return b.String()
}
