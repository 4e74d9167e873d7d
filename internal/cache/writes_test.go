package cache_test

// unlocked: no transaction has written the key.
func (w *world) unlocked(key int) func() bool { return func() bool { return !w.locks[key] } }

func (w *world) noLocks() bool { return len(w.locks) == 0 }

// next is a version above all there was.
func (w *world) next(key int) int {
	v := w.now * 1000
	if r := w.rows[key]; r != nil {
		v = max(v, r.version+1)
	}
	return v
}

// upsert is what the set function does. It returns false where there is a tombstone.
func (w *world) upsert(key, subject int) (r row, subjectChanged, ok bool) {
	old := w.rows[key]
	if old != nil && !old.alive && w.now < old.ended+tombstoneTick {
		return row{}, false, false
	}
	r = row{alive: true, version: w.next(key), subject: subject, expires: w.now + idleTicks, renewedTo: -1}
	return r, old != nil && old.alive && old.subject != subject, true
}

func (w *world) tombstone(key int) (r row, ok bool) {
	old := w.rows[key]
	if old == nil || !old.alive || w.now >= old.expires {
		return row{}, false
	}
	r = *old
	r.alive, r.version, r.ended, r.renewedTo = false, w.next(key), w.now, -1
	return r, true
}

func written(r row, key int) answer {
	return answer{
		alive: true, cacheable: true, version: r.version, subject: r.subject, remaining: idleTicks,
		value: value{row: key, version: r.version},
	}
}

// inDoubt is a write whose reply does not come: at some moment the caller gives up, and at another,
// before or after, the statement ends one way or the other.
func (w *world) inDoubt(i, key int, ready func() bool, execute func() *commit, giveUp func()) {
	ended := false
	var c *commit
	w.when(ready, func() {
		if w.chance(70) {
			w.logf("%d's write of %d, in doubt, is executed", i, key)
			c = execute()
		}
		ended = true
	})
	w.later(func() {
		w.logf("%d gives up its write of %d", i, key)
		giveUp()
		w.when(func() bool { return ended && !w.locks[key] }, func() {
			if w.off&offUnknown != 0 {
				if c != nil && c.published < 0 {
					c.published = w.now // it should have been
				}
			} else if c != nil {
				w.notify(noticeUnknown, key, 0, c)
			} else {
				w.notify(noticeUnknown, key, 0)
			}
		})
	})
}

// set writes a session and publishes it, in the transaction or grouped.
func (w *world) set(i, key int) {
	n, subject, inTx := w.nodes[i], w.subject(), w.chance(25)
	w.logf("%d sends a set of %d for %d", i, key, subject)
	op := n.begin(key, true)
	var r row
	execute := func() *commit {
		var changed, ok bool
		if r, changed, ok = w.upsert(key, subject); !ok {
			return nil
		}
		fresh := r
		w.rows[key] = &fresh
		c := w.committed(key)
		if inTx || changed && w.off&offSubjectInTx == 0 {
			w.notify(noticeVersion, key, r.version, c)
		}
		return c
	}
	if w.chance(25) {
		w.inDoubt(i, key, w.unlocked(key), execute, func() { op.inDoubt(); op.end() })
		return
	}
	w.when(w.unlocked(key), func() {
		c := execute()
		w.later(func() {
			w.logf("%d's set of %d returns", i, key)
			defer op.end()
			if c == nil {
				op.read(answer{})
				return
			}
			op.wrote(written(r, key))
			if c.published >= 0 {
				c.returned[i] = w.moment
				return
			}
			if w.chance(5) {
				return // the process dies before it publishes
			}
			w.later(func() {
				w.notify(noticeVersion, key, r.version, c)
				c.returned[i] = w.moment
			})
		})
	})
}

func (w *world) touch(i, key int) {
	op := w.nodes[i].begin(key, true)
	w.when(w.unlocked(key), func() {
		r, a := w.rows[key], answer{}
		if r != nil && r.alive && w.now < r.expires {
			r.expires = w.now + idleTicks
			a = written(*r, key)
		}
		w.later(func() {
			w.logf("%d's touch of %d returns", i, key)
			op.touched(a)
			op.end()
		})
	})
}

func (w *world) fresh(i, key int) {
	start, moment := w.now, w.moment
	op := w.nodes[i].begin(key, false)
	w.later(func() {
		a := w.read(key, false)
		w.later(func() {
			alive := op.read(a)
			w.check(i, key, start, moment, a.value, alive)
			if !alive {
				w.logf("%d finds %d gone", i, key)
				w.foundGone[i][key] = endedAt{a.version, w.now, w.moment}
			}
			op.end()
		})
	})
}

// ended is the reply of what ends sessions.
func (w *world) ended(i int, c *commit, sessions []version) {
	w.nodes[i].ended(sessions)
	if c != nil {
		c.returned[i] = w.moment
	}
	for _, s := range sessions {
		w.selfEnded[i][s.key] = endedAt{s.version, w.now, w.moment}
	}
}

func (w *world) destroy(i, key int) {
	w.logf("%d sends a destroy of %d", i, key)
	var sessions []version
	execute := func() *commit {
		r, ok := w.tombstone(key)
		if !ok {
			return nil
		}
		w.rows[key] = &r
		c := w.committed(key)
		w.notify(noticeVersion, key, r.version, c)
		sessions = []version{{key, r.version}}
		return c
	}
	if w.chance(25) {
		w.inDoubt(i, key, w.unlocked(key), execute, func() { w.nodes[i].inDoubt(key) })
		return
	}
	w.when(w.unlocked(key), func() {
		c := execute()
		w.later(func() {
			w.logf("%d's destroy of %d returns", i, key)
			w.ended(i, c, sessions)
		})
	})
}

// vanish is that somebody ends a session by hand, of which nobody is told; one who looks finds out.
func (w *world) vanish(i, key int) {
	w.get(i, key)
	w.when(w.unlocked(key), func() {
		if r, ok := w.tombstone(key); ok {
			w.rows[key] = &r
			w.committed(key)
		}
		w.fresh(i, key)
	})
}

func (w *world) renew(i, key int) {
	if w.ids == maxIDs {
		return
	}
	login := w.chance(30)
	w.when(w.unlocked(key), func() {
		old, ok := w.tombstone(key)
		if !ok || w.ids == maxIDs {
			return
		}
		to := w.ids
		w.ids++
		r := row{alive: true, version: old.version, subject: old.subject, expires: w.rows[key].expires, renewedTo: -1}
		old.renewedTo, old.renewedAs = to, old.subject
		if login {
			r.subject = 1 + w.random.IntN(2)
		}
		w.rows[key], w.rows[to] = &old, &r
		c := w.committed(key, to)
		w.notify(noticeVersion, key, old.version, c)
		w.later(func() {
			w.logf("%d's renew of %d to %d returns", i, key, to)
			w.ended(i, c, []version{{key, old.version}})
		})
	})
}

func (w *world) revoke(i, subject int) {
	w.when(w.noLocks, func() {
		var sessions []version
		for key := range w.ids {
			if r := w.rows[key]; r != nil && r.alive && r.subject == subject {
				if dead, ok := w.tombstone(key); ok {
					w.rows[key] = &dead
					sessions = append(sessions, version{key, dead.version})
				}
			}
		}
		if len(sessions) == 0 {
			return
		}
		c := w.committed(keysOf(sessions)...)
		w.notify(noticeSubject, subject, 0, c)
		w.later(func() {
			w.logf("%d's revoke of subject %d returns %v", i, subject, sessions)
			w.nodes[i].revoked(subject)
			if w.off&offRevokedIDs == 0 {
				w.ended(i, c, sessions)
			} else {
				c.returned[i] = w.moment
			}
		})
	})
}

func (w *world) clear(i int) {
	w.when(w.noLocks, func() {
		var sessions []version
		for key := range w.ids {
			if dead, ok := w.tombstone(key); ok {
				w.rows[key] = &dead
				sessions = append(sessions, version{key, dead.version})
			}
		}
		c := w.committed(keysOf(sessions)...)
		w.notify(noticeClear, 0, 0, c)
		w.later(func() {
			w.logf("%d's clear returns", i)
			w.nodes[i].cleared()
			c.returned[i] = w.moment
		})
	})
}

// inTransaction writes in a transaction of the caller's, which is committed or rolled back later.
func (w *world) inTransaction(i, key int) {
	n, began, end, subject := w.nodes[i], w.now, w.chance(40), w.subject()
	w.logf("%d begins a transaction on %d", i, key)
	tx := n.beginTx(key)
	w.when(w.unlocked(key), func() {
		var r row
		var ok bool
		if end {
			r, ok = w.tombstone(key)
		} else {
			r, _, ok = w.upsert(key, subject)
		}
		if !ok {
			w.later(tx.wroteNothing)
			return
		}
		w.locks[key] = true
		w.logf("%d's transaction has written %d", i, key)
		w.later(func() {
			if end {
				n.endedInTx([]version{{key, r.version}})
			}
			tx.wrote(r.version)
			w.later(func() {
				delete(w.locks, key)
				if w.chance(25) || w.now-began > maxAgeTicks/2 {
					w.logf("%d's transaction on %d is rolled back", i, key)
					return
				}
				w.rows[key] = &r
				c := w.committed(key)
				w.notify(noticeVersion, key, r.version, c)
				w.later(func() {
					w.logf("%d's transaction on %d has committed", i, key)
					c.returned[i] = w.moment
				})
			})
		})
	})
}

func keysOf(sessions []version) []int {
	keys := make([]int, len(sessions))
	for i, s := range sessions {
		keys[i] = s.key
	}
	return keys
}
