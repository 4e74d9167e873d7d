package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// flight is a load and those who wait for it. Its goroutine waits first for the flight before it and
// for room, then loads: until it has begun everyone may join, since it will see all that was
// committed before they came.
type flight[V any] struct {
	key    Key
	load   func(context.Context) (Reply[V], error)
	values context.Context // of the request that made it, without its end
	after  *flight[V]      // of the same key, which began before
	wanted chan struct{}   // closed when nobody waits for a flight that has not begun
	done   chan struct{}   // closed when it has landed

	// What it brought; settled when done is closed.
	value   *V
	alive   bool
	err     error
	notLate bool // not for those who joined after it had begun
	private bool // only for the one who made it

	// Under Cache.mu.
	op      *Op[V] // nil until it has begun
	waiters int
	fenced  bool // something was heard since it began
}

// flights are those of one key: one that runs, and one that will.
type flights[V any] struct{ running, queued *flight[V] }

// PanicError is what those get who waited for a load that panicked.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("the load panicked: %v\n\n%s", e.Value, e.Stack)
}

// ErrPrivate is what those get who joined a load whose reply is private. They have to read for themselves,
// outside of flights: among many that are private they would join one after another.
var ErrPrivate = errors.New("the load was another request's own")

var errGoexit = errors.New("the load ended its goroutine")

// Load returns a session that is cached, or joins a load that is in flight, or begins one. It
// reports whether there is such a session. The value is shared: it must not be changed.
//
// The load runs on a goroutine of its own, in a context that has the values of ctx, but ends after
// Config.LoadTimeout or with [Cache.Close]. When ctx ends, Load returns its error and the flight
// goes on. Errors are for all who wait, and are not kept. For a reply that is private, also beside an
// error, those who joined get ErrPrivate.
func (c *Cache[V]) Load(
	ctx context.Context, key Key, load func(context.Context) (Reply[V], error),
) (v *V, alive bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	came := int64(-1)
	for {
		f, as, v, err := c.join(ctx, key, load, &came)
		if f == nil {
			return v, v != nil, err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			c.leave(f)
			return nil, false, ctx.Err()
		}
		switch {
		case f.private && as != maker:
			return nil, false, ErrPrivate
		case !f.notLate || as != late:
			return f.value, f.alive, f.err
		}
	}
}

// passenger is how one came to wait for a flight.
type passenger int

const (
	maker passenger = iota
	early           // joined before it had begun
	late            // joined after
)

// join finds a hit, or the flight to wait for. came is how many operations had begun when they came, set by
// the first call: a flight that has begun since may be joined like one that has yet to.
func (c *Cache[V]) join(
	ctx context.Context, key Key, load func(context.Context) (Reply[V], error), came *int64,
) (f *flight[V], as passenger, v *V, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, maker, nil, ErrClosed
	}
	now := c.observe()
	if e, _ := c.valid(&key); e != nil { // a flight may have landed since Get
		c.hits.add()
		return nil, maker, &e.value, nil
	}
	c.counts.misses++
	if !c.live.Load().covers(now) {
		c.counts.notLive++
	}
	both := c.flights[key]
	again := *came >= 0
	if !again {
		*came = int64(c.seq)
	}
	f, as = both.running, late
	switch {
	case f != nil && int64(f.op.seq) > *came:
		as = early
	case f == nil || again || !c.joinable(f, now):
		f, as = both.queued, early
	}
	if f != nil {
		c.counts.joins++
		f.waiters++
		return f, as, nil, nil
	}
	f = &flight[V]{
		key: key, load: load, values: context.WithoutCancel(ctx), after: both.running,
		wanted: make(chan struct{}), done: make(chan struct{}), waiters: 1,
	}
	both.queued = f
	c.flights[key] = both
	c.running.Add(1)
	go c.fly(f)
	return f, maker, nil, nil
}

// joinable is the join rule, for a flight that has begun: its reply must be as good as an entry that
// began when it did.
func (c *Cache[V]) joinable(f *flight[V], now Instant) bool {
	if c.without(ruleJoin) {
		return true
	}
	return f.op.seq > c.epoch.Load() &&
		f.op.seq > c.floors.highest && // whose it is will be known when it lands
		!f.fenced &&
		c.young(f, now) > 0 &&
		c.mayServe(c.live.Load(), now) &&
		!c.fences.fenced(&f.key, c.clock)
}

// young is for how long a flight that has begun may still be joined, and how long the next one
// waits for it. A load that hangs must not hold up those who come later.
func (c *Cache[V]) young(f *flight[V], now Instant) time.Duration {
	return time.Duration(after(f.op.t0, c.cfg.Liveness) - now.Mono)
}

// fenceFlight lets nobody else join the flight that runs. The caller holds mu.
func (c *Cache[V]) fenceFlight(key Key) {
	if f := c.flights[key].running; f != nil {
		f.fenced = true
	}
}

// leave gives up waiting. A flight that nobody waits for does not begin.
func (c *Cache[V]) leave(f *flight[V]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.waiters--
	if f.waiters > 0 || f.op != nil || c.flights[f.key].queued != f {
		return
	}
	c.unqueue(f)
	close(f.wanted)
}

// fly is a flight's goroutine.
func (c *Cache[V]) fly(f *flight[V]) {
	defer c.running.Done()
	defer close(f.done)
	if err := c.waitForTurn(f); err != nil {
		f.err = err
		return
	}
	defer func() { <-c.room }()
	if !c.takeOff(f) {
		return
	}
	reply, err := Reply[V]{}, errGoexit
	defer func() { c.land(f, &reply, err) }()
	reply, err = c.callLoad(f)
	if c.hooks.loaded != nil {
		c.hooks.loaded(f.key)
	}
}

// waitForTurn waits for the flight before this one, while that is young, and for room. Where it
// returns nil it has taken room.
func (c *Cache[V]) waitForTurn(f *flight[V]) error {
	if f.after != nil {
		c.mu.Lock()
		left := c.young(f.after, c.clock.Now())
		c.mu.Unlock()
		timer := time.NewTimer(left)
		defer timer.Stop()
		select {
		case <-f.after.done:
		case <-timer.C:
		case <-f.wanted:
		case <-c.ctx.Done():
		}
		f.after = nil // or a busy key's flights would be a chain without end
	}
	select {
	case c.room <- struct{}{}:
		return nil
	case <-f.wanted:
	case <-c.ctx.Done():
		c.mu.Lock()
		c.unqueue(f)
		c.mu.Unlock()
	}
	return ErrClosed // nobody is told, unless it was closed
}

// takeOff begins the operation, unless there is no need to.
func (c *Cache[V]) takeOff(f *flight[V]) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		c.unqueue(f)
		f.err = ErrClosed
		return false
	}
	if f.waiters == 0 {
		return false // leave has unqueued it
	}
	f.op = c.begin(f.key)
	c.counts.loads++
	c.flights[f.key] = flights[V]{running: f}
	return true
}

// unqueue forgets a flight that has not begun. The caller holds mu.
func (c *Cache[V]) unqueue(f *flight[V]) {
	both := c.flights[f.key]
	if both.queued == f {
		both.queued = nil
		c.put(f.key, both)
	}
}

func (c *Cache[V]) put(key Key, both flights[V]) {
	if both == (flights[V]{}) {
		delete(c.flights, key)
	} else {
		c.flights[key] = both
	}
}

// callLoad calls the load. A panic becomes an error.
func (c *Cache[V]) callLoad(f *flight[V]) (reply Reply[V], err error) {
	ctx, cancel := context.WithTimeout(f.values, c.cfg.LoadTimeout)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{p, debug.Stack()}
		}
	}()
	return f.load(ctx)
}

// land settles what those get who wait, and keeps the reply where that is allowed.
func (c *Cache[V]) land(f *flight[V], reply *Reply[V], err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil && c.closed {
		err = fmt.Errorf("%w: %w", ErrClosed, err)
	}
	f.err, f.private = err, reply.Private
	if err == nil {
		var e *entry[V]
		if f.alive, e = c.take(f.op, reply); f.alive {
			f.value = &e.value
		}
		// Neither what ended the successor of a renewed session has fenced this flight, nor what created a
		// session, of which nobody is told. One that has expired since it was read was there for those who
		// asked before.
		f.notLate = (!f.alive || reply.viaRenewed() || c.clock.Mono() >= e.until) && !c.without(ruleLate)
	} else {
		c.counts.loadErrors++
	}
	f.op.end()
	if both := c.flights[f.key]; both.running == f {
		both.running = nil
		c.put(f.key, both)
	}
}
