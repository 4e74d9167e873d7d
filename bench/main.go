// Command bench measures the store side by side with its rivals: other stores on the same PostgreSQL
// server, a Redis beside it, and raw SQL, which is the limit.
//
//	go run . headline   all rivals: throughput, processor time and allocations of each operation
//	go run . latency    all rivals: latencies by an open loop
//	go run . hits       reads from memory: of one session and of many, by one goroutine to eight
//	go run . profile    where the time of Get, Set and Touch goes, beside raw SQL
//	go run . report     RESULTS.md and its plots, from the results of all runs
//
//	go run . touches    the HOT share of touches, with a prune running
//	go run . memory     what a cached session takes
//	go run . delay      from a change on one instance to its sight on another
//	go run . revoke     100,000 sessions of one subject ended, and the reads meanwhile
//	go run . updates    changes, by each way of notifying, where a commit takes a millisecond
//	go run . instances  what 200 instances that listen cost
//	go run . saturated  reads from the cache while slow queries hold every connection of the pool
//	go run . swallowed  reads from the cache while the network loses what the listener should hear
//	go run . growth     10 million sessions against 100 thousand: latency, size
//	go run . prune      5 million expired of 10 million, under traffic
//	go run . day        a day of traffic in minutes, beside scs and fiber: size, HOT share
//	go run . wal        what a touch and a set write to the log, by wal_compression
//
// Flags come after the name: go run . day -h lists them.
//
// It runs on a server with fsync on: of its own, where the benchmark needs settings or DATABASE_URL
// names none. What counts are the ratios within one run: each round gives each side its turn, and the
// median of the rounds' ratios is printed with the middle four fifths of them. What each run measured and
// printed, and the settings that it ran with, are in results/, one file for each.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"

	"github.com/pgsession/pgsession/internal/postgres"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// benchmark is one of those that main lists.
type benchmark struct {
	// run measures on the server at a URL. What it prints by the results, and puts there, is saved when it
	// has come to its end.
	run      func(ctx context.Context, url string, res *results, opts options) error
	settings map[string]string // of the server
}

func benchmarks(opts options) map[string]benchmark {
	return map[string]benchmark{
		"headline":  {headline, opts.rivalsServer()},
		"latency":   {latency, opts.rivalsServer()},
		"hits":      {hits, opts.rivalsServer()},
		"profile":   {profileOperations, nil},
		"updates":   {updates, slowDisk},
		"growth":    {growth, bigServer},
		"prune":     {pruning, bigServer},
		"day":       {days, opts.dayServer()},
		"wal":       {wal, nil},
		"instances": {instances, map[string]string{"max_connections": "600"}},
		"touches":   {touches, nil},
		"memory":    {memory, nil},
		"delay":     {delay, nil},
		"revoke":    {revoke, nil},
		"saturated": {saturated, nil},
		"swallowed": {swallowed, nil},
	}
}

// measure runs the benchmark and saves its results: also those that are beyond a limit, and those of a
// run in which a rival failed, but not those of one that was cut off.
func (b benchmark) measure(ctx context.Context, url string, opts options) error {
	res, err := newResults(ctx, url, opts)
	if err != nil {
		return err
	}
	fmt.Println(res.Machine.server())
	err = b.run(ctx, url, res, opts)
	if err != nil && !errors.Is(err, errBeyondLimit) && !errors.Is(err, errFailed) {
		return err
	}
	if err := res.save(opts.results); err != nil {
		return err
	}
	fmt.Println("results:", res.path(opts.results))
	return err
}

func run(ctx context.Context, args []string) (err error) {
	var name string
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	opts, err := parse(name, args)
	if err != nil {
		return err
	}
	if name == "report" {
		return report(opts)
	}
	all := benchmarks(opts)
	chosen, ok := all[name]
	if !ok {
		return fmt.Errorf("which one: report, %s", strings.Join(slices.Sorted(maps.Keys(all)), ", "))
	}
	if opts.keep {
		chosen.settings = nil // they would mean a server of its own
	}
	opts.busy = busyProcessors(ctx)
	server, err := postgres.Start(ctx, postgres.Options{Fsync: true, Settings: chosen.settings})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	fmt.Println("server:", server.Source())
	return chosen.measure(ctx, server.URL(), opts)
}
