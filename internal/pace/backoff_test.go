package pace_test

import (
	"testing"

	"github.com/pgsession/pgsession/internal/pace"
)

func TestTheFirstAttemptComesSoonAndNoneComesLaterThanTheLongestDelay(t *testing.T) {
	t.Parallel()
	var b pace.Backoff
	for range 1000 {
		b.Reset()
		if d := b.Next(); d <= 0 || d > pace.FirstDelay {
			t.Fatalf("the first wait is %v", d)
		}
		for bound := 2 * pace.FirstDelay; bound < pace.LongestDelay; bound *= 2 {
			if d := b.Next(); d <= bound/2 || d > bound {
				t.Fatalf("the wait is %v, of %v", d, bound)
			}
		}
		for range 5 {
			if d := b.Next(); d <= pace.LongestDelay/2 || d > pace.LongestDelay {
				t.Fatalf("the wait is %v, at most %v", d, pace.LongestDelay)
			}
		}
	}
}
