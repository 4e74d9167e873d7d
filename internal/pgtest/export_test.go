package pgtest

import "time"

// SetReleaseTimeout replaces how long a pool waits for its connections, and returns what undoes it.
func SetReleaseTimeout(d time.Duration) (undo func()) {
	before := releaseTimeout
	releaseTimeout = d
	return func() { releaseTimeout = before }
}
