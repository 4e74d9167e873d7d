package pgsession

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"sync"
	"time"
)

// EventKind says what happened to a session, or to several.
type EventKind int

const (
	// EventUpdated: a session was changed, or may have been; Version is then 0.
	EventUpdated EventKind = iota + 1
	// EventDestroyed: a session was ended by [Sessions.Destroy].
	EventDestroyed
	// EventRevoked: a session was ended by [Sessions.Revoke], by its id.
	EventRevoked
	// EventRenewed: a session got a new token; ID is that of the old one.
	EventRenewed
	// EventSubjectRevoked: sessions of the subject were ended, but for Except. Compare SubjectHash with
	// [HashSubject]. Except may be missing where it was long: look what is still there.
	EventSubjectRevoked
	// EventCleared: all sessions were ended or changed.
	EventCleared
	// EventReused: a token that was renewed was used again after its grace; ID is its. It may have been
	// stolen, before or after: [Sessions.Revoke] of the ID ends the session that it was renewed to. The
	// instance that met it alone tells of it, at most once a minute for each token.
	EventReused
	// EventMissed: events may have been missed up to now, since the connection was lost or has just
	// been made, or since the handler was too slow. Look what is there.
	EventMissed
)

// String returns the kind's name.
func (k EventKind) String() string {
	switch k {
	case EventUpdated:
		return "updated"
	case EventDestroyed:
		return "destroyed"
	case EventRevoked:
		return "revoked"
	case EventRenewed:
		return "renewed"
	case EventSubjectRevoked:
		return "subject revoked"
	case EventCleared:
		return "cleared"
	case EventReused:
		return "reused"
	case EventMissed:
		return "missed"
	}
	return "EventKind(" + strconv.Itoa(int(k)) + ")"
}

// Event is a change of sessions, made by any instance, this one included.
type Event struct {
	Kind EventKind
	// ID and Version are the session's, of those kinds that are about one.
	ID      ID
	Version int64
	// SubjectHash and Except are whose sessions ended, and which did not: of EventSubjectRevoked.
	SubjectHash SubjectHash
	Except      []ID
}

// eventQueue is how many events wait for a slow handler before it is told that it missed some.
const eventQueue = 1024

// Subscribe has f called with every change of a session that any instance makes, in the order in
// which they were made, one after the other. It needs Config.Listen, and begins once [Store.Setup]
// was called. Creating, touching and expiring are no events, nor are writes under NotifyOff. An event
// is a hint to look: its session may have changed again.
//
// A handler that is slow delays nobody: beyond some events that wait for it, it gets an EventMissed
// instead of more. One that panics is logged, and called again with the next event.
//
// stop ends the subscription, and may be called again, also by f; a call of f may still be under way
// after it. Close ends all subscriptions and waits a while for calls that are under way.
func (s *Store) Subscribe(f func(Event)) (stop func()) {
	if f == nil {
		return func() {}
	}
	return s.store.notify.subscribers.add(f)
}

// subscribers are the handlers of a store.
type subscribers struct {
	log func(ctx context.Context, level slog.Level, message string, attrs ...slog.Attr)

	mu      sync.Mutex
	all     map[*subscriber]struct{}
	closed  bool
	running sync.WaitGroup
}

// subscriber is one handler with its queue. A nil queue is over.
type subscriber struct {
	handle func(Event)
	wake   chan struct{} // has room for one
	over   chan struct{}

	mu     sync.Mutex
	queue  []Event
	missed bool
	ended  bool
}

func (s *subscribers) add(f func(Event)) (stop func()) {
	sub := &subscriber{handle: f, wake: make(chan struct{}, 1), over: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return func() {}
	}
	if s.all == nil {
		s.all = make(map[*subscriber]struct{})
	}
	s.all[sub] = struct{}{}
	s.running.Go(func() { s.serve(sub) })
	return func() {
		s.mu.Lock()
		delete(s.all, sub)
		s.mu.Unlock()
		sub.end()
	}
}

// emit gives events to all handlers and waits for none.
func (s *subscribers) emit(events ...Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sub := range s.all {
		sub.put(events)
	}
}

// close ends all subscriptions and waits for the handlers' calls, for a while at most.
func (s *subscribers) close(patience time.Duration) {
	s.mu.Lock()
	s.closed = true
	for sub := range s.all {
		sub.end()
	}
	clear(s.all)
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		s.running.Wait()
		close(ended)
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		s.log(context.Background(), slog.LevelWarn, "pgsession: closed while a handler of events was still running")
	}
}

func (s *subscribers) serve(sub *subscriber) {
	for {
		select {
		case <-sub.over:
			return
		case <-sub.wake:
		}
		for _, event := range sub.take() {
			if sub.isOver() {
				return
			}
			s.call(sub, event)
		}
	}
}

func (s *subscribers) call(sub *subscriber, event Event) {
	defer func() {
		if v := recover(); v != nil {
			s.log(context.Background(), slog.LevelError, "pgsession: a handler of events panicked",
				slog.String("panic", fmt.Sprint(v)), slog.String("stack", string(debug.Stack())))
		}
	}()
	sub.handle(event)
}

func (sub *subscriber) put(events []Event) {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	switch {
	case sub.ended || sub.missed:
		return
	case len(sub.queue)+len(events) > eventQueue:
		// What waits is of no use beside this.
		sub.queue, sub.missed = nil, true
	default:
		sub.queue = append(sub.queue, events...)
	}
	select {
	case sub.wake <- struct{}{}:
	default:
	}
}

func (sub *subscriber) take() []Event {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	events := sub.queue
	if sub.missed {
		events = []Event{{Kind: EventMissed}}
	}
	sub.queue, sub.missed = nil, false
	return events
}

func (sub *subscriber) end() {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if !sub.ended {
		sub.ended = true
		close(sub.over)
	}
}

func (sub *subscriber) isOver() bool {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	return sub.ended
}
