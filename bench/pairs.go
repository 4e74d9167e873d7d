package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// operation is one side of a comparison. It is called by several goroutines; n counts the calls.
type operation func(ctx context.Context, n int) error

// sample is what a round measured of one side.
type sample struct {
	perCall time.Duration // wall time of a call in one goroutine
	allocs  float64
}

const rounds = 61

// pair runs both sides in interleaved rounds and prints the medians and the median ratio of a round.
func pair(ctx context.Context, name string, goroutines int, limit float64, ours, raw operation) error {
	const warmUp, measured = 300 * time.Millisecond, 150 * time.Millisecond
	for _, op := range []operation{ours, raw} {
		if _, err := measure(ctx, goroutines, warmUp, op); err != nil {
			return err
		}
	}
	var ratios, oursNS, rawNS, oursAllocs, rawAllocs []float64
	for round := range rounds {
		var a, b sample
		var err error
		// Who goes first alternates, so that neither has the warmer cache always.
		if round%2 == 0 {
			if a, err = measure(ctx, goroutines, measured, ours); err == nil {
				b, err = measure(ctx, goroutines, measured, raw)
			}
		} else {
			if b, err = measure(ctx, goroutines, measured, raw); err == nil {
				a, err = measure(ctx, goroutines, measured, ours)
			}
		}
		if err != nil {
			return err
		}
		ratios = append(ratios, float64(a.perCall)/float64(b.perCall))
		oursNS, rawNS = append(oursNS, float64(a.perCall)), append(rawNS, float64(b.perCall))
		oursAllocs, rawAllocs = append(oursAllocs, a.allocs), append(rawAllocs, b.allocs)
	}
	slices.Sort(ratios)
	fmt.Printf("%-10s %2d goroutines  ours %8.1f µs  raw %8.1f µs  ratio %.3f (%.3f to %.3f), at most %.2f  allocs %+.1f\n",
		name, goroutines, median(oursNS)/1e3, median(rawNS)/1e3,
		median(ratios), ratios[rounds/10], ratios[rounds-1-rounds/10], limit,
		median(oursAllocs)-median(rawAllocs))
	if ratio, more := median(ratios), median(oursAllocs)-median(rawAllocs); ratio > limit || more > maxMoreAllocs {
		return fmt.Errorf("%w: %s", errBeyondLimit, name)
	}
	return nil
}

// errBeyondLimit is a result that is not as good as the project promises.
var errBeyondLimit = errors.New("beyond the limit")

// maxMoreAllocs is how many allocations a call may need beyond the raw one's.
const maxMoreAllocs = 6

// measure calls op from a number of goroutines for a while.
func measure(ctx context.Context, goroutines int, d time.Duration, op operation) (sample, error) {
	var calls atomic.Int64
	var failed atomic.Pointer[error]
	var group sync.WaitGroup
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	for range goroutines {
		group.Go(func() {
			for time.Since(start) < d && failed.Load() == nil {
				if err := op(ctx, int(calls.Add(1))); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	group.Wait()
	elapsed := time.Since(start)
	runtime.ReadMemStats(&after)
	if err := failed.Load(); err != nil {
		return sample{}, *err
	}
	n := calls.Load()
	return sample{
		perCall: elapsed * time.Duration(goroutines) / time.Duration(n),
		allocs:  float64(after.Mallocs-before.Mallocs) / float64(n),
	}, nil
}

func median(values []float64) float64 {
	values = slices.Clone(values)
	slices.Sort(values)
	return values[len(values)/2]
}
