package main

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/pgsession/pgsession"
)

// testArena is all rivals on a database of its own.
func testArena(t *testing.T, size int, only ...string) arena {
	t.Helper()
	server, err := startRedis(t.Context(), t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.stop)
	return arena{
		url: databaseURL(t), redis: redisRivals(server.address, false), sessions: 120, size: size, clients: 2, only: only,
	}
}

func openAll(t *testing.T, a arena) []*contender {
	t.Helper()
	contenders := a.open(t.Context(), func(string) {})
	t.Cleanup(func() {
		for _, c := range contenders {
			c.end()
		}
	})
	for _, c := range contenders {
		if c.failed != nil {
			t.Fatalf("%s: %v", c.name, c.failed)
		}
	}
	return contenders
}

// deadline reads when a session ends, past the store.
func deadline(t *testing.T, c *contender, key string) time.Time {
	t.Helper()
	if c.kind != redisRival {
		var at time.Time
		if err := c.at.pool.QueryRow(t.Context(), c.deadline, pgx.QueryExecModeSimpleProtocol, key).Scan(&at); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		return at
	}
	client, key := redisBehind(c, key)
	left, err := client.PTTL(t.Context(), key).Result()
	if err != nil {
		t.Fatal(err)
	}
	return time.Now().Add(left)
}

func redisBehind(c *contender, key string) (*redis.Client, string) {
	if s, ok := c.stores[0].(goRedis); ok {
		return s.client, key
	}
	return redis.NewClient(&redis.Options{Addr: c.address}), "scs:session:" + key
}

func TestRedisIsNotAnotherOnThePort(t *testing.T) {
	t.Parallel()
	other, err := startRedis(t.Context(), t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer other.stop()
	_, port, err := net.SplitHostPort(other.address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := startRedisAt(t.Context(), n, t.TempDir(), false); !errors.Is(err, errPortTaken) {
		t.Errorf("a second server on the port of the first: %v", err)
	}
}

func TestEachRivalDoesWhatItIsMeasuredDoing(t *testing.T) {
	t.Parallel()
	for _, size := range []int{400, 65536} {
		a := testArena(t, size)
		for _, c := range openAll(t, a) {
			t.Run(c.name, func(t *testing.T) {
				ctx := t.Context()
				for _, s := range c.stores {
					if err := check(ctx, s, size); err != nil {
						t.Error(err)
					}
				}
				// What was filled is there, for each instance, and a touch moves its deadline.
				const n = 7
				for _, s := range c.stores {
					got, err := s.read(ctx, key(n))
					if err != nil || !sameJSON(got, sized(n, size)) {
						t.Errorf("it was filled with %.60q and reads %.60q: %v", sized(n, size), got, err)
					}
				}
				if c.kind == redisRival {
					client, key := redisBehind(c, key(n))
					if err := client.PExpire(ctx, key, filledFor).Err(); err != nil {
						t.Fatal(err)
					}
				}
				if left := time.Until(deadline(t, c, key(n))); left < filledFor-time.Minute || left > filledFor+time.Minute {
					t.Errorf("it ends in %v before the touch", left)
				}
				if err := c.stores[0].touch(ctx, key(n), sized(n, size)); err != nil {
					t.Error(err)
				}
				if left := time.Until(deadline(t, c, key(n))); left < idleTimeout-time.Minute || left > idleTimeout+time.Minute {
					t.Errorf("it ends in %v after the touch", left)
				}
				// And what is not there is not found.
				if _, err := c.stores[0].read(ctx, newKey()); !errors.Is(err, pgsession.ErrNotFound) {
					t.Errorf("a session that never was: %v", err)
				}
			})
		}
	}
}

func TestAnUpdateOnOneInstanceIsReadByTheOther(t *testing.T) {
	t.Parallel()
	c := openAll(t, testArena(t, 400, oursName))[0]
	if len(c.stores) != 2 || !c.isCached() {
		t.Fatalf("%s has %d instances", c.name, len(c.stores))
	}
	ctx, one, other := t.Context(), c.stores[0].(ours), c.stores[1].(ours)
	if err := c.warm(ctx, newDraws(120, 400, false)); err != nil {
		t.Fatal(err)
	}
	if err := one.write(ctx, key(3), sized(1000, 400)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		got, err := other.get(ctx, key(3))
		if err != nil {
			t.Fatal(err)
		}
		if sameJSON(got, sized(1000, 400)) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it is not")
		}
	}
	if hits := other.store.Stats().Cache.Hits; hits == 0 {
		t.Error("nothing was read from the cache")
	}
}

func TestEachWorkloadRunsWithEachRival(t *testing.T) {
	t.Parallel()
	a := testArena(t, 400)
	m, err := newMeter(t.Context(), a.url)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	b := &board{results: &results{}, meter: m}
	for _, c := range openAll(t, a) {
		for _, zipf := range []bool{false, true} {
			if err := c.draw(newDraws(a.sessions, a.size, zipf)); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		for _, name := range headlineRows {
			for _, w := range workloadsOf(name, c) {
				o, err := b.slot(t.Context(), c, load{workload: w, clients: 2, duration: 40 * time.Millisecond})
				if err != nil || o.Calls == 0 || o.Elapsed <= 0 || o.CPU < 0 || o.Server < 0 {
					t.Errorf("%s, %s: %v, %+v", c.name, w, err, o)
				}
			}
		}
		l := load{workload: mixing, clients: 2, duration: 100 * time.Millisecond, rate: 300, seed: 1}
		o, err := c.run(t.Context(), l)
		if err != nil || o.Calls != int64(len(l.arrivals())) || o.latencies.TotalCount() != o.Calls || o.latencies.Min() <= 0 {
			t.Errorf("%s, open loop: %v, %+v", c.name, err, o)
		}
	}
}

// Nothing of what the harness does itself may take long beside a read from the cache.
func TestTheKeysAreDrawnAsTheDistributionSays(t *testing.T) {
	t.Parallel()
	share := func(zipf bool) float64 {
		d := newDraws(1000, 400, zipf)
		counts := map[string]int{}
		for _, k := range d.keys {
			counts[k]++
		}
		most := 0
		for _, n := range counts {
			most = max(most, n)
		}
		return float64(most) / float64(len(d.keys))
	}
	if uniform := share(false); uniform > 0.003 {
		t.Errorf("uniform: %.3f for one of 1,000", uniform)
	}
	if zipf := share(true); zipf < 0.08 || zipf > 0.2 {
		t.Errorf("zipf: %.3f for the first of 1,000", zipf)
	}
	counts := map[string]int{}
	for _, deed := range mixPattern() {
		counts[deed]++
	}
	if counts["read"] != 45 || counts[touching] != 4 || counts[updating] != 1 {
		t.Errorf("the mix is %v", counts)
	}
}

func TestEachWriteWritesSomethingElseOfTheSameSize(t *testing.T) {
	t.Parallel()
	d := newDraws(10, 400, false)
	a, b := d.next(), d.next()
	if len(a) != 400 || len(b) != 400 || slices.Equal(a, b) || sameJSON(a, b) || slices.Equal(a, d.template) {
		t.Errorf("%.60q and %.60q", a, b)
	}
}

// One call stalls. In a closed loop that is one slow call; here those that arrive meanwhile are slow too.
func TestTheOpenLoopCountsWhatWaits(t *testing.T) {
	t.Parallel()
	const stall = 300 * time.Millisecond
	l := load{clients: 1, duration: 600 * time.Millisecond, rate: 200, seed: 1}
	first := true
	o, err := l.run(t.Context(), func(int) func(context.Context) error {
		return func(context.Context) error {
			if first {
				first = false
				time.Sleep(stall)
			}
			return nil
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if o.Calls != int64(len(l.arrivals())) {
		t.Errorf("%d of %d were answered", o.Calls, len(l.arrivals()))
	}
	if p75 := time.Duration(o.latencies.ValueAtPercentile(75)); p75 < stall/10 {
		t.Errorf("the 75th percentile is %v", p75)
	}
}

func TestWhoFailsIsNamedAndTheOthersGoOn(t *testing.T) {
	t.Parallel()
	fine := func(context.Context, load) (outcome, error) {
		return outcome{Calls: 10, Elapsed: time.Millisecond}, nil
	}
	calls := 0
	contenders := []*contender{
		{rival: rival{name: "good"}, load: fine, draw: func(*draws) error { return nil }},
		{rival: rival{name: "bad"}, draw: func(*draws) error { return nil }, load: func(context.Context, load) (outcome, error) {
			if calls++; calls == 3 {
				panic("oh")
			}
			return fine(t.Context(), load{})
		}},
	}
	b := &board{options: options{rounds: 5}, results: &results{Rivals: []rivalInfo{{Name: "good"}, {Name: "bad"}}}, progress: &progress{}}
	r := row{name: updating, clients: 1, keys: "uniform", duration: time.Millisecond}
	for range 2 {
		if err := b.row(t.Context(), arena{sessions: 10, size: 400}, contenders, r, time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	good, bad := b.find("good", updating, 400, 1, "uniform"), b.find("bad", updating, 400, 1, "uniform")
	if len(good.Rounds) != 5 || good.Failed != "" || !strings.Contains(bad.Failed, "oh") || calls != 3 {
		t.Errorf("%+v, %+v, %d calls", good, bad, calls)
	}
	if !errors.Is(b.failed, errFailed) || !strings.Contains(b.failed.Error(), "bad") || !strings.Contains(b.Rivals[1].Failed, "oh") {
		t.Errorf("%v, %+v", b.failed, b.Rivals)
	}
	if text := b.tables()[0].markdown(false); !strings.Contains(text, "| bad |  |  |  | failed |") {
		t.Error(text)
	}
}
