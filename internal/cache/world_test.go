package cache_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// The world is a model of PostgreSQL, of the wire, and of the processes that use both. Everything
// happens in steps, in an order drawn from a seed; between any two steps anything else may happen.
// Time is in ticks.
const (
	instances     = 3
	liveTicks     = 60
	maxAgeTicks   = 400
	beatTicks     = 20
	idleTicks     = 600
	graceTicks    = 120
	tombstoneTick = 450
	maxIDs        = 14
)

// switches are what can be left out of the protocol: the rows of the table in the package comment.
type switches uint32

const (
	offLoadFloor switches = 1 << iota
	offWritesBegun
	offRaiseOnReply
	offJoinRule
	offUnknown
	offTxFence
	offLoadEpoch
	offSecondEpoch
	offSubjectFloor
	offRevokedIDs
	offSubjectInTx
	offViaRenewed
	offSendingTime
	offFenceVersion
	offLate
	offEnded
)

var switchNames = map[switches]string{
	offLoadFloor:    "floor and dead on loads",
	offWritesBegun:  "writes are begun like loads",
	offRaiseOnReply: "raise on the reply",
	offJoinRule:     "the join rule",
	offUnknown:      "publish unknown under the lock",
	offTxFence:      "txFence",
	offLoadEpoch:    "the epoch of a load's beginning",
	offSecondEpoch:  "the second epoch of a reconnect",
	offSubjectFloor: "subjectFloor",
	offRevokedIDs:   "revoke returns the ids it ended",
	offSubjectInTx:  "a change of subject notifies in its transaction",
	offViaRenewed:   "nothing reached through renewed_to is stored",
	offSendingTime:  "the sending time of a beat",
	offFenceVersion: "a fence is lifted by its own version",
	offLate:         "what a flight brought may not be for who joined late",
	offEnded:        "ended ids are remembered",
}

// value is what a session is to the world: which row, at which version.
type value struct {
	row, version int
	replica      bool // a lagging replica said so
}

// answer is a reply, as the wire carries it.
type answer struct {
	alive, viaRenewed, cacheable bool
	version, subject, remaining  int
	value                        value
}

// node is the cache of one process, the model's or the real one.
type node interface {
	get(key int, done func(v value, alive bool))
	begin(key int, write bool) operation
	inDoubt(key int)
	ended(sessions []version)
	revoked(subject int)
	cleared()
	beginTx(key int) transaction
	endedInTx(sessions []version)
	heard(key, version int)
	heardUnknown(key int)
	heardSubject(subject int)
	heardClear()
	listening()
	lost()
	beat() (answered func(nonce int))
	heardBeat(nonce int)
	settle() // returns when nothing more happens by itself
	close()
}

type operation interface {
	read(answer) (alive bool)
	wrote(answer)
	touched(answer)
	inDoubt()
	end()
}

type transaction interface {
	wrote(version int)
	wroteNothing()
}

type version struct{ key, version int }

type endedAt struct{ version, at, moment int }

// row is one of the table.
type row struct {
	alive     bool
	version   int
	subject   int
	expires   int
	ended     int // when it became a tombstone
	renewedTo int // -1: none
	renewedAs int // the subject at the renewal
}

// commit is one, with what became known of it.
type commit struct {
	at        int
	keys      []int          // of the rows that it wrote
	published int            // -1: not yet
	heard     [instances]int // at which moment; 0: not yet
	returned  [instances]int // to the caller, by this process
}

// change is what a reader of a key would see from a commit on.
type change struct {
	alive  bool
	value  value
	commit *commit
}

type noticeKind int

const (
	noticeVersion noticeKind = iota
	noticeUnknown
	noticeSubject
	noticeClear
	noticeBeat
)

// notice is a notification in the queue.
type notice struct {
	kind         noticeKind
	key, version int
	commits      []*commit
}

func (n notice) String() string {
	switch n.kind {
	case noticeVersion:
		return fmt.Sprintf("of %d, version %d", n.key, n.version)
	case noticeUnknown:
		return fmt.Sprintf("of %d, version unknown", n.key)
	case noticeSubject:
		return fmt.Sprintf("of the revoke of subject %d", n.key)
	case noticeClear:
		return "of a clear"
	default:
		return fmt.Sprintf("nonce %d", n.key)
	}
}

// listener is a process's connection, as the server and the wire see it.
type listener struct {
	next      int // in the queue
	listening bool
	broken    bool // nothing arrives any more, which nobody has noticed
	frozen    int  // until when it reads nothing
	nextBeat  int
}

type step struct {
	ready func() bool // nil: always
	run   func()
}

type world struct {
	random    *rand.Rand
	off       switches
	serve     bool // while not live, until MaxAge
	now       int
	moment    int // counts what happens; many things happen in one tick
	nodes     [instances]node
	listeners [instances]listener
	rows      map[int]*row
	replica   map[int]row
	locks     map[int]bool
	history   map[int][]change
	selfEnded [instances]map[int]endedAt // by key
	queue     []notice
	nonce     int
	beatAt    int
	steps     []step
	ids       int
	log       []string
	verbose   bool
	hits      int
	reads     int
	violation string
}

func newWorld(seed uint64, off switches) *world {
	w := &world{
		random: rand.New(rand.NewPCG(seed, 0)), off: off, serve: seed%8 == 7, now: 1000, moment: 1, rows: make(map[int]*row),
		locks: make(map[int]bool), history: make(map[int][]change), ids: 3,
	}
	for i := range w.selfEnded {
		w.selfEnded[i] = make(map[int]endedAt)
	}
	return w
}

// logf notes what happens. It costs too much to be done always: a violation is replayed with it.
func (w *world) logf(format string, args ...any) {
	if w.verbose {
		w.log = append(w.log, fmt.Sprintf("%6d  ", w.now)+fmt.Sprintf(format, args...))
	}
}

func (w *world) chance(percent int) bool { return w.random.IntN(100) < percent }
func (w *world) instance() int           { return w.random.IntN(instances) }
func (w *world) subject() int            { return w.random.IntN(3) } // 0: nobody

// id is a session's: mostly one that lives, if one is found at once.
func (w *world) id() (key int) {
	for range 4 {
		key = w.random.IntN(w.ids)
		if r := w.rows[key]; r != nil && r.alive || w.chance(20) {
			break
		}
	}
	return key
}

func (w *world) later(run func()) { w.steps = append(w.steps, step{run: run}) }

func (w *world) when(ready func() bool, run func()) {
	w.steps = append(w.steps, step{ready, run})
}

// run lets things happen until something has gone wrong, or n steps have been taken.
func (w *world) run(n int) {
	for i := range w.nodes {
		w.listeners[i].next = len(w.queue)
		w.listeners[i].listening = true
		w.nodes[i].listening()
	}
	for range n {
		if w.violation != "" {
			return
		}
		w.moment++
		if w.chance(25) {
			w.now++
		}
		if w.random.IntN(300) == 0 {
			w.now += w.random.IntN(2 * liveTicks)
		}
		for i := range w.nodes {
			if l := &w.listeners[i]; w.now >= l.nextBeat {
				l.nextBeat = w.now + beatTicks
				w.beat(i)
			}
		}
		switch p := w.random.IntN(100); {
		case p < 60 && len(w.steps) > 0:
			w.step()
		case p < 77:
			w.deliver(w.instance())
		case p < 94:
			w.get(w.instance(), w.id())
		case p < 99:
			w.write()
		default:
			w.fault(w.instance())
		}
		for i := range w.nodes {
			w.nodes[i].settle()
		}
	}
}

func (w *world) step() {
	i := w.random.IntN(len(w.steps))
	s := w.steps[i]
	if s.ready != nil && !s.ready() {
		return
	}
	w.steps = slices.Delete(w.steps, i, i+1)
	s.run()
}

// write begins an operation that changes something, or one that reads past the cache.
func (w *world) write() {
	i, key := w.instance(), w.id()
	switch p := w.random.IntN(100); {
	case p < 40:
		w.set(i, key)
	case p < 50:
		w.touch(i, key)
	case p < 58:
		w.fresh(i, key)
	case p < 62:
		w.destroy(i, key)
	case p < 70:
		w.renew(i, key)
	case p < 75:
		w.revoke(i, 1+w.random.IntN(2))
	case p < 76:
		w.clear(i)
	case p < 77:
		w.replica = make(map[int]row)
		for key, r := range w.rows {
			w.replica[key] = *r
		}
	default:
		w.inTransaction(i, key)
	}
}

// notify appends to the queue, as a commit does.
func (w *world) notify(kind noticeKind, key, version int, commits ...*commit) {
	w.queue = append(w.queue, notice{kind, key, version, commits})
	for _, c := range commits {
		if c.published < 0 {
			c.published = w.now
		}
	}
}

// see is what reading a key gives, at the primary.
func (w *world) see(key int) (r row, v value, via, alive bool) {
	one := w.rows[key]
	if one == nil {
		return row{}, value{}, false, false
	}
	if !one.alive && one.renewedTo >= 0 && w.now < one.ended+graceTicks {
		to := w.rows[one.renewedTo]
		if to != nil && to.alive && to.subject == one.renewedAs && w.now < to.expires {
			return *to, value{row: one.renewedTo, version: to.version}, true, true
		}
	}
	return *one, value{row: key, version: one.version}, false, one.alive && w.now < one.expires
}

// read is what the get function answers.
func (w *world) read(key int, replica bool) answer {
	if replica {
		r, ok := w.replica[key]
		return answer{
			alive: ok && r.alive && w.now < r.expires, version: r.version, subject: r.subject,
			remaining: r.expires - w.now, value: value{key, r.version, true},
		}
	}
	r, v, via, alive := w.see(key)
	return answer{
		alive: alive, viaRenewed: via, cacheable: true, version: r.version, subject: r.subject,
		remaining: r.expires - w.now, value: v,
	}
}

// committed notes a commit and what it changed for readers of these keys, and of those that were
// renewed to them.
func (w *world) committed(keys ...int) *commit {
	c := &commit{at: w.now, keys: keys, published: -1}
	for key := range w.ids {
		if r := w.rows[key]; !slices.Contains(keys, key) && (r == nil || !slices.Contains(keys, r.renewedTo)) {
			continue
		}
		_, v, _, alive := w.see(key)
		h := w.history[key]
		switch {
		case len(h) > 0 && h[len(h)-1].alive == alive && (h[len(h)-1].value == v || !alive):
		case len(h) == 0 && !alive:
		default:
			w.history[key] = append(h, change{alive, v, c})
		}
	}
	w.logf("        committed %v", keys)
	return c
}

// get is a read through a cache.
func (w *world) get(i, key int) {
	start, moment, inside := w.now, w.moment, true
	w.reads++
	w.nodes[i].get(key, func(v value, alive bool) {
		w.logf("%d reads %d: %+v %v (from %d)", i, key, v, alive, start)
		if inside && alive {
			w.hits++
		}
		w.check(i, key, start, moment, v, alive)
	})
	inside = false
}

func before(happened, moment int) bool { return happened > 0 && happened < moment }

// check is the guarantee.
func (w *world) check(i, key, start, moment int, v value, alive bool) {
	fail := func(format string, args ...any) {
		if w.violation == "" {
			w.violation = fmt.Sprintf("instance %d read %d from %d to %d as %+v: ", i, key, start, w.now, v) +
				fmt.Sprintf(format, args...)
		}
	}
	h := w.history[key]
	if !alive {
		if n := len(h); n > 0 && h[n-1].alive && w.replica == nil && w.now < w.rows[h[n-1].value.row].expires &&
			h[n-1].value.row == key && before(h[n-1].commit.returned[i], moment) {
			fail("it lives, and was not found")
		}
		return
	}
	if e, ok := w.selfEnded[i][v.row]; ok && e.moment < moment && w.now < e.at+maxAgeTicks && v.version <= e.version {
		fail("this process had ended it")
	}
	if v.replica {
		return // a reader of a replica sees what it shows
	}
	at := -1
	for j := range h {
		if h[j].alive && h[j].value == v {
			at = j
		}
	}
	if at < 0 {
		fail("there was no such version")
		return
	}
	for _, later := range h[at+1:] {
		c := later.commit
		switch {
		case before(c.heard[i], moment):
			fail("what replaced it (%+v, committed at %d) had been heard", later.value, c.at)
		case before(c.returned[i], moment) && slices.Contains(c.keys, v.row):
			fail("what replaced it (%+v, committed at %d) had been returned by this process", later.value, c.at)
		case c.published >= 0 && start-c.published > liveTicks && !w.serve:
			fail("what replaced it (%+v) was published at %d", later.value, c.published)
		case start-c.at > maxAgeTicks:
			fail("what replaced it (%+v) was committed at %d", later.value, c.at)
		}
	}
	if r := w.rows[v.row]; r.alive && r.version == v.version && r.expires <= start {
		fail("it expired at %d", r.expires)
	}
}

// load is what a cache's load does: the statement, then its reply.
func (w *world) load(i, key int, deliver func(answer)) {
	replica := w.replica != nil && w.chance(5)
	w.logf("%d sends a load of %d", i, key)
	w.later(func() {
		a := w.read(key, replica)
		w.logf("%d's load of %d is answered %+v", i, key, a)
		w.later(func() {
			w.logf("%d's load of %d arrives", i, key)
			deliver(a)
		})
	})
}

// deliver hands over the next notification.
func (w *world) deliver(i int) {
	l, n := &w.listeners[i], w.nodes[i]
	if !l.listening || l.broken || w.now < l.frozen || l.next == len(w.queue) {
		return
	}
	one := w.queue[l.next]
	l.next++
	w.logf("%d hears %v", i, one)
	switch one.kind {
	case noticeVersion:
		n.heard(one.key, one.version)
	case noticeUnknown:
		n.heardUnknown(one.key)
	case noticeSubject:
		n.heardSubject(one.key)
	case noticeClear:
		n.heardClear()
	case noticeBeat:
		n.heardBeat(one.key)
	}
	for _, c := range one.commits {
		c.heard[i] = w.moment
	}
}

// beat is the shared beat of the store.
func (w *world) beat(i int) {
	answered := w.nodes[i].beat()
	w.later(func() {
		if w.now >= w.beatAt+beatTicks {
			w.beatAt = w.now
			w.notify(noticeBeat, w.nonce, 0)
			w.nonce++
		}
		if nonce := w.nonce; !w.chance(5) {
			w.later(func() { answered(nonce) })
		}
	})
}

// fault is something that happens to a listener.
func (w *world) fault(i int) {
	l := &w.listeners[i]
	switch w.random.IntN(10) {
	case 0, 1:
		l.frozen = w.now + w.random.IntN(3*liveTicks)
		w.logf("%d's listener freezes until %d", i, l.frozen)
	case 2:
		w.notify(noticeClear, 0, 0) // malformed
	default:
		if l.broken || !l.listening {
			return
		}
		l.broken = true
		w.logf("%d's listener breaks", i)
		w.later(func() {
			l.listening = false
			w.logf("%d notices", i)
			w.nodes[i].lost()
			w.later(func() {
				l.next = len(w.queue)
				w.logf("%d's LISTEN takes effect", i)
				w.later(func() {
					l.listening, l.broken = true, false
					w.logf("%d is listening", i)
					w.nodes[i].listening()
				})
			})
		})
	}
}

func (w *world) String() string { return strings.Join(w.log, "\n") + "\n" + w.violation }
