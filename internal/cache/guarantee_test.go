package cache_test

import (
	"fmt"
	"slices"
)

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
			h[n-1].value.row == key && (h[n-1].commit.at < start || before(h[n-1].commit.returned[i], moment)) {
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
	if e, ok := w.foundGone[i][key]; ok && e.moment < moment && v.row == key && v.version <= e.version {
		fail("this process had found it gone")
		return
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
