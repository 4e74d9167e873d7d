package cache

// Heard takes the notification of a session's change: raise, and the end of a fence. The entry is
// dropped before the fence is lifted, since hits read them in the opposite order.
func (c *Cache[V]) Heard(key Key, version int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.heard++
	c.raise(key, version)
	c.fences.heard(&key, version, c.clock.Mono(), c.without(ruleFenceVersion))
}

// HeardUnknown takes the notification of a session that may have changed, by a write in doubt. It
// lifts no fence: it says nothing of the transaction that raised it.
func (c *Cache[V]) HeardUnknown(key Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.heard++
	c.kill(key)
}

// HeardSubject takes the notification of a revoke by subject: nothing that has begun, nor what it
// brought, is served for that subject.
func (c *Cache[V]) HeardSubject(subject Subject) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.heard++
	c.raiseSubject(subject)
}

// HeardClear takes the notification of a clear, one that is malformed or unknown, and anything else
// after which this listener may have missed some. It is not live until the next beat is heard.
func (l *Listener[V]) HeardClear() {
	c := l.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.heard++
	c.newEpoch()
	l.until = never
	c.recomputeLive()
}
