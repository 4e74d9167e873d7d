package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"github.com/google/pprof/profile"
)

// profiled is what was measured of one operation of one side.
type profiled struct {
	outcome
	layers    map[string]float64 // microseconds of processor time an operation
	functions map[string]float64 // of ours, with what they call of the standard library
}

const profileClients = 8

// profileOperations compares ours with raw SQL, in the client's processor time, by layers. The profiles
// themselves are left beside the results.
func profileOperations(ctx context.Context, url string, res *results, opts options) error {
	m, err := newMeter(ctx, url)
	if err != nil {
		fmt.Println("the server's time is not counted:", err)
	} else {
		defer m.close()
	}
	b := &board{options: opts, results: res, meter: m, progress: newProgress(opts.cpu * 7)}
	a := arena{
		url: url, size: opts.data[0], sessions: opts.sessions, clients: profileClients,
		only: []string{uncachedName, rawName},
	}
	contenders := a.open(ctx, func(name string) { b.progress.show("sessions for " + name) })
	defer func() {
		for _, c := range contenders {
			c.end()
		}
	}()
	if err := os.MkdirAll(opts.results, 0o755); err != nil {
		return err
	}
	d := newDraws(a.sessions, a.size, false)
	for _, c := range contenders {
		if c.failed != nil {
			return fmt.Errorf("%s: %w", c.name, c.failed)
		}
		if err := c.draw(d); err != nil {
			return err
		}
	}
	for _, w := range []string{byFresh, updating, touching} {
		sides := map[string]profiled{}
		for _, c := range contenders {
			b.progress.show(w + ": " + c.name)
			l := load{workload: w, clients: profileClients, duration: opts.cpu / 5}
			if _, err := c.run(ctx, l); err != nil { // connections and plans
				return err
			}
			l.duration = opts.cpu
			side, err := b.profile(ctx, c, l)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			sides[c.name] = side
		}
		b.progress.clear()
		res.printProfile(w, sides[uncachedName], sides[rawName])
	}
	return nil
}

func (b *board) profile(ctx context.Context, c *contender, l load) (side profiled, err error) {
	var buffer bytes.Buffer
	if err := pprof.StartCPUProfile(&buffer); err != nil {
		return side, err
	}
	side.outcome, err = b.slot(ctx, c, l)
	pprof.StopCPUProfile()
	if err != nil {
		return side, err
	}
	name := fmt.Sprintf("profile-%s-%s.pprof", l.workload, strings.ReplaceAll(c.name, " ", "-"))
	if err := os.WriteFile(filepath.Join(b.options.results, name), buffer.Bytes(), 0o644); err != nil {
		return side, err
	}
	p, err := profile.Parse(&buffer)
	if err != nil {
		return side, err
	}
	side.layers, side.functions = map[string]float64{}, map[string]float64{}
	for _, s := range p.Sample {
		micros := float64(s.Value[1]) / 1e3 / float64(side.Calls)
		layer, function := attribute(s)
		side.layers[layer] += micros
		if layer == layerOurs {
			side.functions[function] += micros
		}
	}
	return side, nil
}

const (
	layerOurs      = "pgsession"
	layerHarness   = "harness"
	layerNetwork   = "network"
	layerGC        = "garbage collection"
	layerScheduler = "scheduler"
	modulePath     = "github.com/pgsession/pgsession"
)

// attribute says which layer a sample counts for: the innermost that is not the standard library, so that
// what a layer has others do for it is its own, but for system calls, the collector and the scheduler.
func attribute(s *profile.Sample) (layer, function string) {
	var names []string // the innermost first
	for _, location := range s.Location {
		for _, line := range location.Line {
			names = append(names, line.Function.Name)
		}
	}
	for _, name := range names {
		switch {
		case strings.HasPrefix(name, "runtime.gcBgMarkWorker"), strings.HasPrefix(name, "runtime.bgsweep"),
			strings.HasPrefix(name, "runtime.gcAssistAlloc"):
			return layerGC, name
		case strings.HasPrefix(name, "syscall."), strings.HasPrefix(name, "internal/runtime/syscall"),
			strings.HasPrefix(name, "internal/poll."), strings.HasPrefix(name, "net."):
			return layerNetwork, name
		case name == "main" || strings.HasPrefix(name, "main."), strings.HasPrefix(name, modulePath+"/bench"):
			return layerHarness, name
		case strings.HasPrefix(name, modulePath):
			return layerOurs, strings.TrimPrefix(name, modulePath)
		case strings.Contains(name, "pgx/v5/pgxpool"), strings.Contains(name, "jackc/puddle"):
			return "pgxpool", name
		case strings.HasPrefix(name, "github.com/jackc/pgx"):
			return "pgx", name
		}
	}
	return layerScheduler, ""
}

// printProfile prints a table, in Markdown.
func (r *results) printProfile(workload string, ours, limit profiled) {
	r.printf("")
	r.printf("**%s**, µs an operation with %d clients: %.1f for one answer after the other, raw %.1f; server %.1f, raw %.1f; "+
		"allocations %.1f, raw %.1f", workload, profileClients, ours.perCall()/1e3, limit.perCall()/1e3,
		perOperation(ours.Server, ours.Calls), perOperation(limit.Server, limit.Calls),
		float64(ours.Allocs)/float64(ours.Calls), float64(limit.Allocs)/float64(limit.Calls))
	r.printf("")
	r.printf("| client's processor time | pgsession | raw pgx | beyond |")
	r.printf("|---|---|---|---|")
	both := maps.Clone(ours.layers)
	maps.Copy(both, limit.layers)
	for _, layer := range slices.Sorted(maps.Keys(both)) {
		r.printf("| %s | %.2f | %.2f | %+.2f |", layer,
			ours.layers[layer], limit.layers[layer], ours.layers[layer]-limit.layers[layer])
	}
	r.printf("| all | %.2f | %.2f | %+.2f |", perOperation(ours.CPU, ours.Calls), perOperation(limit.CPU, limit.Calls),
		perOperation(ours.CPU, ours.Calls)-perOperation(limit.CPU, limit.Calls))
	r.printf("")
	names := slices.SortedFunc(maps.Keys(ours.functions), func(a, b string) int {
		return cmp.Compare(ours.functions[b], ours.functions[a])
	})
	for i, name := range names {
		names[i] = fmt.Sprintf("`%s` %.2f", strings.TrimPrefix(name, "."), ours.functions[name])
	}
	r.printf("Of pgsession, with what it calls of the standard library: %s.", strings.Join(names[:min(len(names), 12)], ", "))
}

func perOperation(d time.Duration, calls int64) float64 {
	return float64(d) / 1e3 / float64(max(calls, 1))
}
