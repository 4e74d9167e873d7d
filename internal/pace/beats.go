package pace

import (
	"math/rand/v2"
	"time"
)

// quickCalls is how many calls a hurry may take. The first one's nonce is published by it or, where another
// instance published just before, by the second call of anyone; the others are for what goes wrong.
const quickCalls = 4

// Beats is when one listener of an instance calls the beat function. Each call costs the server's
// processor a connection's awakening, which is most of what an idle instance costs, so what a heard beat
// proves puts the next call off. It is used by one goroutine.
//
// A nonce is heard by the next call of anyone that comes late enough to publish it. So the next call is due
// when half of the deadline is left; where that is answered and its nonce not heard, another when a fifth
// is left, at which whatever was published last is old enough for this one to publish; and then again
// and again. Where it is not live, the next call comes as soon as it may publish.
//
// Only a proof puts a call off. What else is heard, as a beat that this instance did not ask for in time,
// changes nothing: the others' beats may come more often than its own calls are due.
type Beats struct {
	deadline time.Duration
	hurried  time.Duration // when the last hurry began, by the caller's clock
	once     bool          // there was one
	quick    int           // calls that it has left
}

// NewBeats is for a liveness deadline.
func NewBeats(deadline time.Duration) *Beats { return &Beats{deadline: deadline} }

// interval is the time between two publications: less than that between two calls, so that one instance
// alone publishes with each.
func (b *Beats) interval() time.Duration { return min(b.deadline*3/10, 900*time.Millisecond) }

// quickInterval is the same in a hurry. It is not zero, and the hurry begins at random within it, since many
// instances are in a hurry about the same thing: one's publication has to do for all.
func (b *Beats) quickInterval() time.Duration { return b.interval() / 16 }

// Interval is how old the last publication must be for the call that is due to publish.
func (b *Beats) Interval() time.Duration {
	if b.quick > 0 {
		return b.quickInterval()
	}
	return b.interval()
}

// Hurry says that liveness was lost by what was heard, or has not begun, on a connection that is there: a
// beat should be published at once. It returns how long to wait for the call, or that the call that is due
// is such a one. There is one hurry in the time between two publications: anyone can send what asks for one.
func (b *Beats) Hurry(now time.Duration) (wait time.Duration, ok bool) {
	if b.quick > 0 {
		return 0, false
	}
	begin := now
	if b.once {
		begin = max(begin, b.hurried+b.interval())
	}
	begin += rand.N(b.quickInterval())
	b.hurried, b.once, b.quick = begin, true, quickCalls
	return begin - now, true
}

// Called returns how long to wait after a call, whatever became of it; left is how long this instance is
// live without another proof.
func (b *Beats) Called(left time.Duration, live bool) (wait time.Duration) {
	b.quick = max(0, b.quick-1)
	if live {
		b.quick = 0
	}
	switch {
	case b.quick > 0:
		return b.quickInterval() * 11 / 10
	case !live:
		return b.interval() * 11 / 10
	case left > b.deadline/2:
		return left - b.deadline/2
	}
	return max(left-b.deadline/5, b.deadline/12)
}

// Heard returns how long to wait after a beat was heard, or that it puts the call that is due not off.
func (b *Beats) Heard(left time.Duration, live bool) (wait time.Duration, ok bool) {
	if !live || left <= b.deadline/2 {
		return 0, false
	}
	b.quick = 0
	return left - b.deadline/2, true
}
