// Command bench measures the store side by side with raw SQL on the same server.
//
//	go run . overhead   GetFresh and Set against a raw prepared SELECT and upsert
//	go run . touches    the HOT share of touches, with a prune running
//
// It runs on a server of its own with fsync on, unless DATABASE_URL names one. What counts are the
// ratios within one run: each round times both sides, one after the other, and the median of the
// rounds' ratios is printed with the middle four fifths of them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

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
	benchmarks := map[string]func(context.Context, string) error{"overhead": overhead, "touches": touches}
	if len(args) != 1 || benchmarks[args[0]] == nil {
		return errors.New("which one: overhead, or touches")
	}
	server, err := postgres.Start(ctx, postgres.Options{Fsync: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	fmt.Println("server:", server.Source())
	return benchmarks[args[0]](ctx, server.URL())
}
