package webtest

import (
	"slices"
	"testing"
	"time"
)

// MaxOverhead is what an adapter may add to a call of the store.
const MaxOverhead = 2 * time.Microsecond

// Overhead measures what an adapter adds to the store's own call: both are called in turns, so that they
// meet the same server in the same mood, and their medians are compared. It reports both and fails the
// benchmark if the difference is more than MaxOverhead.
func Overhead(b *testing.B, store, adapter func()) {
	b.Helper()
	ours, own := make([]time.Duration, 0, b.N), make([]time.Duration, 0, b.N)
	timed := func(f func()) time.Duration {
		start := time.Now()
		f()
		return time.Since(start)
	}
	for range 100 {
		store()
		adapter()
	}
	b.ResetTimer()
	for i := range b.N {
		if i%2 == 0 {
			own = append(own, timed(store))
			ours = append(ours, timed(adapter))
		} else {
			ours = append(ours, timed(adapter))
			own = append(own, timed(store))
		}
	}
	b.StopTimer()
	slices.Sort(own)
	slices.Sort(ours)
	m := b.N / 2
	b.ReportMetric(float64(own[m].Nanoseconds()), "store-ns")
	b.ReportMetric(float64(ours[m].Nanoseconds()), "adapter-ns")
	b.ReportMetric(float64((ours[m] - own[m]).Nanoseconds()), "overhead-ns")
	if b.N >= 1000 && ours[m]-own[m] > MaxOverhead {
		b.Errorf("the adapter adds %v, at most %v are promised", ours[m]-own[m], MaxOverhead)
	}
}
