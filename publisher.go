package pgsession

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxEntries is how many entries the notify function takes in a call.
	maxEntries = 1000
	// maxPending is how many sessions wait to be published at most: for more, while the database is
	// away, it is published that all have changed.
	maxPending = 10_000
	// publishPatience is how long a writer waits for its publication if its context lets it.
	publishPatience = 10 * time.Second
	// The waits between attempts that fail, and between looks at the locks of ids in doubt.
	minPublishDelay = 20 * time.Millisecond
	maxPublishDelay = 2 * time.Second
)

// publisher publishes changes that were committed without a notification. Those that come while one
// publication is under way share the next: there is no timer, so that a single writer waits for one
// round trip, and a thousand wait for two.
//
// It has one goroutine, while there is something to publish.
type publisher struct {
	// send publishes by one call of the notify function, and returns what it does. nil: all sessions
	// have changed.
	send func(ctx context.Context, entries versions, everywhere bool) (busy []ID, err error)
	log  func(ctx context.Context, level slog.Level, message string, attrs ...slog.Attr)
	// keep is after how long a change need not be published any more: nobody has what was before.
	keep time.Duration
	// horizon is for how long a write in doubt may still be on its way, or wait, without its lock.
	horizon time.Duration

	life context.Context // ends with close, after a while
	end  context.CancelFunc
	wake chan struct{} // there is something new; has room for one

	failing   bool // the last attempt has failed; the goroutine's own
	doubtNext bool // the last thing it did was a batch; the goroutine's own

	mu      sync.Mutex
	next    *batch
	doubts  map[ID]*doubt
	running bool
	closing bool
	idle    sync.WaitGroup // the goroutine

	published, failed atomic.Int64 // sessions; attempts
}

// batch is what is published together.
type batch struct {
	versions versions
	all      bool // more than maxPending
	begun    time.Time
	last     time.Time     // when the newest came
	done     chan struct{} // closed when it was published,
	late     chan struct{} // or when that takes too long for those who wait
	isLate   bool
	err      error // why; set before late is closed
}

// doubt is an id that may have changed; "" is every one.
type doubt struct {
	id    ID
	since time.Time
	due   time.Time // when to publish it next
	delay time.Duration
	tried bool
}

func newPublisher(keep, horizon time.Duration) *publisher {
	p := &publisher{keep: keep, horizon: min(keep, horizon), wake: make(chan struct{}, 1), doubts: make(map[ID]*doubt)}
	p.life, p.end = context.WithCancel(context.Background())
	p.next = newBatch()
	return p
}

func newBatch() *batch {
	return &batch{versions: make(versions), done: make(chan struct{}), late: make(chan struct{})}
}

// publish joins the next batch and returns when it was published, or with ErrUnpublished when ctx
// ends or it takes too long; then it goes on behind.
func (p *publisher) publish(ctx context.Context, id ID, version int64) error {
	p.mu.Lock()
	if p.closing {
		p.mu.Unlock()
		return fmt.Errorf("%w: %w", ErrUnpublished, ErrClosed)
	}
	b := p.next
	b.last = time.Now()
	if b.begun.IsZero() {
		b.begun = b.last
	}
	if b.versions[id] < version {
		b.versions[id] = version
	}
	if len(b.versions) > maxPending {
		b.all, b.versions = true, make(versions)
	}
	p.start()
	p.mu.Unlock()

	select {
	case <-b.done:
		return nil
	case <-b.late:
		return fmt.Errorf("%w: %w", ErrUnpublished, b.err)
	case <-ctx.Done():
		select {
		case <-b.done:
			return nil
		default:
			return fmt.Errorf("%w: %w", ErrUnpublished, ctx.Err())
		}
	}
}

// inDoubt publishes ids, and again for as long as a statement that nobody waits for any more may still
// write them: the network may have it, or it may wait for another lock than the id's.
func (p *publisher) inDoubt(ids ...ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing || len(ids) == 0 {
		return
	}
	for _, id := range ids {
		p.doubts[id] = &doubt{id: id, since: time.Now(), delay: minPublishDelay}
	}
	if len(p.doubts) > maxPending {
		clear(p.doubts)
		p.doubts[""] = &doubt{since: time.Now(), delay: minPublishDelay}
	}
	p.start()
}

// start makes sure that the goroutine runs and knows. The caller holds mu.
func (p *publisher) start() {
	if !p.running {
		p.running = true
		p.idle.Go(p.run)
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *publisher) run() {
	for {
		p.mu.Lock()
		b, doubts, wait, more := p.take()
		if !more {
			p.running = false
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		switch {
		case b != nil:
			p.publishBatch(b)
		case len(doubts) > 0:
			p.publishDoubts(doubts)
		default:
			p.sleep(wait, p.wake)
		}
		if p.life.Err() != nil {
			p.abandon()
			return
		}
	}
}

// take returns what to do next: a batch, or ids in doubt, or to wait. Both in turns, so that none
// waits for ever. The caller holds mu.
func (p *publisher) take() (b *batch, doubts []*doubt, wait time.Duration, more bool) {
	doubts, wait, more = p.due()
	if p.next.begun.IsZero() || p.doubtNext && len(doubts) > 0 {
		p.doubtNext = false
		return nil, doubts, wait, more
	}
	b, p.next, p.doubtNext = p.next, newBatch(), true
	return b, nil, 0, true
}

// due returns the ids in doubt that are to be published now, or for how long there are none, and
// whether there are any at all. The caller holds mu.
func (p *publisher) due() (doubts []*doubt, wait time.Duration, more bool) {
	now := time.Now()
	wait = maxPublishDelay
	for id, d := range p.doubts {
		if p.closing && d.tried {
			delete(p.doubts, id) // it was published, and nobody is here to do it again
			continue
		}
		more = true
		if left := d.due.Sub(now); left <= 0 && len(doubts) < maxEntries {
			doubts = append(doubts, d)
		} else {
			wait = min(wait, left)
		}
	}
	return doubts, wait, more
}

// publishBatch tries until it has succeeded, or until nobody has what was before any more.
func (p *publisher) publishBatch(b *batch) {
	left := b.versions
	delay := minPublishDelay
	for {
		var err error
		if b.all {
			_, err = p.send(p.life, nil, true)
		}
		for err == nil && len(left) > 0 && !b.all {
			entries := left.some(maxEntries)
			if _, err = p.send(p.life, entries, false); err == nil {
				p.published.Add(int64(len(entries)))
				left = left.without(entries)
			}
		}
		if err == nil {
			p.failing = false
			close(b.done)
			return
		}
		p.failed.Add(1)
		p.warn(err)
		if unacceptable(err) && !b.all {
			b.all = true
			continue
		}
		if p.life.Err() != nil {
			p.lateness(b, err, 0)
			return
		}
		p.lateness(b, err, publishPatience)
		p.mu.Lock()
		p.lateness(p.next, err, publishPatience)
		p.mu.Unlock()
		if time.Since(b.last) > p.keep {
			p.lateness(b, err, 0)
			p.log(p.life, slog.LevelError, "pgsession: changes were not published in time",
				slog.Int("sessions", len(left)), slog.Any("error", err))
			p.mu.Lock()
			defer p.mu.Unlock()
			// For subscribers: once, when it works again.
			p.doubts[""] = &doubt{since: b.last.Add(-p.horizon), delay: maxPublishDelay}
			return
		}
		p.sleep(delay/2+rand.N(delay), nil)
		delay = min(2*delay, maxPublishDelay)
	}
}

// unacceptable: the server will never take what it was given, whatever that is.
func unacceptable(err error) bool {
	state := sqlState(err)
	return strings.HasPrefix(state, "22") || strings.HasPrefix(state, "54")
}

// warn logs the first of a series of failures.
func (p *publisher) warn(err error) {
	if !p.failing {
		p.log(p.life, slog.LevelWarn, "pgsession: changes cannot be published; it will be tried again", slog.Any("error", err))
	}
	p.failing = true
}

// lateness lets those go who wait for a batch that takes too long.
func (p *publisher) lateness(b *batch, err error, patience time.Duration) {
	if !b.isLate && !b.begun.IsZero() && time.Since(b.begun) >= patience {
		b.isLate, b.err = true, err
		close(b.late)
	}
}

func (p *publisher) publishDoubts(doubts []*doubt) {
	entries := make(versions, len(doubts))
	for _, d := range doubts {
		entries[d.id] = 0
	}
	if _, every := entries[""]; every {
		entries = nil
	}
	busy, err := p.send(p.life, entries, true)
	if entries != nil && unacceptable(err) {
		busy, err = p.send(p.life, nil, true)
	}
	if err != nil {
		p.failed.Add(1)
		p.warn(err)
	} else {
		p.failing = false
		p.published.Add(int64(len(doubts)))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range doubts {
		switch {
		case p.doubts[d.id] != d: // there is a newer one
		case err == nil && !slices.Contains(busy, d.id) && time.Since(d.since) >= p.horizon:
			delete(p.doubts, d.id)
		case err != nil && time.Since(d.since) > p.keep && d.id != "":
			delete(p.doubts, d.id) // nobody has what was before any more
		default:
			d.tried = d.tried || err == nil
			d.due = time.Now().Add(d.delay/2 + rand.N(d.delay))
			d.delay = min(2*d.delay, maxPublishDelay)
		}
	}
}

// sleep waits, until something comes in or the publisher is closed.
func (p *publisher) sleep(d time.Duration, wake <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-wake:
	case <-p.life.Done():
	}
}

// abandon ends with things unpublished.
func (p *publisher) abandon() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = false
	p.lateness(p.next, ErrClosed, 0)
	if n := len(p.next.versions) + len(p.doubts); n > 0 {
		p.log(context.WithoutCancel(p.life), slog.LevelWarn, "pgsession: closed with changes unpublished",
			slog.Int("sessions", n), slog.Any("ids", slices.Collect(maps.Keys(p.next.versions))))
	}
}

// close publishes what is pending, for a while at most, and ends the goroutine.
func (p *publisher) close(patience time.Duration) {
	p.mu.Lock()
	p.closing = true
	select {
	case p.wake <- struct{}{}:
	default:
	}
	p.mu.Unlock()
	timer := time.AfterFunc(patience, p.end)
	p.idle.Wait()
	timer.Stop()
	p.end()
}
