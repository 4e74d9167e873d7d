package cache

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// ErrClosed is what [Cache.Load] returns after [Cache.Close].
var ErrClosed = errors.New("the cache is closed")

// WhenNotLive is what becomes of reads while notifications may not reach this process.
type WhenNotLive int

const (
	// Bypass sends every read to the database, one load per session at a time.
	Bypass WhenNotLive = iota
	// ServeUntilMaxAge goes on serving what is cached until it is MaxAge old.
	ServeUntilMaxAge
)

// Config is what a cache needs to know. Every field but Clock must be set.
type Config struct {
	// Capacity is how many bytes all entries may take together.
	Capacity int64
	// MaxAge is how old an entry may become, whatever happens.
	MaxAge time.Duration
	// Liveness is how long after the sending of the last beat that was heard reads are served.
	Liveness time.Duration
	// WhenNotLive is what becomes of reads after that. Bypass is zero.
	WhenNotLive WhenNotLive
	// MaxLoads is how many loads may run at once.
	MaxLoads int
	// LoadTimeout ends a load: its context is not the request's.
	LoadTimeout time.Duration
	// Clock: nil is the system's.
	Clock Clock
}

func (cfg *Config) validate() error {
	switch {
	case cfg.Capacity < largestShare*entryOverhead:
		return fmt.Errorf("cache: Capacity is %d, at least %d is needed", cfg.Capacity, largestShare*entryOverhead)
	case cfg.MaxAge <= 0:
		return fmt.Errorf("cache: MaxAge is %v", cfg.MaxAge)
	case cfg.Liveness <= 0 || cfg.Liveness > cfg.MaxAge:
		return fmt.Errorf("cache: Liveness is %v, MaxAge %v", cfg.Liveness, cfg.MaxAge)
	case cfg.MaxLoads <= 0:
		return fmt.Errorf("cache: MaxLoads is %d", cfg.MaxLoads)
	case cfg.LoadTimeout <= 0:
		return fmt.Errorf("cache: LoadTimeout is %v", cfg.LoadTimeout)
	case cfg.WhenNotLive != Bypass && cfg.WhenNotLive != ServeUntilMaxAge:
		return fmt.Errorf("cache: WhenNotLive is %d", cfg.WhenNotLive)
	}
	return nil
}

// Cache keeps sessions coherent with the server. The package comment is its protocol. Every method
// may be called by many goroutines at once.
type Cache[V any] struct {
	// What a hit reads. Hits write none of it, but for looked now and then.
	cfg     Config
	clock   Clock
	entries entries[V]
	epoch   atomic.Uint64             // E: how many operations had begun when the present epoch began
	live    atomic.Pointer[liveUntil] // L
	offset  atomic.Int64              // of the wall clock to the monotonic one, when last observed
	looked  atomic.Int64              // when a hit last looked at the wall clock
	fences  fences
	floors  floors
	_       [64]byte // a cache line between what hits read and what others write

	hits striped

	mu        sync.Mutex
	seq       uint64 // S: operations begun
	pending   map[Key]pending
	flights   map[Key]flights[V]
	ended     ended
	listeners []*Listener[V]
	counts    counts
	closed    bool

	room    chan struct{} // a token is held by each load that runs
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup // goroutines of flights
	hooks   hooks
}

// hooks are for tests.
type hooks struct {
	loaded func(Key) // between a load's answer and its fill
	off    rule      // rules that are not kept
}

// New makes a cache. It serves nothing before a listener is live; see [Cache.NewListener].
func New[V any](cfg Config) (*Cache[V], error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	m, err := newOtterEntries[V](cfg.Capacity)
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	c := &Cache[V]{
		cfg:     cfg,
		clock:   cfg.Clock,
		entries: m,
		pending: make(map[Key]pending),
		flights: make(map[Key]flights[V]),
		room:    make(chan struct{}, cfg.MaxLoads),
	}
	if c.clock == nil {
		c.clock = newSystemClock()
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	now := c.clock.Now()
	c.offset.Store(now.Wall - now.Mono)
	c.looked.Store(now.Mono)
	c.live.Store(&never)
	c.fences.init(cfg.MaxAge)
	c.ended.init(cfg.MaxAge)
	return c, nil
}

// Get returns a session that is cached and may be served. It takes no lock, does not wait and
// allocates nothing. The value is shared: it must not be changed.
//
// Where it returns false, [Cache.Load] is what to call.
func (c *Cache[V]) Get(key Key) (*V, bool) {
	e, slept := c.valid(&key)
	if e == nil {
		if slept {
			c.woke()
		}
		return nil, false
	}
	c.hits.add()
	return &e.value, true
}

// GetRemaining is [Cache.Get], and how long the session still lives if nobody uses it: not more than
// the server would say.
func (c *Cache[V]) GetRemaining(key Key) (v *V, remaining time.Duration, ok bool) {
	e, _ := c.valid(&key)
	if e == nil {
		return nil, 0, false
	}
	c.hits.add()
	return &e.value, time.Duration(e.ends - c.clock.Mono()), true
}

// valid is the rule of that name: the entry of a key, if it may be served, or that the machine has
// slept.
//
// Its order matters, since it takes no lock. Liveness is granted after what was heard before has been
// applied, and a fence is lifted after its entry was dropped, so both are read before the entry and
// its floor are. A fence ends by itself when the entries that it kept from being served have reached
// MaxAge, so the clock is read after it. The epoch only rises, so it is read last.
func (c *Cache[V]) valid(key *Key) (e *entry[V], slept bool) {
	live := c.live.Load()
	if c.fences.maybe(key) && c.fences.fenced(key, c.clock) {
		return nil, false
	}
	e = c.entries.get(*key)
	if e == nil || e.seq <= c.floors.at(e.slot) {
		return nil, false
	}
	now := c.clock.Mono()
	if now-c.looked.Load() >= lookEvery {
		both := c.clock.Now()
		if c.slept(both) {
			return nil, true
		}
		if !c.mayServe(live, both) {
			return nil, false
		}
		now = both.Mono
		c.looked.Store(now)
	}
	if now >= e.until || now >= live.Mono && !c.serves() || e.seq <= c.epoch.Load() {
		return nil, false
	}
	return e, false
}

// mayServe: live, or told to serve while not.
func (c *Cache[V]) mayServe(live *liveUntil, now Instant) bool {
	return live.covers(now) || c.serves()
}

func (c *Cache[V]) serves() bool { return c.cfg.WhenNotLive == ServeUntilMaxAge }

// newEpoch makes all that is cached, and all that has begun, worthless. The caller holds mu.
func (c *Cache[V]) newEpoch() {
	if !c.closed {
		c.epoch.Store(c.seq)
	}
	c.counts.epochs++
}

// Close ends all loads and waits for their goroutines. Nothing is served after it. It may be called
// again.
func (c *Cache[V]) Close() {
	c.mu.Lock()
	c.closed = true
	c.epoch.Store(math.MaxUint64)
	c.mu.Unlock()
	c.cancel()
	c.running.Wait()
}
