package cache_test

// rules is the protocol as its table of rules says it, for one process, without a thought for speed
// or for goroutines: what the real cache is compared with.
type rules struct {
	w        *world
	i        int
	epoch    int
	seq      int
	live     int
	sent     map[int]int
	entries  map[int]*ruleEntry
	pending  map[int]*rulePending
	flights  map[int]*ruleFlight
	queued   map[int]*ruleFlight
	floors   map[int]int
	fences   map[int]*ruleFence
	endedIDs map[int]endedAt
}

type ruleEntry struct {
	value                                         value
	version, subject, seq, epoch, began, deadline int
}

type rulePending struct{ count, floor, dead int }

type ruleFlight struct {
	op      *ruleOp
	fenced  bool
	waiters []func(value, bool)
	late    []func(value, bool) // joined after it had begun
}

type ruleFence struct{ until, awaited, wrote int }

type ruleOp struct {
	*rules
	key, seq, epoch, began int
	write                  bool
}

func newRules(w *world, i int) node {
	return &rules{
		w: w, i: i, sent: make(map[int]int), entries: make(map[int]*ruleEntry),
		pending: make(map[int]*rulePending), flights: make(map[int]*ruleFlight),
		queued: make(map[int]*ruleFlight), floors: make(map[int]int), fences: make(map[int]*ruleFence),
		endedIDs: make(map[int]endedAt),
	}
}

func (n *rules) without(s switches) bool { return n.w.off&s != 0 }

func (n *rules) fenced(key int) bool {
	f := n.fences[key]
	return f != nil && n.w.now < f.until
}

func (n *rules) valid(key int) *ruleEntry {
	e, now := n.entries[key], n.w.now
	if e == nil || e.epoch != n.epoch || now >= n.live && !n.w.serve || now >= e.began+maxAgeTicks || now >= e.deadline ||
		n.fenced(key) || e.subject != 0 && e.seq <= n.floors[e.subject] {
		return nil
	}
	return e
}

func (n *rules) get(key int, done func(value, bool)) { n.load(key, done, true) }

func (n *rules) load(key int, done func(value, bool), mayJoin bool) {
	if e := n.valid(key); e != nil {
		done(e.value, true)
		return
	}
	f := n.flights[key]
	if f != nil && mayJoin && n.joinable(key, f) {
		f.late = append(f.late, done)
		return
	}
	if q := n.queued[key]; q != nil {
		q.waiters = append(q.waiters, done)
		return
	}
	q := &ruleFlight{waiters: []func(value, bool){done}}
	if f != nil {
		n.queued[key] = q
		return
	}
	n.fly(key, q)
}

func (n *rules) joinable(key int, f *ruleFlight) bool {
	if n.without(offJoinRule) {
		return true
	}
	for _, floor := range n.floors {
		if f.op.seq <= floor {
			return false
		}
	}
	return f.op.epoch == n.epoch && !f.fenced && n.w.now < f.op.began+liveTicks && (n.w.now < n.live || n.w.serve) && !n.fenced(key)
}

func (n *rules) fly(key int, f *ruleFlight) {
	n.flights[key] = f
	f.op = n.start(key, false)
	n.w.load(n.i, key, func(a answer) {
		alive := f.op.read(a)
		f.op.end()
		delete(n.flights, key)
		if q := n.queued[key]; q != nil {
			delete(n.queued, key)
			n.fly(key, q)
		}
		for _, done := range f.waiters {
			done(a.value, alive)
		}
		for _, done := range f.late {
			if !n.without(offLate) && (!alive || a.viaRenewed || n.w.now >= f.op.began+a.remaining) {
				n.load(key, done, false)
			} else {
				done(a.value, alive)
			}
		}
	})
}

func (n *rules) start(key int, write bool) *ruleOp {
	n.seq++
	if n.pending[key] == nil {
		n.pending[key] = new(rulePending)
	}
	n.pending[key].count++
	return &ruleOp{n, key, n.seq, n.epoch, n.w.now, write}
}

func (n *rules) begin(key int, write bool) operation { return n.start(key, write) }

func (op *ruleOp) end() {
	p := op.pending[op.key]
	if p.count--; p.count == 0 {
		delete(op.pending, op.key)
	}
}

func (op *ruleOp) read(a answer) bool {
	e := op.endedIDs[a.value.row]
	if a.alive && !op.without(offEnded) && a.version <= e.version && op.w.now < e.at+maxAgeTicks {
		a.alive = false
	}
	op.fill(a)
	if !a.alive && !op.without(offGone) {
		op.kill(op.key)
	}
	return a.alive
}

func (op *ruleOp) fill(a answer) {
	seq, epoch, p := op.seq, op.epoch, op.pending[op.key]
	if op.without(offLoadEpoch) {
		epoch = op.rules.epoch
	}
	floor, dead := p.floor, p.dead
	if op.write && op.without(offWritesBegun) || !op.write && op.without(offLoadFloor) {
		floor, dead = 0, 0
	}
	old := op.entries[op.key]
	switch {
	case !a.alive:
		delete(op.entries, op.key)
	case a.viaRenewed && !op.without(offViaRenewed):
	case !a.cacheable, epoch != op.rules.epoch, op.fenced(op.key), a.version < floor, seq <= dead:
	case a.subject != 0 && seq <= op.floors[a.subject]:
	case old != nil && old.epoch == epoch && a.version < old.version:
	default:
		op.entries[op.key] = &ruleEntry{a.value, a.version, a.subject, seq, epoch, op.began, op.began + a.remaining}
	}
}

func (op *ruleOp) wrote(a answer) {
	op.fill(a)
	if !op.without(offRaiseOnReply) {
		op.raise(op.key, a.version)
	}
}

func (op *ruleOp) touched(a answer) {
	if e := op.entries[op.key]; a.alive && e != nil && e.version == a.version {
		a.value, a.subject = e.value, e.subject
		op.fill(a)
	} else {
		op.raise(op.key, a.version)
	}
}

func (op *ruleOp) inDoubt() { op.kill(op.key) }

func (n *rules) raise(key, version int) {
	if p := n.pending[key]; p != nil {
		p.floor = max(p.floor, version)
	}
	n.fenceFlight(key)
	if e := n.entries[key]; e != nil && e.version < version {
		delete(n.entries, key)
	}
}

func (n *rules) kill(key int) {
	delete(n.entries, key)
	if p := n.pending[key]; p != nil {
		p.dead = n.seq
	}
	n.fenceFlight(key)
}

func (n *rules) fenceFlight(key int) {
	if f := n.flights[key]; f != nil {
		f.fenced = true
	}
}

func (n *rules) inDoubt(key int) { n.kill(key) }

func (n *rules) ended(sessions []version) {
	for _, s := range sessions {
		n.raise(s.key, s.version)
		n.endedIDs[s.key] = endedAt{version: s.version, at: n.w.now}
	}
}

func (n *rules) revoked(subject int) {
	if !n.without(offSubjectFloor) {
		n.floors[subject] = n.seq
	}
}

func (n *rules) cleared() { n.epoch++ }

type ruleTx struct {
	n   *rules
	key int
}

func (n *rules) fence(key int) *ruleFence {
	f := n.fences[key]
	if f == nil || n.w.now >= f.until {
		f = new(ruleFence)
		if !n.without(offTxFence) {
			n.fences[key] = f
		}
	}
	f.until = n.w.now + maxAgeTicks
	return f
}

func (n *rules) beginTx(key int) transaction {
	n.fence(key).awaited++
	return ruleTx{n, key}
}

func (t ruleTx) wrote(version int) {
	if f := t.n.fences[t.key]; f != nil {
		f.awaited = max(0, f.awaited-1)
		f.wrote = max(f.wrote, version)
	}
}

func (t ruleTx) wroteNothing() {
	t.wrote(0)
	if f := t.n.fences[t.key]; f != nil && f.awaited == 0 && f.wrote == 0 {
		delete(t.n.fences, t.key)
	}
}

func (n *rules) endedInTx(sessions []version) {
	for _, s := range sessions {
		f := n.fence(s.key)
		f.wrote = max(f.wrote, s.version)
	}
}

func (n *rules) heard(key, version int) {
	n.raise(key, version)
	if f := n.fences[key]; f != nil && (f.awaited == 0 && version >= f.wrote || n.without(offFenceVersion)) {
		delete(n.fences, key)
	}
}

func (n *rules) heardUnknown(key int)     { n.kill(key) }
func (n *rules) heardSubject(subject int) { n.revoked(subject) }

func (n *rules) heardClear() {
	n.epoch++
	n.live = 0
}

func (n *rules) listening() {
	if !n.without(offSecondEpoch) {
		n.epoch++
	}
	n.live = 0
	clear(n.sent)
}

func (n *rules) lost() {
	if !n.w.serve {
		n.epoch++
	}
	n.live = 0
	clear(n.sent)
}

func (n *rules) beat() func(int) {
	sent := n.w.now
	return func(nonce int) { n.sent[nonce] = sent }
}

func (n *rules) heardBeat(nonce int) {
	sent, ok := n.sent[nonce]
	if n.without(offSendingTime) {
		sent = n.w.now
	}
	if ok {
		n.live = max(n.live, sent+liveTicks)
	}
}

func (n *rules) settle() {}
func (n *rules) close()  {}
