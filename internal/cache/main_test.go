package cache_test

import (
	"context"
	"crypto/sha256"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pgsession/pgsession/internal/cache"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	maxAge   = time.Minute
	liveness = 3 * time.Second
	server   = "the server"
)

// handClock is moved by hand.
type handClock struct{ mono, wall atomic.Int64 }

func newHandClock() *handClock {
	c := new(handClock)
	c.wall.Store(1_700_000_000e9)
	return c
}

func (c *handClock) Now() cache.Instant {
	return cache.Instant{Mono: c.mono.Load(), Wall: c.wall.Load()}
}

func (c *handClock) advance(d time.Duration) {
	c.mono.Add(int64(d))
	c.wall.Add(int64(d))
}

func (c *handClock) Mono() int64 { return c.mono.Load() }

// sleep is the machine's: the monotonic clock stands still, but for the while that a cache may take
// to look at the wall clock.
func (c *handClock) sleep(d time.Duration) {
	c.wall.Add(int64(d))
	c.advance(cache.LookEvery)
}

// rig is a cache of strings with one listener.
type rig struct {
	*cache.Cache[string]
	t        *testing.T
	clock    *handClock
	listener *cache.Listener[string]
}

// newRig makes a live cache.
func newRig(t *testing.T, change ...func(*cache.Config)) *rig {
	t.Helper()
	r := &rig{t: t, clock: newHandClock()}
	cfg := cache.Config{
		Capacity: 64 << 20, MaxAge: maxAge, Liveness: liveness, MaxLoads: 16, LoadTimeout: time.Minute,
		Clock: r.clock,
	}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	if r.Cache, err = cache.New[string](cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	r.listener = r.NewListener()
	r.listener.Listening(server)
	r.beat()
	return r
}

// beat sends a beat, has it answered and hears it.
func (r *rig) beat() {
	b := r.listener.Beat()
	b.Answered("beat")
	r.listener.HeardBeat("beat")
}

func key(name string) cache.Key { return sha256.Sum256([]byte(name)) }

// reply is one that may be kept.
func reply(value string, version int64) cache.Reply[string] {
	return cache.Reply[string]{
		Alive: true, Cacheable: true, Server: server, Version: version, Remaining: time.Hour,
		Value: value, Size: len(value),
	}
}

// fill reads a session past the cache.
func (r *rig) fill(name string, answer cache.Reply[string]) {
	op := r.Begin(key(name))
	defer op.End()
	op.Read(answer)
}

func (r *rig) wantHit(name, value string) {
	r.t.Helper()
	if v, ok := r.Get(key(name)); !ok || *v != value {
		r.t.Fatalf("%s is not served as %q: %v %v", name, value, v, ok)
	}
}

func (r *rig) wantMiss(name string) {
	r.t.Helper()
	if v, ok := r.Get(key(name)); ok {
		r.t.Fatalf("%s is served: %q", name, *v)
	}
}

// answering is a load that answers at once.
func answering(answer cache.Reply[string]) func(context.Context) (cache.Reply[string], error) {
	return func(context.Context) (cache.Reply[string], error) { return answer, nil }
}
