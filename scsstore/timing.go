package scsstore

import (
	"time"

	"github.com/pgsession/pgsession"
)

// timing is when a Commit wants the session to end. scs speaks in times by this machine's clock, the
// store in durations by the server's: only differences of two of scs's times are used, so that the
// clocks need not agree.
type timing struct {
	now      time.Time
	expiry   time.Time // the earlier of the deadline, and now with scs's IdleTimeout
	deadline time.Time
}

// maxTimeout is where a deadline is none: the store takes timeouts of up to a hundred years.
const maxTimeout = 99 * 365 * 24 * time.Hour

// idleTimeout returns the idle timeout for a session that has one already; 0 keeps it. What scs passes
// is its IdleTimeout less the moments since it looked at the clock, so what is near enough is the same.
func (t *timing) idleTimeout(has time.Duration) time.Duration {
	left := t.expiry.Sub(t.now)
	near := max(has/100, 5*time.Millisecond)
	switch {
	case !t.expiry.Before(t.deadline):
		if has > 0 && has+near < left {
			return -1 // it would end the session before its deadline
		}
		return 0
	case has > 0 && (has-left).Abs() <= near:
		return 0
	}
	return within((left + time.Millisecond - 1).Truncate(time.Millisecond))
}

// absoluteTimeout moves a session's absolute timeout as scs's deadline moved, which before was another.
func (t *timing) absoluteTimeout(there pgsession.Session, before time.Time) time.Duration {
	if there.AbsoluteTimeout > 0 && !before.IsZero() {
		moved := min(t.deadline.Sub(before), maxTimeout) // the sum must not overflow
		return within(there.AbsoluteTimeout + moved)
	}
	return within(t.deadline.Sub(there.CreatedAt))
}

// within returns d as a timeout that the store takes: none if it is too long, and if it is over an end
// that is near, since a negative one would be none.
func within(d time.Duration) time.Duration {
	if d > maxTimeout {
		return -1
	}
	return max(d, time.Microsecond)
}
