package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// load is what is asked of a store: some clients call it for a while. In a closed loop, which is for
// throughput, each calls again as soon as it is answered. In an open one, which is for latency,
// requests arrive at random at a rate, whether or not those before were answered; a latency is counted
// from the arrival, so that a request which waits for a slow one before it is slow too. A closed loop
// would leave out just those that were not sent meanwhile: coordinated omission.
type load struct {
	workload string
	clients  int
	duration time.Duration
	rate     float64 // arrivals a second; 0: a closed loop
	seed     uint64
}

// outcome is what came of a load.
type outcome struct {
	Calls   int64         `json:"calls"`
	Elapsed time.Duration `json:"ns"`
	CPU     time.Duration `json:"client"` // of the process that called
	Server  time.Duration `json:"server"` // of the processes of PostgreSQL and Redis
	Allocs  int64         `json:"allocs,omitempty"`

	latencies *hdrhistogram.Histogram
}

// perCall is the time between two answers: the inverse of the throughput.
func (o outcome) perCall() float64 { return float64(o.Elapsed) / float64(o.Calls) }

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(100, int64(5*time.Minute), 3)
}

func (o *outcome) record(latencies []int64) error {
	o.latencies = newHistogram()
	var err error
	for _, l := range latencies {
		err = errors.Join(err, o.latencies.RecordValue(max(l, 0)))
	}
	return err
}

// arrivals are those of a Poisson process, in nanoseconds.
func (l load) arrivals() []int64 {
	random := rand.New(rand.NewPCG(l.seed, 0))
	var all []int64
	for at := 0.0; ; {
		at += random.ExpFloat64() / l.rate * float64(time.Second)
		if at > float64(l.duration) {
			return all
		}
		all = append(all, int64(at))
	}
}

// errExhausted ends a client without an error: there is nothing left to do.
var errExhausted = errors.New("nothing left to do")

// run calls what client returns for each client.
func (l load) run(ctx context.Context, client func(int) func(context.Context) error) (outcome, error) {
	var calls atomic.Int64
	var stopped atomic.Bool
	var failed atomic.Pointer[error]
	fail := func(err error) {
		stopped.Store(true)
		if !errors.Is(err, errExhausted) {
			failed.CompareAndSwap(nil, &err)
		}
	}
	var due []int64
	var queue chan int64
	times := make([][]int64, l.clients)
	if l.rate > 0 {
		due = l.arrivals()
		queue = make(chan int64, len(due)) // nobody waits to arrive
	}
	var group sync.WaitGroup
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu := processCPU()
	start := time.Now()
	for c := range l.clients {
		group.Go(func() {
			call := client(c)
			n := 0
			defer func() { calls.Add(int64(n)) }()
			if l.rate == 0 {
				for !stopped.Load() {
					if err := call(ctx); err != nil {
						fail(err)
						return
					}
					// The timer is late where all processors are taken by clients who never wait.
					if n++; n%64 == 0 && time.Since(start) >= l.duration {
						return
					}
				}
				return
			}
			for arrival := range queue {
				if err := call(ctx); err != nil {
					fail(err)
					return
				}
				times[c] = append(times[c], int64(time.Since(start))-arrival)
				n++
			}
		})
	}
	if l.rate == 0 {
		timer := time.AfterFunc(l.duration, func() { stopped.Store(true) })
		defer timer.Stop()
	} else {
		pace(start, due, queue)
	}
	group.Wait()
	o := outcome{Calls: calls.Load(), Elapsed: time.Since(start), CPU: processCPU() - cpu}
	runtime.ReadMemStats(&after)
	o.Allocs = int64(after.Mallocs - before.Mallocs)
	if err := failed.Load(); err != nil {
		return o, *err
	}
	if l.rate > 0 {
		return o, o.record(slices.Concat(times...))
	}
	return o, nil
}

// operation is called by several goroutines; n counts the calls of all.
type operation func(ctx context.Context, n int) error

// sample is what measure has measured.
type sample struct {
	perCall time.Duration // wall time of a call in one goroutine
	allocs  float64
}

// measure calls op from a number of goroutines for a while.
func measure(ctx context.Context, goroutines int, d time.Duration, op operation) (sample, error) {
	l := load{clients: goroutines, duration: d}
	o, err := l.run(ctx, func(client int) func(context.Context) error {
		n := client - goroutines
		return func(ctx context.Context) error {
			n += goroutines
			return op(ctx, n)
		}
	})
	if err != nil {
		return sample{}, err
	}
	return sample{
		perCall: o.Elapsed * time.Duration(goroutines) / time.Duration(o.Calls),
		allocs:  float64(o.Allocs) / float64(o.Calls),
	}, nil
}

func median(values []float64) float64 {
	values = slices.Clone(values)
	slices.Sort(values)
	return values[len(values)/2]
}

// spread is the median of values, and the middle four fifths of them.
type spread struct{ low, median, high float64 }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	values = slices.Clone(values)
	slices.Sort(values)
	n := len(values)
	return spread{values[n/10], values[n/2], values[n-1-n/10]}
}

// errBeyondLimit is a result that is not as good as the project promises.
var errBeyondLimit = errors.New("beyond the limit")

// The workloads. Those of one name in workloadsOf are measured in turns, with all rivals.
const (
	byView    = "view"  // read from the cache, without a copy
	byGet     = "get"   // read from the cache
	byFresh   = "fresh" // read from the database; the only read of rivals
	creating  = "create"
	updating  = "update"
	touching  = "touch"
	ending    = "destroy"
	mixing    = "mix"
	mixLength = 50
)

// mixPattern is the order of a mix's operations: 90 % read, 8 % touch, 2 % update.
func mixPattern() []string {
	pattern := make([]string, mixLength)
	for i := range pattern {
		pattern[i] = "read"
	}
	for i := 3; i < mixLength; i += 12 { // 4 of 50
		pattern[i] = touching
	}
	pattern[mixLength/2] = updating
	return pattern
}

// draws are the keys that clients call with, in the order of a distribution, and what they write.
type draws struct {
	keys     []string
	template []byte
}

// zipfExponent is near that of web traffic; the generator takes more than 1.
const zipfExponent = 1.01

func newDraws(sessions, size int, zipf bool) *draws {
	random := rand.New(rand.NewPCG(1, uint64(sessions)))
	draw := func() int { return random.IntN(sessions) }
	if zipf {
		z := rand.NewZipf(random, zipfExponent, 1, uint64(sessions-1))
		draw = func() int { return int(z.Uint64()) }
	}
	// Enough that a big table is asked for pages all over it, and few enough to load into a cache first.
	d := &draws{keys: make([]string, min(max(1<<16, sessions), 1<<17)), template: sized(1<<40, size)}
	for i := range d.keys {
		d.keys[i] = key(draw())
	}
	return d
}

// key is that of session n of those there from the start.
func key(n int) string { return sessionID(token(n)) }

const revisionAt = len(`{"revision":"`)

// sized is JSON of that many bytes, of which half is random digits; another one for each n.
func sized(n, size int) []byte {
	random := rand.New(rand.NewPCG(uint64(n), uint64(size)))
	b := fmt.Appendf(make([]byte, 0, size), `{"revision":"%016x","name":"user-%d","data":"`, n, n)
	const digits, words = "0123456789abcdef", "the quick brown fox jumps over the lazy dog "
	for i := 0; len(b) < size-2; i++ {
		if i/64%2 == 0 {
			b = append(b, digits[random.IntN(16)])
		} else {
			b = append(b, words[i%len(words)])
		}
	}
	return append(b, '"', '}')
}

var revisions atomic.Uint64

// next is data that no write before has written.
func (d *draws) next() []byte {
	b := slices.Clone(d.template)
	n := revisions.Add(1)
	for i := range 16 {
		b[revisionAt+i] = "0123456789abcdef"[n>>(60-4*i)&15]
	}
	return b
}

// generator calls a store in Go.
type generator struct {
	stores []sessionStore // its instances, of which each client uses one
	*draws

	mu      sync.Mutex
	created []string
}

func (g *generator) run(ctx context.Context, l load) (outcome, error) {
	return l.run(ctx, func(client int) func(context.Context) error { return g.client(l.workload, client) })
}

// client is what one client calls again and again.
func (g *generator) client(workload string, client int) func(context.Context) error {
	store := g.stores[client%len(g.stores)]
	n := len(g.keys) / 64 * client
	next := func() string {
		n++
		return g.keys[n%len(g.keys)]
	}
	read := func(ctx context.Context) error {
		_, err := store.read(ctx, next())
		return err
	}
	cached, isCached := store.(ours)
	get := read
	if isCached {
		get = func(ctx context.Context) error {
			_, err := cached.get(ctx, next())
			return err
		}
	}
	touch := func(ctx context.Context) error { return store.touch(ctx, next(), g.template) }
	update := func(ctx context.Context) error { return store.write(ctx, next(), g.next()) }
	switch workload {
	case byView:
		return func(ctx context.Context) error { return cached.view(ctx, next()) }
	case byGet:
		return get
	case byFresh:
		return read
	case updating:
		return update
	case touching:
		return touch
	case creating:
		return func(ctx context.Context) error {
			key, err := store.create(ctx, g.next())
			g.mu.Lock()
			defer g.mu.Unlock()
			g.created = append(g.created, key)
			return err
		}
	case ending:
		return func(ctx context.Context) error {
			g.mu.Lock()
			if len(g.created) == 0 {
				g.mu.Unlock()
				return errExhausted
			}
			key := g.created[len(g.created)-1]
			g.created = g.created[:len(g.created)-1]
			g.mu.Unlock()
			return store.destroy(ctx, key)
		}
	default:
		pattern := mixPattern()
		deeds := map[string]func(context.Context) error{"read": get, touching: touch, updating: update}
		order := make([]func(context.Context) error, len(pattern))
		for i, deed := range pattern {
			order[i] = deeds[deed]
		}
		return func(ctx context.Context) error { return order[n%len(order)](ctx) }
	}
}
