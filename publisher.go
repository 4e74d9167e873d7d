package pgsession

import (
	"context"
	"errors"
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
	// The waits between attempts that fail.
	minPublishDelay = 20 * time.Millisecond
	maxPublishDelay = 2 * time.Second
	// maxNamed is how many ids the log names.
	maxNamed = 100
)

var (
	errUnanswered = errors.New("the database has not answered")
	// errElsewhere ends the attempts to publish a change: no more of them would help.
	errElsewhere = errors.New("the server that took the write is not reached any more")
)

// publisher publishes changes that were committed without a notification. Those that come while one
// publication is under way share the next: there is no timer, so that a single writer waits for one
// round trip, and a thousand wait for two.
//
// It has one goroutine, while there is something to publish.
type publisher struct {
	// send publishes by one call of the notify function, where those hear it who hear the server that
	// took the writes: "" is one that is not known.
	send func(ctx context.Context, entries versions, server string) error
	// ask publishes everywhere, and returns what the function does: the ids whose locks are held. nil:
	// all sessions have changed.
	ask func(ctx context.Context, entries versions) (busy []ID, err error)
	log func(ctx context.Context, level slog.Level, message string, attrs ...slog.Attr)
	// keep is after how long a change need not be published any more: nobody has what was before.
	keep time.Duration

	life context.Context // ends with close, after a while
	end  context.CancelFunc
	wake chan struct{} // there is something new; has room for one

	doubtNext bool   // the last thing it did was a batch; the goroutine's own
	trying    *batch // that is being published; the goroutine's own

	mu      sync.Mutex
	next    *batch
	doubts  doubts
	failure error // of the last attempt; nil: it succeeded
	running bool
	closing bool
	idle    sync.WaitGroup // the goroutine

	published, failed atomic.Int64 // sessions; attempts
}

// batch is what is published together.
type batch struct {
	changes map[string]versions // by the server that took the writes
	all     bool                // more than maxPending
	begun   time.Time
	last    time.Time     // when the newest came
	done    chan struct{} // closed when it was published,
	late    chan struct{} // or when those who wait shall not do so any longer; never both
	settled bool          // one of them is closed
	err     error         // why; set before late is closed
	timer   *time.Timer   // closes late

	elsewhere error // of changes that no attempt can publish; the publisher's goroutine's own
}

func newPublisher(keep, horizon time.Duration) *publisher {
	p := &publisher{keep: keep, wake: make(chan struct{}, 1), doubts: newDoubts(keep, horizon)}
	p.life, p.end = context.WithCancel(context.Background())
	p.next = newBatch()
	return p
}

func newBatch() *batch {
	return &batch{changes: make(map[string]versions), done: make(chan struct{}), late: make(chan struct{})}
}

// add takes a session's new version, which a server has.
func (b *batch) add(id ID, version int64, server string) {
	of := b.changes[server]
	if of == nil {
		of = make(versions)
		b.changes[server] = of
	}
	of[id] = max(of[id], version)
	if b.len() > maxPending {
		b.all, b.changes = true, make(map[string]versions)
	}
}

func (b *batch) len() (n int) {
	for _, of := range b.changes {
		n += len(of)
	}
	return n
}

// publish joins the next batch and returns when it was published, or with ErrUnpublished when ctx
// ends or it takes too long; then it goes on behind.
func (p *publisher) publish(ctx context.Context, id ID, version int64, server string) error {
	p.mu.Lock()
	if p.closing {
		p.mu.Unlock()
		return fmt.Errorf("%w: %w", ErrUnpublished, ErrClosed)
	}
	b := p.next
	b.last = time.Now()
	if b.begun.IsZero() {
		b.begun = b.last
		// Not after an attempt that failed: it may hang, or another batch's may.
		b.timer = time.AfterFunc(publishPatience, func() { p.settle(b, errUnanswered) })
	}
	b.add(id, version, server)
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

// settle has those go who wait for a batch: with an error, or with the one that attempts fail with
// meanwhile, if any; or, without one, since it was published.
func (p *publisher) settle(b *batch, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b.settled || b.begun.IsZero() {
		return
	}
	b.settled = true
	b.timer.Stop()
	if err == nil {
		close(b.done)
		return
	}
	switch b.err = err; {
	case p.failure == nil || errors.Is(p.failure, err):
	case errors.Is(err, errUnanswered):
		b.err = p.failure
	default:
		b.err = fmt.Errorf("%w: %w", err, p.failure)
	}
	close(b.late)
}

// inDoubt publishes ids, and again for as long as a statement that nobody waits for any more may still
// write them.
func (p *publisher) inDoubt(ids ...ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing || len(ids) == 0 {
		return
	}
	now := time.Now()
	for _, id := range ids {
		p.doubts.add(id, now)
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
	if p.closing {
		p.doubts.forgetTried()
	}
	now := time.Now()
	wait, more = p.doubts.wait(now)
	if p.next.begun.IsZero() || p.doubtNext && more && wait == 0 {
		p.doubtNext = false
		return nil, p.doubts.take(now), wait, more
	}
	b, p.next, p.doubtNext = p.next, newBatch(), true
	return b, nil, 0, true
}

// publishBatch tries until it has succeeded, or until nobody has what was before any more.
func (p *publisher) publishBatch(b *batch) {
	p.trying = b
	delay := minPublishDelay
	for {
		err := p.attempt(b)
		p.attempted(err)
		switch {
		case err == nil:
			p.settle(b, nil)
		case p.life.Err() != nil:
			return // abandon tells of it
		case unacceptable(err) && !b.all:
			b.all = true
			continue
		case errors.Is(err, errElsewhere):
			p.settle(b, err)
		case time.Since(b.last) > p.keep:
			p.settle(b, err)
			p.tooLate(b.len(), err)
		default:
			p.sleep(delay/2+rand.N(delay), nil)
			delay = min(2*delay, maxPublishDelay)
			continue
		}
		p.trying = nil
		return
	}
}

// attempt publishes what is left of a batch. What no attempt can publish is told of when all else is.
func (p *publisher) attempt(b *batch) error {
	if b.all {
		_, err := p.ask(p.life, nil)
		return err
	}
	for server, left := range b.changes {
		for len(left) > 0 {
			entries := left.some(maxEntries)
			err := p.send(p.life, entries, server)
			switch {
			case errors.Is(err, errElsewhere):
				// Those who listen to that server hear of it if a connection is left that reaches it.
				b.elsewhere = err
				p.inDoubt(slices.Collect(maps.Keys(entries))...)
			case err != nil:
				return err
			default:
				p.published.Add(int64(len(entries)))
			}
			left = left.without(entries)
			b.changes[server] = left
		}
		delete(b.changes, server)
	}
	return b.elsewhere
}

// unacceptable: the server will never take what it was given, whatever that is.
func unacceptable(err error) bool {
	state := sqlState(err)
	return strings.HasPrefix(state, "22") || strings.HasPrefix(state, "54")
}

// attempted takes how an attempt went, and logs the first of a series of failures.
func (p *publisher) attempted(err error) {
	p.mu.Lock()
	first := p.failure == nil
	p.failure = err
	p.mu.Unlock()
	if err == nil {
		return
	}
	p.failed.Add(1)
	if first {
		p.log(p.life, slog.LevelWarn, "pgsession: changes cannot be published; it will be tried again", slog.Any("error", err))
	}
}

// tooLate tells that changes were given up, and subscribers, when it works again, that they missed some.
func (p *publisher) tooLate(sessions int, err error) {
	p.log(p.life, slog.LevelError, "pgsession: changes were not published in time",
		slog.Int("sessions", sessions), slog.Any("error", err))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doubts.missed(time.Now())
}

func (p *publisher) publishDoubts(doubts []*doubt) {
	entries := make(versions, len(doubts))
	for _, d := range doubts {
		entries[d.id] = 0
	}
	if _, every := entries[""]; every {
		entries = nil
	}
	began := time.Now()
	busy, err := p.ask(p.life, entries)
	if entries != nil && unacceptable(err) {
		busy, err = p.ask(p.life, nil)
	}
	p.attempted(err)
	late := 0
	p.mu.Lock()
	if err == nil {
		p.published.Add(int64(len(doubts)))
		p.doubts.published(doubts, busy, began)
	} else {
		late = p.doubts.failed(doubts, time.Now())
	}
	p.mu.Unlock()
	if late > 0 {
		p.tooLate(late, err)
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
	left, all := make(map[ID]bool), false
	batches := []*batch{p.next}
	if p.trying != nil {
		batches = append(batches, p.trying)
	}
	for _, b := range batches {
		all = all || b.all
		for _, of := range b.changes {
			for id := range of {
				left[id] = true
			}
		}
	}
	p.doubts.forgetTried()
	for id := range p.doubts.byID {
		if all = all || id == ""; id != "" {
			left[id] = true
		}
	}
	failure := p.failure
	p.running = false
	p.mu.Unlock()
	for _, b := range batches {
		p.settle(b, ErrClosed)
	}
	if len(left) == 0 && !all {
		return
	}
	ids := slices.Collect(maps.Keys(left))
	p.log(context.WithoutCancel(p.life), slog.LevelWarn, "pgsession: closed with changes unpublished",
		slog.Int("sessions", len(left)), slog.Bool("more", all), slog.Any("ids", ids[:min(len(ids), maxNamed)]),
		slog.Any("error", failure))
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
