package pgsession_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/postgres"
)

var historySeed = flag.Uint64("history.seed", 0, "what the choices of the history under faults are drawn from; 0: the time")

// historyTime is how long the instances work under faults: PGSESSION_HISTORY_SECONDS for more than a
// look.
func historyTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("PGSESSION_HISTORY_SECONDS")
	if text == "" {
		return 5 * time.Second
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatalf("PGSESSION_HISTORY_SECONDS: %v", err)
	}
	return time.Duration(seconds * float64(time.Second))
}

// fault is something that goes wrong for a while.
type fault struct {
	name       string
	begin, end func()
}

// faults are all that can go wrong, each as often as is likely to matter.
func (f *fleet) faults(t *testing.T, random *rand.Rand) (list []fault) {
	nothing := func() {}
	for _, m := range f.members {
		for i, proxy := range []*postgres.Proxy{m.queries, m.hears} {
			name := fmt.Sprintf("network of instance %d's %s", m.number, []string{"statements", "listener"}[i])
			// A listener that is delayed by more hears no beat in time, and one by less is not late.
			delay := time.Duration(220+random.IntN(60)) * time.Millisecond
			list = append(list,
				fault{name + " swallowed", proxy.Swallow, proxy.Forward},
				fault{name + " reset", proxy.Reset, proxy.Forward},
				fault{name + " delayed", func() { proxy.Delay(delay) }, proxy.Forward},
			)
		}
	}
	terminated := fault{"backends terminated", func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, _ = f.admin.Exec(ctx, `
			select pg_terminate_backend(a.pid) from pg_stat_activity as a
			 where a.datname = current_database() and a.pid <> pg_backend_pid()
			 order by random() limit 5`) // the server may be down
	}, nothing}
	list = append(list, terminated, terminated, terminated, terminated)
	server := func(name string, control func() error) func() {
		return func() {
			if err := control(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	ctx := context.Background()
	return append(list,
		fault{"server paused", server("pause", f.server.Pause), server("resume", f.server.Resume)},
		fault{"server restarted", server("restart", func() error { return f.server.Restart(ctx) }), nothing},
		fault{
			"server killed", server("kill", func() error { return f.server.Kill(ctx) }),
			server("restart", func() error { return f.server.Restart(ctx) }),
		})
}

// goWrong has one fault after the other happen, of those that are dealt to it.
func (f *fleet) goWrong(deck []fault, random *rand.Rand, until time.Time) (happened []string) {
	for i := 0; time.Now().Before(until); i = (i + 1) % len(deck) {
		deck[i].begin()
		time.Sleep(time.Duration(20+random.IntN(500)) * time.Millisecond)
		deck[i].end()
		happened = append(happened, deck[i].name)
		time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
	}
	return happened
}

func TestTheGuaranteeHoldsForFourInstancesUnderFaults(t *testing.T) {
	t.Parallel()
	seed := *historySeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-history.seed=%d", seed)
	f := newFleet(t)
	for _, m := range f.members {
		awaitLive(t, m.Store)
	}
	until := time.Now().Add(historyTime(t))
	var group sync.WaitGroup
	for i, m := range f.members {
		for j := range 3 {
			c := f.caller(m, seed, uint64(3*i+j))
			group.Go(func() { c.work(until) })
		}
	}
	random := rand.New(rand.NewPCG(seed, 1<<32))
	deck := f.faults(t, random)
	random.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
	var happened [2][]string
	// What is done to the server is done by one, since it can be in one state at a time.
	var ofServer, ofRest []fault
	for i, one := range deck {
		if strings.HasPrefix(one.name, "server") || i%2 == 0 {
			ofServer = append(ofServer, one)
		} else {
			ofRest = append(ofRest, one)
		}
	}
	for i, hand := range [][]fault{ofServer, ofRest} {
		random := rand.New(rand.NewPCG(seed, 1<<33+uint64(i)))
		group.Go(func() { happened[i] = f.goWrong(hand, random, until) })
	}
	group.Wait()
	t.Logf("faults: %q", happened)

	f.settle(t)
	history := f.history()
	counts, hits := map[string]int{}, int64(0)
	for _, d := range history {
		counts[fmt.Sprint(d.action, " ", d.outcome)]++
	}
	for _, m := range f.members {
		stats := m.Stats()
		hits += stats.Cache.Hits
		t.Logf("instance %d: %+v %+v", m.number, stats.Cache, stats.Notify)
	}
	t.Logf("%d sessions, %d deeds, by action and outcome %v", len(f.known), len(history), counts)
	if hits < 50 { // else it has checked next to nothing; how many there are is a matter of the machine
		t.Errorf("only %d reads were served from memory", hits)
	}
	if violations := f.check(history); len(violations) > 0 {
		t.Errorf("%d violations; the first:\n%s", len(violations), violations[0])
	}
}

// settle waits until all instances say the same as the database.
func (f *fleet) settle(t *testing.T) {
	t.Helper()
	for _, m := range f.members {
		awaitLive(t, m.Store)
	}
	f.admin.Reset() // of what a fault has left of its connections
	truth := setUp(t, f.admin.Query, pgsession.Config{})
	for _, k := range f.known {
		want, wantErr := truth.Get(t.Context(), k.token)
		if wantErr != nil {
			wantError(t, "get", wantErr, pgsession.ErrNotFound)
		}
		for _, m := range f.members {
			c := f.caller(m, 0, 0)
			eventually(t, fmt.Sprintf("instance %d has session %d at version %d", m.number, k.number, want.Version), func() bool {
				c.read(k)
				last := c.deeds[len(c.deeds)-1]
				return last.version == want.Version && (last.outcome == missing) == (wantErr != nil) && last.outcome != failed
			})
			f.deeds = append(f.deeds, c.deeds...)
		}
	}
}
