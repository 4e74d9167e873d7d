package cache_test

import (
	"flag"
	"os"
	"strconv"
	"testing"
	"time"
)

var modelSeed = flag.Uint64("model.seed", 0, "replay one history and print it")

const (
	// stepsOfHistory is how long one is: long enough for everything to happen, short enough to read.
	stepsOfHistory = 1000
	// mostHistories bounds the search for a violation where there must be one. The rarest takes about
	// a thousand.
	mostHistories = 50_000
)

// modelTime is how long to look for violations where there must be none.
func modelTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("PGSESSION_MODEL_SECONDS")
	if text == "" {
		return 2 * time.Second
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatalf("PGSESSION_MODEL_SECONDS: %v", err)
	}
	return time.Duration(seconds * float64(time.Second))
}

// history runs one history. It is the same for the same seed.
func history(seed uint64, off switches, verbose bool, makeNode func(*world, int) node) *world {
	w := newWorld(seed, off)
	w.verbose = verbose
	for i := range w.nodes {
		w.nodes[i] = makeNode(w, i)
	}
	w.run(stepsOfHistory)
	for i := range w.nodes {
		w.nodes[i].close()
	}
	return w
}

// search looks for a violation with all rules kept.
func search(t *testing.T, long time.Duration, run func(seed uint64, verbose bool) *world) {
	t.Helper()
	if *modelSeed != 0 {
		t.Logf("seed %d\n%s", *modelSeed, run(*modelSeed, true))
		return
	}
	histories, hits, reads := uint64(0), 0, 0
	// Every run looks at other histories, a failed one says at which.
	first := uint64(time.Now().UnixNano())
	for end := time.Now().Add(long); time.Now().Before(end); histories++ {
		seed := first + histories
		w := run(seed, false)
		hits += w.hits
		reads += w.reads
		if w.violation != "" {
			t.Fatalf("replay with -model.seed=%d\n%s", seed, run(seed, true))
		}
	}
	t.Logf("%d histories, %d reads, %d of them served from the cache, no violation", histories, reads, hits)
}

// needed looks for a violation with one rule off.
func needed(t *testing.T, run func(seed uint64) *world) {
	t.Helper()
	hits := 0
	for seed := uint64(1); seed < mostHistories; seed++ {
		w := run(seed)
		hits += w.hits
		if w.violation != "" {
			t.Logf("after %d histories, %d hits: %s", seed, hits, w.violation)
			return
		}
	}
	t.Errorf("no violation in %d hits", hits)
}

func TestTheProtocolAsAModel(t *testing.T) {
	t.Parallel()
	search(t, modelTime(t), func(seed uint64, verbose bool) *world { return history(seed, 0, verbose, newRules) })
}

func TestEachRuleOfTheModelIsNeeded(t *testing.T) {
	t.Parallel()
	for off, name := range switchNames {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			needed(t, func(seed uint64) *world { return history(seed, off, false, newRules) })
		})
	}
}
