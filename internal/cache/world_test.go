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
	offGone
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
	offGone:         "what has begun when a fresh read finds none is dead",
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
	foundGone [instances]map[int]endedAt // the same, by a fresh read
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
		w.foundGone[i] = make(map[int]endedAt)
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
	case p < 79:
		w.vanish(i, key)
	case p < 80:
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
