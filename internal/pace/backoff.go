// Package pace says when a listener connects again, and when it asks for a beat. It knows neither
// connections nor clocks: it is told what happened, and answers with how long to wait.
package pace

import (
	"math/rand/v2"
	"time"
)

const (
	// FirstDelay is the longest wait before the first attempt to connect again.
	FirstDelay = 50 * time.Millisecond
	// LongestDelay is the longest wait before any.
	LongestDelay = 10 * time.Second
)

// Backoff is the waits between attempts that fail, at random, so that the instances of a server that
// comes back do not all come at once. The zero value begins with the first.
type Backoff struct{ bound time.Duration }

// Next returns how long to wait before the next attempt: between a half and all of a bound that doubles.
func (b *Backoff) Next() time.Duration {
	bound := max(b.bound, FirstDelay)
	b.bound = min(2*bound, LongestDelay)
	return bound - rand.N(bound/2)
}

// Reset begins anew, after an attempt that has come to something.
func (b *Backoff) Reset() { b.bound = 0 }
