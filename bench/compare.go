package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
)

// table is the cells that belong together: of sessions of one size, asked for by so many clients.
type table struct {
	data, clients, sessions int
	keys                    string
	cells                   []*cell
}

// tables are all of a run, in its order.
func (r *results) tables() (all []*table) {
	for _, c := range r.Cells {
		i := slices.IndexFunc(all, func(t *table) bool {
			return t.data == c.Data && t.clients == c.Clients && t.keys == c.Keys
		})
		if i < 0 {
			i = len(all)
			all = append(all, &table{data: c.Data, clients: c.Clients, keys: c.Keys, sessions: c.Sessions})
		}
		all[i].cells = append(all[i].cells, c)
	}
	return all
}

func (t *table) String() string {
	return fmt.Sprintf("%s bytes, %s, %s", grouped(t.data), plural(t.clients, "client"), t.keys)
}

func (t *table) find(rival, workload string) *cell {
	for _, c := range t.cells {
		if c.Rival == rival && c.Workload == workload {
			return c
		}
	}
	return nil
}

// rivals are the names of those in the table, in its order.
func (t *table) rivals() (names []string) {
	for _, c := range t.cells {
		if !slices.Contains(names, c.Rival) {
			names = append(names, c.Rival)
		}
	}
	return names
}

// fastest is the cell of the highest throughput among rivals of some kinds; nil: there is none.
func (t *table) fastest(workload string, kinds ...kind) *cell {
	var best *cell
	for _, c := range t.cells {
		if c.Workload != workload || !slices.Contains(kinds, c.Kind) || len(c.Rounds) == 0 {
			continue
		}
		if best == nil || c.rate().median > best.rate().median {
			best = c
		}
	}
	return best
}

func (c *cell) measured() bool { return c != nil && len(c.Rounds) > 0 }

func (c *cell) each(value func(outcome) float64) []float64 {
	values := make([]float64, len(c.Rounds))
	for i, o := range c.Rounds {
		values[i] = value(o)
	}
	return values
}

// rate is the throughput, in operations a second.
func (c *cell) rate() spread {
	return spreadOf(c.each(func(o outcome) float64 { return 1e9 / o.perCall() }))
}

// perCall is the time between two answers, in microseconds.
func (c *cell) perCall() spread {
	return spreadOf(c.each(func(o outcome) float64 { return o.perCall() / 1e3 }))
}

func (c *cell) client() float64 {
	return spreadOf(c.each(func(o outcome) float64 { return perOperation(o.CPU, o.Calls) })).median
}

func (c *cell) server() float64 {
	return spreadOf(c.each(func(o outcome) float64 { return perOperation(o.Server, o.Calls) })).median
}

func (c *cell) allocs() float64 {
	return spreadOf(c.each(func(o outcome) float64 { return float64(o.Allocs) / float64(o.Calls) })).median
}

// times is by how much a is faster than b, round by round.
func times(a, b *cell) spread {
	var ratios []float64
	for i := range min(len(a.Rounds), len(b.Rounds)) {
		ratios = append(ratios, b.Rounds[i].perCall()/a.Rounds[i].perCall())
	}
	return spreadOf(ratios)
}

// beyond is by how many microseconds a takes longer than b, round by round.
func beyond(a, b *cell) spread {
	var differences []float64
	for i := range min(len(a.Rounds), len(b.Rounds)) {
		differences = append(differences, (a.Rounds[i].perCall()-b.Rounds[i].perCall())/1e3)
	}
	return spreadOf(differences)
}

// target is one of those that the project has set itself, in one cell.
type target struct {
	what   string
	cell   string
	goal   string
	result string
	met    bool
}

func (t target) String() string {
	word := "met"
	if !t.met {
		word = "missed"
	}
	return fmt.Sprintf("%-6s  %s, %s: %s; %s", word, t.what, t.cell, t.result, t.goal)
}

const (
	missBeyond    = 6.0 // microseconds
	viewTimes     = 50.0
	getTimes      = 20.0
	hitClients    = 8
	mixTimes      = 5.0
	mixClients    = 32
	maxMoreAllocs = 6.0 // that a call may need beyond the raw one's
)

// targets are those of a run, in each table that has them.
func (r *results) targets() (all []target) {
	for _, t := range r.tables() {
		all = append(all, t.targets()...)
	}
	return all
}

func (t *table) targets() (all []target) {
	add := func(what, goal, result string, met bool) {
		all = append(all, target{what: what, cell: t.String(), goal: goal, result: result, met: met})
	}
	for _, ours := range []string{oursName, uncachedName} {
		if c, rival := t.find(ours, byFresh), t.fastest(byFresh, postgresRival); c.measured() && rival != nil {
			d := beyond(c, rival)
			add("GetFresh, "+ours,
				fmt.Sprintf("at most %.0f µs above the fastest PostgreSQL rival", missBeyond),
				fmt.Sprintf("%+.1f µs (%+.1f to %+.1f), %s", d.median, d.low, d.high, rival.Rival), d.median <= missBeyond)
		}
		for _, w := range []string{updating, touching} {
			if c, rival := t.find(ours, w), t.fastest(w, postgresRival); c.measured() && rival != nil {
				x := times(c, rival)
				add(map[string]string{updating: "Set, ", touching: "Touch, "}[w]+ours,
					"at least 1.00 × the fastest PostgreSQL rival",
					fmt.Sprintf("%.2f × (%.2f to %.2f), %s", x.median, x.low, x.high, rival.Rival), x.median >= 1)
			}
		}
	}
	for _, w := range []struct {
		name, workload string
		times          float64
	}{{"View", byView, viewTimes}, {"Get", byGet, getTimes}} {
		c, rival := t.find(oursName, w.workload), t.fastest(byFresh, postgresRival, redisRival, limitKind)
		if t.clients == hitClients && c.measured() && rival != nil {
			x := times(c, rival)
			add(w.name+" from the cache", fmt.Sprintf("at least %.0f × the fastest over the network", w.times),
				fmt.Sprintf("%.0f × (%.0f to %.0f), %s", x.median, x.low, x.high, rival.Rival), x.median >= w.times)
		}
	}
	if c := t.find(oursName, mixing); t.clients == mixClients && c.measured() {
		if rival := t.fastest(mixing, postgresRival); rival != nil {
			x := times(c, rival)
			add("mix", fmt.Sprintf("at least %.0f × the fastest PostgreSQL rival", mixTimes),
				fmt.Sprintf("%.1f × (%.1f to %.1f), %s", x.median, x.low, x.high, rival.Rival), x.median >= mixTimes)
		}
		if rival := t.fastest(mixing, redisRival); rival != nil {
			x := times(c, rival)
			add("mix", "faster than Redis",
				fmt.Sprintf("%.1f × (%.1f to %.1f), %s", x.median, x.low, x.high, rival.Rival), x.median > 1)
		}
	}
	for _, w := range []struct {
		name, workload string
		limit          float64
	}{{"GetFresh", byFresh, cmp.Or(map[int]float64{1: 1.35}[t.clients], 1.45)}, {"Set", updating, 1.30}} {
		c, limit := t.find(uncachedName, w.workload), t.find(rawName, w.workload)
		if c.measured() && limit.measured() {
			x, more := times(limit, c), c.allocs()-limit.allocs()
			add(w.name+" beside raw SQL",
				fmt.Sprintf("at most %.2f × its time and %.0f more allocations", w.limit, maxMoreAllocs),
				fmt.Sprintf("%.2f × (%.2f to %.2f), %+.1f allocations", x.median, x.low, x.high, more),
				x.median <= w.limit && more <= maxMoreAllocs)
		}
	}
	return all
}

// grouped is a number with its thousands apart.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
