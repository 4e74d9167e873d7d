package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/pgsession/internal/postgres"
)

// A whole run, small: it ends in time, and the report is made of what it left.
func TestARunEndsInAReport(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	directory, readme := filepath.Join(home, "results"), filepath.Join(home, "README.md")
	const before, after = "# Speed\n\n", "\nMore.\n"
	if err := os.WriteFile(readme, []byte(before+headlineBegin+"old\n"+headlineEnd+after), 0o600); err != nil {
		t.Fatal(err)
	}
	own, err := postgres.Start(t.Context(), postgres.Options{Private: true})
	if err != nil {
		t.Fatal(err)
	}
	defer own.Stop()
	for _, args := range [][]string{
		{"headline", "-clients", "2,8", "-data", "400,1000", "-keys", "uniform,zipf"},
		{"latency", "-clients", "2", "-data", "400", "-rate", "200"},
		{"updates", "-clients", "1"},
		{"profile", "-data", "400", "-cpu", "200ms"},
		{"report", "-readme", readme},
	} {
		args = append(args, "-results", directory)
		if args[0] != "report" {
			args = append(args, "-sessions", "100", "-rounds", "1", "-budget", "500ms", "-rivals", "pgsession,raw pgx,scs + pgxstore")
		}
		opts, err := parse(args[0], args[1:])
		if err != nil {
			t.Fatal(err)
		}
		if args[0] == "report" {
			err = report(opts)
		} else {
			err = benchmarks(opts)[args[0]].measure(t.Context(), own.URL(), opts)
		}
		if err != nil && !errors.Is(err, errBeyondLimit) {
			t.Fatalf("%s: %v", args[0], err)
		}
	}

	content, err := os.ReadFile(filepath.Join(home, "RESULTS.md"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	for _, want := range []string{
		"| pgsession |", "| raw pgx |", "## Targets", "400 bytes, 8 clients, uniform", "1,000 bytes, 8 clients, uniform",
		"400 bytes, 8 clients, zipf", "### mix", "p99.9", "in the transaction", "beyond raw pgx", "## Profiles", "scs/pgxstore v0",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("RESULTS.md has no %q", want)
		}
	}
	if strings.Contains(text, "NaN") || strings.Contains(text, "Inf") || strings.Contains(text, "%!") {
		t.Error("RESULTS.md has a number that is none")
	}
	plots := regexp.MustCompile(`\(plots/(.*?\.svg)\)`).FindAllStringSubmatch(text, -1)
	if len(plots) < 8 {
		t.Errorf("it shows %d plots", len(plots))
	}
	for _, match := range plots {
		svg, err := os.Open(filepath.Join(home, "plots", match[1]))
		if err != nil {
			t.Fatal(err)
		}
		decoder := xml.NewDecoder(svg)
		elements := 0
		for err == nil {
			var token xml.Token
			if token, err = decoder.Token(); token != nil {
				elements++
			}
		}
		if !errors.Is(err, io.EOF) || elements < 50 {
			t.Errorf("%s: %d elements, %v", match[1], elements, err)
		}
		_ = svg.Close()
	}
	quoted, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	block := headlineOf(t, string(quoted))
	if string(quoted) != before+block+after || !strings.Contains(block, "| pgsession |") || block != headlineOf(t, text) {
		t.Errorf("the README is\n%s", quoted)
	}
	lines, err := os.ReadFile(filepath.Join(directory, "headline.txt"))
	if err != nil {
		t.Fatal(err)
	}
	format := regexp.MustCompile(`(?m)^BenchmarkUpdate/data=400/clients=8/keys=uniform/rival=raw_pgx-\d+ \d+ [\d.]+ ns/op `)
	if !format.Match(lines) {
		t.Errorf("benchstat would not read\n%.2000s", lines)
	}
}

// headlineOf is what stands between the marks, and the marks.
func headlineOf(t *testing.T, text string) string {
	t.Helper()
	begin, end := strings.Index(text, headlineBegin), strings.Index(text, headlineEnd)
	if begin < 0 || end < begin {
		t.Fatal("there is no headline")
	}
	return text[begin : end+len(headlineEnd)]
}

func TestTheREADMEQuotesTheResults(t *testing.T) {
	t.Parallel()
	var blocks []string
	for _, path := range []string{"RESULTS.md", "../README.md"} {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, headlineOf(t, string(content)))
	}
	if blocks[0] != blocks[1] {
		t.Errorf("the README quotes\n%s\nand the results are\n%s\ngo run . report writes both", blocks[1], blocks[0])
	}
}

// cellOf has rounds that take so many microseconds.
func cellOf(rival string, kind kind, workload string, clients int, micros ...float64) *cell {
	c := &cell{Rival: rival, Kind: kind, Workload: workload, Data: 400, Clients: clients, Sessions: 10, Keys: "uniform"}
	for _, m := range micros {
		c.Rounds = append(c.Rounds, outcome{Calls: 1000, Elapsed: time.Duration(m * 1000 * 1000), Allocs: 5000})
	}
	return c
}

// Each run has a section, which says what the server was set to: not all have the same.
func TestTheReportShowsWhatEachRunPrintedAndItsSettings(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	opts, err := parse("report", []string{"-results", filepath.Join(home, "results"), "-readme", ""})
	if err != nil {
		t.Fatal(err)
	}
	all := slices.Sorted(maps.Keys(benchmarks(opts)))
	for i, name := range all {
		r := &results{Name: name, Machine: machine{PostgreSQL: "17", Settings: map[string]string{"shared_buffers": fmt.Sprintf("%d GB", i+1)}}}
		switch name {
		case "headline", "latency":
			c := cellOf(oursName, oursKind, byFresh, 8, 20, 20, 20)
			for i := range quantiles {
				c.Quantiles = append(c.Quantiles, int64(i+1)*1000)
			}
			c.RoundQuantiles = [][]int64{c.Quantiles}
			r.Cells = []*cell{c}
		case "day":
			r.Curves = []curve{
				{Plot: sizePlot, Name: oursName, X: []float64{0, 24}, Y: []float64{800, 900}},
				{Plot: hotPlot, Name: oursName, X: []float64{0, 24}, Y: []float64{100, 99}},
				{Plot: hotPlot, Name: "scs", X: []float64{0, 24}, Y: []float64{0, 0}},
			}
		}
		r.printf("printed by %s.", name)
		if err := r.save(opts.results); err != nil {
			t.Fatal(err)
		}
	}
	if err := report(opts); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(home, "RESULTS.md"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	for i, name := range all {
		printed := name == "headline" || name == "latency" || strings.Contains(text, "printed by "+name+".")
		if !printed || !strings.Contains(text, fmt.Sprintf("PostgreSQL 17: `shared_buffers` %d GB.", i+1)) {
			t.Errorf("RESULTS.md says nothing of %s, or of its settings", name)
		}
	}
	for _, plot := range []string{"day", "hot"} {
		svg, err := os.ReadFile(filepath.Join(home, "plots", plot+".svg"))
		if err != nil || strings.Contains(string(svg), "NaN") || !strings.Contains(text, "(plots/"+plot+".svg)") {
			t.Errorf("the plot %s: %v", plot, err)
		}
	}
}

func TestTargetsAreMetOrMissed(t *testing.T) {
	t.Parallel()
	r := &results{Cells: []*cell{
		cellOf(oursName, oursKind, byView, 8, 0.1, 0.1, 0.2),
		cellOf(oursName, oursKind, byGet, 8, 1, 2, 2),
		cellOf(uncachedName, oursKind, byFresh, 8, 24, 25, 40),
		cellOf(uncachedName, oursKind, updating, 8, 100, 100, 100),
		cellOf(rawName, limitKind, byFresh, 8, 20, 20, 20),
		cellOf(rawName, limitKind, updating, 8, 50, 50, 50),
		cellOf("slow", postgresRival, byFresh, 8, 30, 30, 30),
		cellOf("fast", postgresRival, byFresh, 8, 20, 20, 20),
		cellOf("fast", postgresRival, updating, 8, 80, 90, 100),
		cellOf("slow", postgresRival, updating, 8, 120, 110, 130),
		cellOf("Redis", redisRival, byFresh, 8, 10, 10, 10),
		cellOf(oursName, oursKind, mixing, 32, 2, 2, 2),
		cellOf("fast", postgresRival, mixing, 32, 12, 12, 12),
		cellOf("Redis", redisRival, mixing, 32, 1, 1, 1),
	}}
	want := map[string]bool{
		"GetFresh, " + uncachedName: true, // 5 µs above "fast", which is faster than "slow" and is no limit
		"Set, " + uncachedName:      false,
		"View from the cache":       true,  // 100 times Redis
		"Get from the cache":        false, // 5 times
		"GetFresh beside raw SQL":   true,  // 1.25
		"Set beside raw SQL":        false, // 2
		"mix":                       false, // 6 times "fast", but not faster than Redis
	}
	for _, got := range r.targets() {
		met, ok := want[got.what]
		if got.goal == "at least 5 × the fastest PostgreSQL rival" {
			met = true
		}
		if !ok || got.met != met {
			t.Errorf("%s", got)
		}
		if strings.Contains(got.String(), "missed") == got.met {
			t.Errorf("it says %q", got)
		}
	}
	if n := len(r.targets()); n != len(want)+1 {
		t.Errorf("%d targets", n)
	}
	text := r.tables()[0].markdown(false)
	for _, row := range []string{"| Redis | 100 k | 100 k ▲ |", "| fast | 50.0 k | 50.0 k ▲ |  | 11.1 k ▲ |", "| slow | 33.3 k | 33.3 k |"} {
		if !strings.Contains(text, row) {
			t.Errorf("no %s in\n%s", row, text)
		}
	}
}

func TestFlagsThatCannotBeAreNamed(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-clients 1,x":   "not a number: x",
		"-clients 0":     "at least a round, a client",
		"-keys often":    "no such distribution of keys: often",
		"-sessions 1":    "at least 100 sessions",
		"-budget 0s":     "at least a round",
		"-rounds 9 more": "not a flag: more",
	} {
		if _, err := parse("headline", strings.Fields(args)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
	opts, err := parse("headline", strings.Fields("-clients 1,8,32 -data 400,4096 -keys uniform,zipf"))
	if err != nil {
		t.Fatal(err)
	}
	if rows := opts.rows(400); len(rows) != 3*len(headlineRows)+1 || rows[len(rows)-1] != (row{name: mixing, clients: 32, keys: "zipf"}) {
		t.Errorf("%+v", rows)
	}
	if rows := opts.rows(4096); len(rows) != len(headlineRows) || rows[0].clients != 8 {
		t.Errorf("%+v", rows)
	}
}

// Where it stays at 0 the report would call every machine idle.
func TestProcessorTimeGrowsWithWork(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/stat"); err != nil {
		if busy := processorTime(); busy != 0 {
			t.Errorf("%v, from nowhere", busy)
		}
		return
	}
	before := processorTime()
	for deadline := time.Now().Add(time.Minute); processorTime() <= before; {
		if time.Now().After(deadline) {
			t.Fatalf("it is %v still", before)
		}
	}
	if !(machine{Processors: 2, Busy: 1}).busy() || (machine{Processors: 2, Busy: 0.1}).busy() {
		t.Error("who is busy?")
	}
}
