package scsstore

import (
	"context"
	"sync"

	"github.com/pgsession/pgsession"
)

// loads remembers what the requests under way have loaded. scs's Find and Commit do not tell a session
// that was loaded from a new one; the contexts that they pass do: those of one request are derived from
// one another, and share the channel that says when it ends.
//
// What was loaded may be committed only over what is there, never inserted, which is what keeps a
// session that was ended from coming back even when its tombstone is gone. A process that ends takes
// its requests along, so nothing is lost with its memory.
type loads struct {
	mu      sync.Mutex
	byToken map[string][]load
	n       int
	sweepAt int
}

type load struct {
	done    <-chan struct{} // closed when the request ends
	session pgsession.Session
}

// leastSweep is how many loads are kept before the first look for those of requests that have ended.
const leastSweep = 64

// add remembers the session that a request loaded or wrote last under a token. A context that never ends
// is not remembered, since it would be for good.
func (l *loads) add(ctx context.Context, token string, session pgsession.Session) {
	done := ctx.Done()
	if done == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, known := range l.byToken[token] {
		if known.done == done {
			l.byToken[token][i].session = session
			return
		}
	}
	if l.n >= max(l.sweepAt, leastSweep) {
		l.sweep()
		l.sweepAt = 2 * l.n // so that an add costs the same, however many there are
	}
	if l.byToken == nil {
		l.byToken = make(map[string][]load)
	}
	l.byToken[token] = append(l.byToken[token], load{done, session})
	l.n++
}

// find returns what this request loaded under a token. Otherwise, if another request loaded it, it
// returns that, and own is false: so with a context that was given a deadline of its own.
func (l *loads) find(ctx context.Context, token string) (session pgsession.Session, own, ok bool) {
	done := ctx.Done()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, known := range l.byToken[token] {
		if known.done == done {
			return known.session, true, true
		}
		session, ok = known.session, true
	}
	return session, false, ok
}

// sweep forgets the requests that have ended.
func (l *loads) sweep() {
	l.n = 0
	for token, known := range l.byToken {
		kept := make([]load, 0, len(known))
		for _, load := range known {
			select {
			case <-load.done:
			default:
				kept = append(kept, load)
			}
		}
		if len(kept) == 0 {
			delete(l.byToken, token)
			continue
		}
		l.byToken[token] = kept
		l.n += len(kept)
	}
}
