package main

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// The traffic of a day, for each 1,000 users who hold a session:
//
//	who           sessions a day   what they do                          why
//	users         some 350         two visits a day, at random           a site that people come back to daily; by
//	                               times, of eight requests with a       chance one in seven gaps is beyond the idle
//	                               minute or so between two              timeout of 24 hours, so sessions expire too
//	  log in      some 350         anonymous session, a request, new     when the last session expired or was logged
//	                               session, end of the anonymous one     out: a new token at a login
//	  update      1,600 times      one request in ten changes the data   a basket, a form, a flash message
//	  log out     200 times        one visit in ten ends so              most people never log out
//	visitors      300              an anonymous session of five          come once; their sessions expire a day later
//	                               requests, of which one updates
//	bots          500              create a session, never come back     the rot of all tables of sessions: they keep
//	                                                                     no cookie
//
// A request reads its session and then touches it, as a middleware does. Users and visitors come by
// day: four times as many at the busiest hour as at the quietest. Bots come at any time.
const (
	visitsPerDay    = 2.0
	visitRequests   = 8
	requestGap      = time.Minute
	updateShare     = 0.1
	logoutShare     = 0.1
	visitorsPerUser = 0.3
	visitorRequests = 5
	botsPerUser     = 0.5
	idleTimeout     = 24 * time.Hour
	absoluteTimeout = 30 * 24 * time.Hour
	prehistory      = 3 * 24 * time.Hour // played without being executed, for who is there at the start
)

type deed uint8

const (
	create deed = iota
	request
	update
	login // create session, destroy from
	destroy
)

// event is what one client does at a time of the day that counts from the replay's start.
type event struct {
	at            time.Duration
	deed          deed
	revision      uint16 // of the data
	session, from int32
}

// standing is a session that is there when the replay begins; its times are negative.
type standing client

// mix is the traffic of some days: what each client does, in order.
type mix struct {
	workers  [][]event
	standing []standing
	sessions int32
}

// newMix deals the same traffic for the same seed, to a number of workers. A session's events are all
// one worker's.
func newMix(seed uint64, users, days, workers int) *mix {
	m := &mix{workers: make([][]event, workers)}
	d := dealer{mix: m, random: rand.New(rand.NewPCG(seed, 0)), end: time.Duration(days) * 24 * time.Hour}
	for u := range users {
		d.worker = u % workers
		d.user()
	}
	in := func(share float64) int { return int(share * float64(users) * (d.end + prehistory).Hours() / 24) }
	for n := range in(visitorsPerUser) {
		d.worker = n % workers
		d.visitor()
	}
	for n := range in(botsPerUser) {
		d.worker = n % workers
		d.leave(d.create(d.anyTime()))
	}
	for _, events := range m.workers {
		slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	}
	slices.SortFunc(m.standing, func(a, b standing) int { return cmp.Compare(a.created, b.created) })
	return m
}

type dealer struct {
	*mix
	random *rand.Rand
	end    time.Duration
	worker int
}

// client is a client's session, as the deal goes on.
type client struct {
	session           int32
	revision          uint16
	created, lastUsed time.Duration
}

func (d *dealer) user() {
	visits := make([]time.Duration, int(visitsPerDay*(d.end+prehistory).Hours()/24+0.5))
	for i := range visits {
		visits[i] = d.byDay()
	}
	slices.Sort(visits)
	var c *client
	now := -prehistory
	for _, visit := range visits {
		now = max(now, visit)
		// Who comes back in the last moment finds the session expired or not; here it has.
		if c != nil && now > c.lastUsed+idleTimeout*9/10 {
			d.leave(c)
			c = nil
		}
		if c == nil {
			c = d.create(now)
			d.do(c, event{at: now + d.gap(), deed: request})
			c = d.login(c, c.lastUsed+d.gap())
		}
		now = d.requests(c, max(now, c.lastUsed), visitRequests, updateShare)
		if d.random.Float64() < logoutShare {
			now += d.gap()
			d.do(c, event{at: now, deed: destroy})
			c = nil
		}
	}
	if c != nil {
		d.leave(c)
	}
}

func (d *dealer) visitor() {
	now := d.byDay()
	c := d.create(now)
	d.requests(c, now, visitorRequests, 1.0/visitorRequests)
	d.leave(c)
}

// requests deals a visit, and returns when it ends.
func (d *dealer) requests(c *client, now time.Duration, n int, updates float64) time.Duration {
	for range n {
		now += d.gap()
		d.do(c, event{at: now, deed: request})
		if d.random.Float64() < updates {
			c.revision++
			d.do(c, event{at: now, deed: update})
		}
	}
	return now
}

func (d *dealer) create(at time.Duration) *client {
	c := &client{session: d.sessions, created: at, lastUsed: at}
	d.sessions++
	d.do(c, event{at: at, deed: create})
	return c
}

func (d *dealer) login(anonymous *client, at time.Duration) *client {
	c := &client{session: d.sessions, created: at, lastUsed: at}
	d.sessions++
	d.leaveBefore(anonymous, at)
	d.do(c, event{at: at, deed: login, from: anonymous.session})
	return c
}

// do notes an event of the days that are replayed.
func (d *dealer) do(c *client, e event) {
	d.leaveBefore(c, e.at)
	e.session, e.revision = c.session, c.revision
	c.lastUsed = e.at
	if e.at >= 0 && e.at < d.end {
		d.workers[d.worker] = append(d.workers[d.worker], e)
	}
}

// leaveBefore is called before an event: was the session used before the start, and not since?
func (d *dealer) leaveBefore(c *client, next time.Duration) {
	if next >= 0 {
		d.leave(c)
	}
}

// leave notes a session that is alive at the start and was last used before it.
func (d *dealer) leave(c *client) {
	if c.lastUsed < 0 && c.lastUsed+idleTimeout > 0 {
		d.standing = append(d.standing, standing(*c))
		c.lastUsed = 0 // once
	}
}

func (d *dealer) anyTime() time.Duration {
	return time.Duration(d.random.Float64()*float64(d.end+prehistory)) - prehistory
}

// byDay is a random time, four times as often at 15:00 as at 03:00.
func (d *dealer) byDay() time.Duration {
	for {
		at := d.anyTime()
		if d.random.Float64()*1.6 < 1-0.6*math.Cos(2*math.Pi*(at.Hours()-3)/24) {
			return at
		}
	}
}

func (d *dealer) gap() time.Duration {
	return time.Duration(d.random.ExpFloat64() * float64(requestGap))
}

// document is JSON of dataSize bytes, of which half is digests: the same for the same arguments.
func document(session int32, revision uint16) []byte {
	random := rand.New(rand.NewPCG(uint64(session), uint64(revision)))
	digest := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return hex.EncodeToString(b)
	}
	b := fmt.Appendf(nil, `{"user":{"id":%d,"name":"%s","roles":["member"]},"csrf":"%s",`+
		`"cart":[{"sku":"%s","n":1},{"sku":"%s","n":2}],"flash":"","locale":"en","last":"%s","padding":"`,
		session, digest(16), digest(32), digest(16), digest(16), digest(16))
	for len(b) < dataSize-2 {
		b = append(b, ' ')
	}
	return append(b, '"', '}')
}
