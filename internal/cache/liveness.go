package cache

import (
	"math"
	"slices"
	"time"
)

// liveUntil is when liveness ends unless it is renewed, by both clocks: the monotonic one may stand
// still while the machine sleeps, and the wall clock may be set back.
type liveUntil Instant

// never is not live.
var never = liveUntil{math.MinInt64, math.MinInt64}

func (l *liveUntil) covers(now Instant) bool { return now.Mono < l.Mono && now.Wall < l.Wall }

// Listener is one connection that hears notifications, together with the ones that replace it. The
// cache is live while all its listeners are.
type Listener[V any] struct {
	cache *Cache[V] // whose mu guards the rest

	connection uint64 // counts Listening and Lost
	server     string // that it hears, or last heard
	until      liveUntil
	sent       map[string]Instant // B: nonce -> when the beat that returned it was sent
	heard      []string           // nonces, newest last: a beat's answer may come after its nonce
}

// heardNonces is how many nonces are kept. One is published a second.
const heardNonces = 8

// NewListener adds a listener, not live.
func (c *Cache[V]) NewListener() *Listener[V] {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &Listener[V]{cache: c, until: never, sent: make(map[string]Instant)}
	c.listeners = append(c.listeners, l)
	c.recomputeLive()
	return l
}

// Listening is to be called when LISTEN has taken effect, with the identity of the server, before
// any notification is handed over. What was committed before it took effect was not heard, so an
// epoch begins: the second of a reconnect.
func (l *Listener[V]) Listening(server string) {
	c := l.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	l.server = server
	l.forgetBeats()
	if !c.without(ruleSecondEpoch) {
		c.newEpoch()
	}
	c.recomputeLive()
}

// Lost is to be called when the connection has ended, or is taken to have.
func (l *Listener[V]) Lost() {
	c := l.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	l.forgetBeats()
	if c.cfg.WhenNotLive != ServeUntilMaxAge {
		c.newEpoch()
	}
	c.recomputeLive()
}

// forgetBeats ends what was proved by the connection.
func (l *Listener[V]) forgetBeats() {
	l.connection++
	l.until = never
	clear(l.sent)
	l.heard = l.heard[:0]
}

// Beat is one call of the server's beat function.
type Beat[V any] struct {
	listener   *Listener[V]
	connection uint64
	sent       Instant
}

// Beat is to be called before the beat function is: hearing its nonce proves that what had been
// published by then was heard.
func (l *Listener[V]) Beat() Beat[V] {
	c := l.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	return Beat[V]{listener: l, connection: l.connection, sent: c.observe()}
}

// Answered takes the nonce that the beat function returned. A beat that was sent for an earlier
// connection proves nothing of this one.
func (b Beat[V]) Answered(nonce string) {
	l, c := b.listener, b.listener.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.connection != l.connection {
		return
	}
	now := c.observe()
	for old, sent := range l.sent {
		if until := c.untilOf(sent); !until.covers(now) {
			delete(l.sent, old)
		}
	}
	// Of two beats that returned one nonce the later proves more: it was not published even then.
	if earlier, ok := l.sent[nonce]; !ok || earlier.Mono <= b.sent.Mono {
		l.sent[nonce] = b.sent
	}
	if slices.Contains(l.heard, nonce) {
		l.prove(nonce)
	}
}

// HeardBeat is to be called with each nonce heard, in the order of all notifications.
func (l *Listener[V]) HeardBeat(nonce string) {
	l.cache.mu.Lock()
	defer l.cache.mu.Unlock()
	if _, asked := l.sent[nonce]; asked {
		l.prove(nonce)
	}
	// Another beat's answer with this nonce may still be on its way on the other connection.
	if len(l.heard) == heardNonces {
		l.heard = slices.Delete(l.heard, 0, 1)
	}
	l.heard = append(l.heard, nonce)
}

// prove extends liveness by a nonce that was asked for and heard, from when its beat was sent: a
// listener that stood still hears old nonces late.
func (l *Listener[V]) prove(nonce string) {
	c := l.cache
	sent := l.sent[nonce]
	if c.without(ruleSendingTime) {
		sent = c.clock.Now()
	}
	until := c.untilOf(sent)
	l.until = liveUntil{max(l.until.Mono, until.Mono), max(l.until.Wall, until.Wall)}
	c.recomputeLive()
}

func (c *Cache[V]) untilOf(sent Instant) liveUntil {
	return liveUntil{after(sent.Mono, c.cfg.Liveness), after(sent.Wall, c.cfg.Liveness)}
}

// recomputeLive: all listeners must be live. The caller holds mu.
func (c *Cache[V]) recomputeLive() {
	if len(c.listeners) == 0 {
		c.live.Store(&never)
		return
	}
	until := liveUntil{math.MaxInt64, math.MaxInt64}
	for _, l := range c.listeners {
		until.Mono = min(until.Mono, l.until.Mono)
		until.Wall = min(until.Wall, l.until.Wall)
	}
	c.live.Store(&until)
}

// hears reports whether a listener hears this server. The caller holds mu.
func (c *Cache[V]) hears(server string) bool {
	return server != "" &&
		slices.ContainsFunc(c.listeners, func(l *Listener[V]) bool { return l.server == server })
}

// gap is what a listener's gap is to all of them. The caller holds mu.
func (c *Cache[V]) gap() {
	c.newEpoch()
	for _, l := range c.listeners {
		l.until = never
	}
	c.recomputeLive()
}

// Live reports whether notifications are proved to reach this process, and for how long that holds
// without another proof.
func (c *Cache[V]) Live() (left time.Duration, live bool) {
	until, now := c.live.Load(), c.clock.Now()
	if !until.covers(now) {
		return 0, false
	}
	return time.Duration(until.Mono - now.Mono), true
}
