package pgsession

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// It is in the package, for a clock of its own and a wire that is always busy.
func TestAWriteInDoubtIsPublishedUnderAnyLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPublisher(time.Minute, time.Second)
		p.log = func(context.Context, slog.Level, string, ...slog.Attr) {}
		var doubts atomic.Int64
		p.send = func(_ context.Context, _ versions, everywhere bool) ([]ID, error) {
			time.Sleep(2 * time.Millisecond)
			if everywhere {
				doubts.Add(1)
			}
			return nil, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		var writers sync.WaitGroup
		for i := range 128 {
			writers.Go(func() {
				for version := int64(1); ctx.Err() == nil; version++ {
					time.Sleep(time.Millisecond) // the write itself
					_ = p.publish(ctx, ID(rune('a'+i)), version)
				}
			})
		}
		time.Sleep(100 * time.Millisecond)
		p.inDoubt("x")
		time.Sleep(10 * time.Millisecond)
		if doubts.Load() == 0 {
			t.Error("after 10 ms it has not been published")
		}
		time.Sleep(3 * time.Second)
		n := doubts.Load()
		if n < 4 || n > 10 {
			t.Errorf("within its horizon of a second it was published %d times", n)
		}
		time.Sleep(3 * time.Second)
		if doubts.Load() != n {
			t.Error("it is published beyond its horizon")
		}
		cancel()
		writers.Wait()
		p.close(time.Second)
	})
}
