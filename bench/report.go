package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The marks around what the README quotes.
const (
	headlineBegin = "<!-- headline: written by `go run . report` in bench/ -->\n"
	headlineEnd   = "<!-- end of headline -->\n"
)

// paper is the report as it is being written.
type paper struct {
	strings.Builder
	plots map[string][]byte
}

func (p *paper) line(format string, args ...any) {
	fmt.Fprintf(p, format+"\n", args...)
}

// plot adds a chart, unless there is nothing to show.
func (p *paper) plot(name string, c chart) {
	if len(c.lines) == 0 {
		return
	}
	p.plots[name+".svg"] = c.svg()
	p.line("\n![%s](plots/%s.svg)", c.title, name)
}

// report writes RESULTS.md and its plots, beside the directory of the results, and what the README quotes.
func report(opts options) error {
	load := func(name string) (r *results, err error) {
		r, err = loadResults(opts.results, name)
		return r, err
	}
	headline, err := load("headline")
	if err != nil {
		return err
	}
	if headline == nil {
		return errors.New("there are no results of a headline: go run . headline")
	}
	home := filepath.Dir(filepath.Clean(opts.results))
	p := &paper{plots: map[string][]byte{}}
	p.line("# Results\n\nWritten by `go run . report` from the raw results in `results/`; `make bench` makes and writes " +
		"them anew, `make bench-full` with all else.\n")
	p.machine(headline)
	block := headlineBlock(headline)
	p.line("\n%s", block)
	p.targets(headline)
	if err := p.include(filepath.Join(home, "NOTES.md")); err != nil {
		return err
	}
	p.throughput(headline)
	p.costs(headline)
	for _, part := range []struct {
		name  string
		write func(*results)
	}{
		{"hits", p.printed("Reads from memory", "of one session and of many at random, by one goroutine to eight, "+
			"a processor's time of each, hashing of the token included and the loop that calls it not; beside the reads "+
			"of a Redis over loopback and of scs + pgxstore, in turns.")},
		{"latency", p.latency},
		{"updates", p.updates},
		{"delay", p.printed("From one instance to another", "one update after the other, 500 a second.")},
		{"instances", p.printed("Many instances", "the server when nothing happens, and the updates of four writers, with 200 "+
			"more instances that listen, and without.")},
		{"saturated", p.printed("Without a free connection", "reads from the cache while slow queries hold every connection of "+
			"the pool.")},
		{"swallowed", p.printed("On a network that loses notifications", "reads from the cache while nothing reaches the "+
			"listener, and nothing says so.")},
		{"memory", p.printed("Memory", "what an instance needs for the sessions that it caches.")},
		{"revoke", p.printed("The end of many sessions", "100,000 sessions of one subject ended at once, and the reads "+
			"meanwhile.")},
		{"touches", p.printed("Touches", "of those that wrote, how many were HOT updates, with a prune running.")},
		{"growth", p.growth},
		{"prune", p.printed("Pruning", "a table of which the half has expired, under traffic.")},
		{"day", p.day},
		{"wal", p.printed("The write-ahead log", "what a touch and a set write to it, by `wal_compression`, on a page of "+
			"their own.")},
		{"full", func(r *results) { p.tables("All sizes, numbers of clients and distributions", r) }},
		{"slow", func(r *results) { p.tables("A slower disk: a commit takes a millisecond more", r) }},
		{"tenmillion", func(r *results) { p.tables("Ten million sessions", r) }},
		{"profile", p.profile},
	} {
		r, err := load(part.name)
		if err != nil {
			return err
		}
		if r != nil {
			part.write(r)
		}
	}
	p.method(headline)

	plots := filepath.Join(home, "plots")
	if err := os.MkdirAll(plots, 0o755); err != nil {
		return err
	}
	for name, svg := range p.plots {
		if err := writeFile(filepath.Join(plots, name), svg); err != nil {
			return err
		}
	}
	if err := writeFile(filepath.Join(opts.results, "headline.txt"), []byte(headline.benchFormat())); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(home, "RESULTS.md"), []byte(p.String())); err != nil {
		return err
	}
	fmt.Println(block)
	for _, t := range headline.targets() {
		fmt.Println(t)
	}
	if opts.readme == "" {
		return nil
	}
	return quote(opts.readme, block)
}

// quote replaces what a file quotes of the results.
func quote(path, block string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(content), headlineBegin)
	_, after, found := strings.Cut(rest, headlineEnd)
	if !ok || !found {
		return fmt.Errorf("%s has no place for the headline", path)
	}
	return writeFile(path, []byte(before+block+after))
}

func (p *paper) include(path string) error {
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	p.line("\n%s", strings.TrimSpace(string(content)))
	return err
}

func (p *paper) machine(r *results) {
	m := r.Machine
	p.line("%s. %s, %s, %s of memory, %s; the load, PostgreSQL and Redis share it, over loopback. "+
		"%s, Redis %s, Node %s.",
		m.Date.Format("2006-01-02 15:04 MST"), m.CPU, plural(m.Processors, "processor"), m.Memory, m.Kernel,
		m.Go, orNone(m.Redis), orNone(m.Node))
	p.server(r)
}

// server writes the settings that a run had, and warns of numbers that are worth little.
func (p *paper) server(r *results) {
	p.line("%s", r.Machine.server())
	if r.Machine.busy() {
		p.line("\n**The machine was not idle: %.1f processors were busy before. The numbers are worth little.**", r.Machine.Busy)
	}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// columns of the tables of throughput.
var columns = []struct{ name, ours, theirs string }{
	{"read hit", byGet, byFresh},
	{"read miss", byFresh, byFresh},
	{"create", creating, creating},
	{"update", updating, updating},
	{"touch", touching, touching},
	{"destroy", ending, ending},
	{"mix", mixing, mixing},
}

// headlineBlock is what the README quotes: 8 clients, and the smallest sessions.
func headlineBlock(r *results) string {
	var b strings.Builder
	b.WriteString(headlineBegin)
	all := r.tables()
	i := slices.IndexFunc(all, func(t *table) bool { return t.clients == hitClients && t.keys == "uniform" })
	if i < 0 {
		i = 0
	}
	t := all[i]
	fmt.Fprintf(&b, "Operations a second: %s sessions of %s bytes, %s; medians of %d rounds; "+
		"%s, %s, PostgreSQL %s, fsync on, %s.\n\n",
		grouped(t.sessions), grouped(t.data), plural(t.clients, "client"), t.rounds(), plural(r.Machine.Processors, "processor"),
		r.Machine.CPU, r.Machine.PostgreSQL, r.Machine.Date.Format("2006-01-02"))
	if r.Machine.busy() {
		fmt.Fprintf(&b, "**Measured while something else ran (%.1f processors were busy before): worth little.**\n\n",
			r.Machine.Busy)
	}
	b.WriteString(t.markdown(false))
	b.WriteString(headlineEnd)
	return b.String()
}

func (t *table) rounds() (n int) {
	for _, c := range t.cells {
		n = max(n, len(c.Rounds))
	}
	return n
}

// markdown is the throughput of all rivals. It says where one is faster than pgsession.
func (t *table) markdown(spreads bool) string {
	var b strings.Builder
	b.WriteString("| |")
	for _, c := range columns {
		fmt.Fprintf(&b, " %s |", c.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(columns)) + "\n")
	for _, name := range t.rivals() {
		fmt.Fprintf(&b, "| %s |", name)
		for _, column := range columns {
			workload := column.theirs
			if name == oursName {
				workload = column.ours
			}
			fmt.Fprintf(&b, " %s |", t.text(name, workload, column.ours, spreads))
		}
		b.WriteString("\n")
	}
	b.WriteString("\nA read hit of pgsession is View, then Get; the others have no cache, so theirs is their read. " +
		"▲: faster than pgsession both with its cache and without; △: than with it alone.\n")
	return b.String()
}

// text is that of one field of a table.
func (t *table) text(name, workload, ours string, spreads bool) string {
	c := t.find(name, workload)
	switch {
	case c == nil:
		return ""
	case c.Failed != "":
		return "failed"
	case len(c.Rounds) == 0:
		return "–"
	}
	field := func(c *cell) string {
		rate := c.rate()
		s := short3(rate.median)
		if spreads {
			s += fmt.Sprintf(" ±%.0f %%", 50*(rate.high-rate.low)/rate.median)
		}
		return s
	}
	text := field(c)
	if view := t.find(name, byView); workload == byGet && view.measured() {
		text = field(view) + ", " + text
	}
	if c.Kind == oursKind {
		return text
	}
	return text + t.mark(c, ours)
}

// mark says whether a rival's cell is faster than ours.
func (t *table) mark(c *cell, ours string) string {
	cached, uncached := t.find(oursName, ours), t.find(uncachedName, c.Workload)
	slower := func(o *cell) bool { return o.measured() && times(c, o).median > 1 }
	switch {
	case slower(cached) && (slower(uncached) || !uncached.measured()), !cached.measured() && slower(uncached):
		return " ▲"
	case slower(cached):
		return " △"
	}
	return ""
}

// short3 is a number of at least three digits.
func short3(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.2f M", v/1e6)
	case v >= 1e5:
		return fmt.Sprintf("%.0f k", v/1e3)
	case v >= 1e4:
		return fmt.Sprintf("%.1f k", v/1e3)
	default:
		return grouped(int(v + 0.5))
	}
}

func (p *paper) targets(r *results) {
	p.line("## Targets\n\nThe medians of the rounds' ratios, or differences, and the middle four fifths of them. Times are " +
		"those from one answer to the next, whoever it is for.\n")
	p.line("| | | goal | result | |\n|---|---|---|---|---|")
	for _, t := range r.targets() {
		word := "met"
		if !t.met {
			word = "**missed**"
		}
		p.line("| %s | %s | %s | %s | %s |", t.what, t.cell, t.goal, t.result, word)
	}
}

func (p *paper) throughput(r *results) {
	p.tables("Throughput", r)
	var ticks []tick
	for _, t := range r.tables() {
		if !slices.ContainsFunc(ticks, func(x tick) bool { return x.at == float64(t.clients) }) {
			ticks = append(ticks, tick{float64(t.clients), strconv.Itoa(t.clients)})
		}
	}
	for _, w := range []struct{ name, title string }{
		{byFresh, "Reads a second"},
		{updating, "Updates a second"},
		{touching, "Touches a second"},
		{mixing, "The mix: operations a second"},
	} {
		c := chart{title: fmt.Sprintf("%s, %s bytes", w.title, grouped(r.Cells[0].Data)), x: "clients", y: "operations a second"}
		c.logX, c.logY, c.ticksX = true, true, ticks
		add := func(name, workload string) {
			l := line{name: name, ours: strings.HasPrefix(name, oursName)}
			if workload != w.name {
				l.name += " " + map[string]string{byView: "View", byGet: "Get"}[workload]
			} else if w.name == byFresh && name == oursName {
				l.name += " GetFresh"
			}
			for _, x := range ticks {
				cell := r.find(name, workload, r.Cells[0].Data, int(x.at), "uniform")
				if !cell.measured() {
					continue
				}
				rate := cell.rate()
				l.x, l.y = append(l.x, x.at), append(l.y, rate.median)
				l.low, l.high = append(l.low, rate.low), append(l.high, rate.high)
			}
			if len(l.x) > 0 {
				c.lines = append(c.lines, l)
			}
		}
		for _, info := range r.Rivals {
			if w.name == byFresh && info.Name == oursName {
				add(info.Name, byView)
				add(info.Name, byGet)
			}
			add(info.Name, w.name)
		}
		p.plot("throughput-"+w.name, c)
	}
}

// tables writes all tables of a run.
func (p *paper) tables(title string, r *results) {
	p.line("\n## %s\n", title)
	if r.Name != "headline" {
		p.machine(r)
	}
	p.line("Operations a second, and half of the range of the middle four fifths of the rounds.")
	for _, t := range r.tables() {
		p.line("\n### %s: %s sessions\n\n%s", t, grouped(t.sessions), strings.TrimSpace(t.markdown(true)))
	}
	if r.Name != "headline" {
		p.line("")
		for _, t := range r.targets() {
			if !t.met {
				p.line("- %s", t)
			}
		}
	}
}
