package cache

import "time"

// Clock tells the time. It is called on every hit, by many goroutines at once.
type Clock interface {
	// Now reads both clocks.
	Now() Instant
	// Mono reads the monotonic one, at half the cost.
	Mono() int64
}

// Instant is one moment by two clocks, in nanoseconds since a fixed point of each.
type Instant struct {
	Mono int64 // never goes back, and may stand still while the machine sleeps
	Wall int64 // goes on while the machine sleeps, and may be set
}

// systemClock reads both clocks in one call.
type systemClock struct{ base time.Time }

func newSystemClock() systemClock { return systemClock{time.Now()} }

func (c systemClock) Now() Instant {
	t := time.Now()
	return Instant{Mono: int64(t.Sub(c.base)), Wall: t.UnixNano()}
}

func (c systemClock) Mono() int64 { return int64(time.Since(c.base)) }

// lookEvery is how much monotonic time may pass between two hits of which neither looks at the wall
// clock: a look costs as much as the rest of a hit. In as much running time after a machine has
// woken, what was served just before it fell asleep may be served.
const lookEvery = int64(100 * time.Microsecond)

// sleepTolerance is how far the wall clock may run ahead of the monotonic one between two looks
// before the machine is taken to have slept. Setting the clock looks the same; a false alarm costs
// one reload of what is used.
const sleepTolerance = int64(time.Second)

// offsetStep is how far the clocks drift apart before that is noted.
const offsetStep = int64(time.Millisecond)

// slept reports whether the wall clock has run ahead of the monotonic one since the last look.
func (c *Cache[V]) slept(now Instant) bool {
	return now.Wall-now.Mono-c.offset.Load() > sleepTolerance
}

// observe reads the clock. After a sleep it begins an epoch: monotonic deadlines did not count the
// time asleep. The caller holds mu.
func (c *Cache[V]) observe() Instant {
	now := c.clock.Now()
	if c.slept(now) {
		c.gap()
	}
	// Hits read what lies beside it, so it is not written for the nanoseconds between two readings.
	if offset := now.Wall - now.Mono; offset-c.offset.Load() >= offsetStep || c.offset.Load()-offset >= offsetStep {
		c.offset.Store(offset)
	}
	return now
}

// woke is observe for a hit, which holds no lock.
func (c *Cache[V]) woke() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.observe()
}

// after is an instant plus a duration, without overflow.
func after(at int64, d time.Duration) int64 {
	if sum := at + int64(d); sum >= at || d < 0 {
		return sum
	}
	return 1<<63 - 1
}
