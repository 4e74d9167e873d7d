package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// results are what one run has measured, raw: the report is made of them alone.
type results struct {
	Name    string      `json:"name"`
	Machine machine     `json:"machine"`
	Rivals  []rivalInfo `json:"rivals,omitempty"`
	Cells   []*cell     `json:"cells,omitempty"`
	Curves  []curve     `json:"curves,omitempty"`
	Lines   []string    `json:"lines,omitempty"` // what else was printed
}

// machine is what the numbers depend on.
type machine struct {
	Date       time.Time         `json:"date"`
	CPU        string            `json:"cpu"`
	Processors int               `json:"processors"`
	Memory     string            `json:"memory"`
	Kernel     string            `json:"kernel"`
	Busy       float64           `json:"busy"` // how many processors were, in the second before
	Go         string            `json:"go"`
	PostgreSQL string            `json:"postgresql"`
	Settings   map[string]string `json:"settings"`
	Redis      string            `json:"redis,omitempty"`
	Node       string            `json:"node,omitempty"`
}

// server is what the numbers depend on of PostgreSQL.
func (m machine) server() string {
	var settings []string
	for _, name := range slices.Sorted(maps.Keys(m.Settings)) {
		settings = append(settings, fmt.Sprintf("`%s` %s", name, m.Settings[name]))
	}
	return fmt.Sprintf("PostgreSQL %s: %s.", m.PostgreSQL, strings.Join(settings, ", "))
}

// busy says whether so much else ran that the numbers are worth little.
func (m machine) busy() bool { return m.Busy > float64(m.Processors)/4 }

type rivalInfo struct {
	Name     string   `json:"name"`
	What     string   `json:"what"`
	Versions []string `json:"versions"`
	Kind     kind     `json:"kind"`
	Failed   string   `json:"failed,omitempty"`
}

// cell is one rival's one workload, in all rounds.
type cell struct {
	Rival    string    `json:"rival"`
	Kind     kind      `json:"kind"`
	Workload string    `json:"workload"`
	Data     int       `json:"data"`
	Clients  int       `json:"clients"`
	Sessions int       `json:"sessions"`
	Keys     string    `json:"keys"`
	Rate     float64   `json:"rate,omitempty"` // of an open loop
	Rounds   []outcome `json:"rounds,omitempty"`
	Failed   string    `json:"failed,omitempty"`

	// Of an open loop: latencies at quantiles, of all rounds together and of each, in nanoseconds.
	Quantiles      []int64   `json:"quantiles,omitempty"`
	RoundQuantiles [][]int64 `json:"round_quantiles,omitempty"`
}

// quantiles are those whose latencies are kept, in percent.
var quantiles = []float64{25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.99, 100}

func quantile(values []int64, percent float64) int64 {
	if len(values) != len(quantiles) {
		return 0
	}
	return values[slices.Index(quantiles, percent)]
}

// curve is what a plot shows of one side.
type curve struct {
	Plot string    `json:"plot"`
	Name string    `json:"name"`
	X    []float64 `json:"x"`
	Y    []float64 `json:"y"`
	Low  []float64 `json:"low,omitempty"` // the middle four fifths, or from another quantile
	High []float64 `json:"high,omitempty"`
}

// printf prints a line, which the report shows too.
func (r *results) printf(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	fmt.Println(line)
	r.Lines = append(r.Lines, line)
}

func (r *results) find(rival, workload string, data, clients int, keys string) *cell {
	for _, c := range r.Cells {
		if c.Rival == rival && c.Workload == workload && c.Data == data && c.Clients == clients && c.Keys == keys {
			return c
		}
	}
	return nil
}

func (r *results) path(directory string) string { return filepath.Join(directory, r.Name+".json") }

// save writes the results, one cell a line, all at once or not at all.
func (r *results) save(directory string) error {
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	if err := encoder.Encode(r); err != nil {
		return err
	}
	text := b.String()
	for _, start := range []string{`{"rival":`, `"cells":`, `"curves":`, `{"plot":`, `"rivals":`, `{"name":`, `"lines":`} {
		text = strings.ReplaceAll(text, start, "\n"+start)
	}
	return writeFile(r.path(directory), []byte(strings.TrimLeft(text, "\n")))
}

// writeFile replaces a file.
func writeFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// loadResults reads results; nil where there are none.
func loadResults(directory, name string) (*results, error) {
	content, err := os.ReadFile(filepath.Join(directory, name+".json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := &results{}
	if err := json.Unmarshal(content, r); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

// processorTime is what all processes have taken since the machine started; 0 where it is unknown. The load
// average would still tell of the benchmark before this one.
func processorTime() (sum time.Duration) {
	content, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(content), "\n")
	for i, field := range strings.Fields(line) {
		const idle, waiting, guest = 4, 5, 9 // guests' time is in that of users too
		if ticks, err := strconv.ParseInt(field, 10, 64); err == nil && i != idle && i != waiting && i < guest {
			sum += time.Duration(ticks) * (time.Second / 100)
		}
	}
	return sum
}

// busyProcessors is how many processors are busy, from a look of a second.
func busyProcessors(ctx context.Context) float64 {
	before, start := processorTime(), time.Now()
	select {
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
	return (processorTime() - before).Seconds() / time.Since(start).Seconds()
}

// newResults begins a run on a server.
func newResults(ctx context.Context, url string, opts options) (*results, error) {
	m := machine{
		Date: time.Now().UTC().Truncate(time.Second), Processors: runtime.NumCPU(), Go: runtime.Version(),
		CPU:      field("/proc/cpuinfo", "model name"),
		Memory:   field("/proc/meminfo", "MemTotal"),
		Kernel:   output("uname", "-sr"),
		Settings: map[string]string{}, Busy: opts.busy,
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing was written
	rows, err := conn.Query(ctx, `
select name, current_setting(name) from pg_settings
 where name = any($1) or source in ('command line', 'configuration file') and name = any($2)`,
		[]string{
			"fsync", "synchronous_commit", "shared_buffers", "max_wal_size", "full_page_writes", "commit_delay",
			"wal_compression",
		},
		[]string{"checkpoint_timeout", "max_connections", "autovacuum_naptime", "commit_siblings"})
	if err != nil {
		return nil, err
	}
	var setting, value string
	_, err = pgx.ForEachRow(rows, []any{&setting, &value}, func() error {
		m.Settings[setting] = value
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = conn.QueryRow(ctx, "select current_setting('server_version')").Scan(&m.PostgreSQL)
	return &results{Name: opts.name, Machine: m}, err
}

// field is the value of a line such as "model name : value" of a file of /proc.
func field(path, name string) string {
	content, _ := os.ReadFile(path)
	for line := range strings.Lines(string(content)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	return "unknown"
}

func output(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// moduleVersions are those of the modules that this program was built with.
func moduleVersions(paths []string) (versions []string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	for _, path := range paths {
		for _, m := range info.Deps {
			if m.Path == path {
				versions = append(versions, path+" "+m.Version)
			}
		}
	}
	return versions
}

// describe says who takes part, and by which versions.
func (r *results) describe(contenders []*contender) {
	for _, c := range contenders {
		info := rivalInfo{Name: c.name, What: c.what, Versions: moduleVersions(c.modules), Kind: c.kind}
		if c.failed != nil {
			info.Failed = c.failed.Error()
		} else if node, ok := c.stores[0].(*nodeStore); ok {
			if versions, err := node.versions(); err == nil {
				r.Machine.Node = versions["node"]
				info.Versions = []string{c.name + " " + versions[c.name], "pg " + versions["pg"]}
			}
		}
		r.Rivals = append(r.Rivals, info)
	}
}
