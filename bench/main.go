// Command bench measures the store side by side with raw SQL on the same server.
//
//	go run . overhead   GetFresh and Set against a raw prepared SELECT and upsert
//	go run . touches    the HOT share of touches, with a prune running
//	go run . reads      reads from the cache, side by side with Redis and scs
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
// It runs on a server of its own with fsync on, unless DATABASE_URL names one. What counts are the
// ratios within one run: each round times both sides, one after the other, and the median of the
// rounds' ratios is printed with the middle four fifths of them.
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

func run(ctx context.Context, args []string) (err error) {
	type benchmark struct {
		run      func(context.Context, string) error
		settings map[string]string // of the server
	}
	var name string
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	opts, err := parse(name, args)
	if err != nil {
		return err
	}
	with := func(f func(context.Context, string, options) error) func(context.Context, string) error {
		return func(ctx context.Context, url string) error { return f(ctx, url, opts) }
	}
	benchmarks := map[string]benchmark{
		"overhead":  {run: overhead},
		"touches":   {run: touches},
		"reads":     {run: reads},
		"delay":     {run: delay},
		"revoke":    {run: revoke},
		"updates":   {run: updates, settings: map[string]string{"commit_delay": "1000", "commit_siblings": "0"}},
		"instances": {run: instances, settings: map[string]string{"max_connections": "600"}},
		"saturated": {run: saturated},
		"swallowed": {run: swallowed},
		"growth":    {run: with(growth), settings: bigServer},
		"prune":     {run: with(pruning), settings: bigServer},
		"day":       {run: with(days), settings: opts.dayServer()},
		"wal":       {run: with(wal)},
	}
	if benchmarks[name].run == nil {
		return fmt.Errorf("which one: %s", strings.Join(slices.Sorted(maps.Keys(benchmarks)), ", "))
	}
	chosen := benchmarks[name]
	if opts.keep {
		chosen.settings = nil // they would mean a server of its own
	}
	server, err := postgres.Start(ctx, postgres.Options{Fsync: true, Settings: chosen.settings})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	fmt.Println("server:", server.Source())
	return chosen.run(ctx, server.URL())
}
