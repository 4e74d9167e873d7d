package fiberstorage

import (
	"context"
	"sync/atomic"
	"time"
)

// deadlines gives calls a deadline that have none. Calls that begin at about the same time share one: a
// timer for each would cost more than all the rest of this package.
type deadlines struct {
	timeout time.Duration // below 0: none
	current atomic.Pointer[deadline]
}

// deadline ends calls by itself, between the timeout and a sixteenth more after they began.
type deadline struct {
	context.Context
	begun  time.Time
	cancel context.CancelFunc
}

// put returns a context with a deadline, and what to call when it is no longer needed.
func (d *deadlines) put(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok || d.timeout < 0 {
		return ctx, func() {}
	}
	if ctx.Done() != nil {
		return context.WithTimeout(ctx, d.timeout) // it may end earlier
	}
	return bounded{d.shared(), ctx}, func() {}
}

func (d *deadlines) shared() *deadline {
	now := time.Now()
	current := d.current.Load()
	if current != nil && now.Sub(current.begun) < d.timeout/16 {
		return current
	}
	next := &deadline{begun: now}
	next.Context, next.cancel = context.WithTimeout(context.Background(), d.timeout+d.timeout/16)
	if !d.current.CompareAndSwap(current, next) {
		next.cancel() // another call was faster
		return d.shared()
	}
	return next
}

// end stops the timer, when no call is under way any more.
func (d *deadlines) end() {
	if current := d.current.Swap(nil); current != nil {
		current.cancel()
	}
}

// bounded is a context that never ends, with a deadline.
type bounded struct {
	*deadline
	values context.Context
}

// Value also leads package context to the deadline, so that it needs no goroutine to watch it.
func (b bounded) Value(key any) any {
	if value := b.values.Value(key); value != nil {
		return value
	}
	return b.deadline.Value(key)
}
