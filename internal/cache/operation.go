package cache

// pending is what operations in flight for one key must be told when they come back. A key without
// any has no record: whoever begins later sees what was committed before.
type pending struct {
	count int
	floor int64  // the lowest version still worth keeping
	dead  uint64 // nothing that began up to this one may be kept
}

// Op is an operation in flight: a load, a GetFresh or a write, of one key, outside transactions of
// the caller's. It is used by one goroutine. Exactly one End follows each Begin.
type Op[V any] struct {
	cache *Cache[V]
	key   Key
	seq   uint64
	t0    int64
}

// Begin is the rule of that name. Call it before the statement is sent: it counts the operation and
// remembers when it began, so that what is heard meanwhile is not undone by its reply.
func (c *Cache[V]) Begin(key Key) *Op[V] {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.begin(key)
}

func (c *Cache[V]) begin(key Key) *Op[V] {
	now := c.observe()
	c.seq++
	p := c.pending[key]
	p.count++
	c.pending[key] = p
	return &Op[V]{cache: c, key: key, seq: c.seq, t0: now.Mono}
}

// End undoes Begin.
func (op *Op[V]) End() {
	op.cache.mu.Lock()
	defer op.cache.mu.Unlock()
	op.end()
}

func (op *Op[V]) end() {
	c := op.cache
	if p := c.pending[op.key]; p.count > 1 {
		p.count--
		c.pending[op.key] = p
	} else {
		delete(c.pending, op.key)
	}
}

// Read takes the reply of a read that is not a load of the cache's own, as GetFresh is: fill. Where there
// is no such session, nothing that has begun is kept: who was told so does not find it again, in what the
// server had answered before it answered this, whichever began first.
//
// It reports whether there is such a session: one that this process has ended is none, even if a
// lagging replica still shows it.
func (op *Op[V]) Read(r Reply[V]) (alive bool) {
	c := op.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	alive, _ = c.take(op, &r)
	if !alive && !c.without(ruleGone) {
		c.kill(op.key)
	}
	return alive
}

// Wrote takes the reply of a write, before it is published: fill, then raise, so that no read that
// began before it brings back what it replaced.
func (op *Op[V]) Wrote(r Reply[V]) {
	c := op.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	c.take(op, &r)
	if !c.without(ruleRaiseOnReply) {
		c.raise(op.key, r.Version)
	}
}

// Touched takes the reply of a touch, whose Value, Size and Subject are ignored: the version has not
// changed, so what is cached of that version is as good as if it had been read again. Another
// version is raised. change, if not nil, is given the cached value and returns the one to keep, with
// the new deadline in it; it must not keep the cache waiting nor call it.
func (op *Op[V]) Touched(r Reply[V], change func(V) V) {
	c := op.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries.peek(op.key)
	switch {
	case !r.Alive:
		c.take(op, &r)
	case e != nil && e.version == r.Version:
		again := *e
		if change != nil {
			again.value = change(again.value)
		}
		c.fill(op, &r, &again)
	default:
		c.raise(op.key, r.Version)
	}
}

// InDoubt is the rule for no reply, of a write that was cancelled or whose connection was lost: it
// may have committed, or may yet. Whatever becomes of the request, publish (id, unknown) afterwards
// through the function that waits for the id's lock.
func (op *Op[V]) InDoubt() { op.cache.InDoubt(op.key) }

// InDoubt is [Op.InDoubt] for a statement that names several sessions. It may be called without Begin.
func (c *Cache[V]) InDoubt(keys ...Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range keys {
		c.kill(key)
	}
}

// Version is a session and one of its versions.
type Version struct {
	Key     Key
	Version int64
}

// maxRaises is how many keys are raised one by one; for more it is cheaper to begin an epoch.
const maxRaises = 1 << 14

// Ended takes what a destroy, renew or revoke says that it has ended, outside transactions of the
// caller's. This process answers "not found" for these versions from now on.
func (c *Cache[V]) Ended(sessions []Version) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.observe().Mono
	for _, s := range sessions {
		c.ended.add(s, now)
		if len(sessions) <= maxRaises {
			c.raise(s.Key, s.Version)
		}
	}
	if len(sessions) > maxRaises {
		c.newEpoch()
	}
}

// NotAlive takes sessions that a statement was to end and found ended, in transactions of the caller's
// too: whoever ended them has committed, and may not have been heard yet.
func (c *Cache[V]) NotAlive(keys ...Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(keys) > maxRaises {
		c.newEpoch()
		return
	}
	for _, key := range keys {
		c.kill(key)
	}
}

// Revoked is for the reply of a revoke by subject, beside [Cache.Ended], and for one without a reply.
func (c *Cache[V]) Revoked(subject Subject) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raiseSubject(subject)
}

// raiseSubject lifts a subject's floor. The caller holds mu.
func (c *Cache[V]) raiseSubject(subject Subject) {
	if !c.without(ruleSubjectFloor) {
		c.floors.raise(subject, c.seq)
	}
}

// Cleared is for the reply of a clear, and for one without a reply.
func (c *Cache[V]) Cleared() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.newEpoch()
}

// take is what every reply about one session's content goes through: it reports whether the session
// is alive, which one that this process ended is not, and keeps it where [Cache.fill] may.
func (c *Cache[V]) take(op *Op[V], r *Reply[V]) (alive bool, e *entry[V]) {
	now := c.observe().Mono
	key := op.key
	if r.viaRenewed() {
		key = r.RenewedTo
	}
	if r.Alive && c.ended.has(key, r.Version, now) && !c.without(ruleEnded) {
		c.counts.endedReplies++
		r.Alive = false
	}
	e = &entry[V]{value: r.Value, slot: slotOf(r.Subject)}
	if weight, ok := c.weigh(r.Size); ok {
		e.weight = weight
	}
	c.fill(op, r, e)
	return r.Alive, e
}

// fill is the rule of that name: it keeps an entry, or counts why not. The caller holds mu.
func (c *Cache[V]) fill(op *Op[V], r *Reply[V], e *entry[V]) {
	now := c.observe().Mono
	e.version = r.Version
	e.seq = op.seq
	if c.without(ruleEpoch) {
		e.seq = c.seq
	}
	e.ends = after(op.t0, r.Remaining)
	e.until = min(after(op.t0, c.cfg.MaxAge), e.ends)
	old := c.entries.peek(op.key)
	if why := c.refuses(op, r, e, old, now); why != kept {
		c.counts.refused[why]++
		if why == RefusedViaRenewed {
			// What is cached, or on its way, under a renewed token's own key is of before the renewal,
			// which may not have been heard yet.
			c.raise(op.key, r.Version)
		}
		// What is there may be known to be worthless all the same.
		gone := !r.Alive && old != nil && old.seq < op.seq
		newer := r.Alive && !r.viaRenewed() && old != nil && old.version < r.Version
		if gone || newer {
			c.drop(op.key)
		}
		return
	}
	c.entries.set(op.key, e)
}

// refuses says why a reply must not be kept, if so. The caller holds mu.
func (c *Cache[V]) refuses(op *Op[V], r *Reply[V], e, old *entry[V], now int64) Refusal {
	p := c.pending[op.key]
	switch {
	case !r.Alive:
		return RefusedNotAlive
	case r.viaRenewed() && !c.without(ruleViaRenewed):
		return RefusedViaRenewed
	case !r.Cacheable:
		return RefusedNotCacheable
	case !c.hears(r.Server):
		return RefusedServer
	case op.seq <= c.epoch.Load() && !c.without(ruleEpoch):
		return RefusedEpoch
	case c.fences.fenced(&op.key, c.clock):
		return RefusedFence
	case r.Version < p.floor && !c.without(ruleFloor):
		return RefusedFloor
	case op.seq <= p.dead && !c.without(ruleFloor):
		return RefusedDead
	case op.seq <= c.floors.at(e.slot):
		return RefusedSubject
	case c.usable(old, now) && (r.Version < old.version || r.Version == old.version && op.seq < old.seq):
		return RefusedOlder
	case e.weight == 0:
		return RefusedLarge
	case now >= e.until:
		return RefusedExpired
	}
	return kept
}

// usable is valid without liveness: what would not be served even if it were live is no reason to
// refuse an older version, which a failover may have gone back to.
func (c *Cache[V]) usable(e *entry[V], now int64) bool {
	return e != nil && now < e.until && e.seq > c.epoch.Load() && e.seq > c.floors.at(e.slot)
}

// raise is the rule of that name: versions below this one are worthless, to what is in flight and to
// what is cached. The caller holds mu.
func (c *Cache[V]) raise(key Key, version int64) {
	if p, ok := c.pending[key]; ok && p.floor < version {
		p.floor = version
		c.pending[key] = p
	}
	c.fenceFlight(key)
	if e := c.entries.peek(key); e != nil && e.version < version {
		c.drop(key)
	}
}

// kill is raise where the version is not known: nothing that has begun may be kept. The caller holds
// mu.
func (c *Cache[V]) kill(key Key) {
	if p, ok := c.pending[key]; ok {
		p.dead = c.seq
		c.pending[key] = p
	}
	c.fenceFlight(key)
	c.drop(key)
}

func (c *Cache[V]) drop(key Key) {
	if c.entries.peek(key) != nil {
		c.counts.invalidations++
		c.entries.drop(key)
	}
}
