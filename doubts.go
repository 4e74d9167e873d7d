package pgsession

import (
	"container/heap"
	"slices"
	"time"
)

const (
	// maxDoubts is how many sessions in doubt are known by their ids: 20 MB of them at most, and more
	// than an instance gets in a horizon that is not lost anyway. What comes beyond is only counted as
	// "any session", and empties every cache.
	maxDoubts = 100_000
	// The waits between looks at a lock that is held, and between attempts that fail.
	minDoubtDelay = 20 * time.Millisecond
	maxDoubtDelay = 2 * time.Second
)

// doubtSteps are when a session whose lock is free is published again, after it came into doubt, and
// once more at the horizon.
var doubtSteps = []time.Duration{time.Second, 5 * time.Second}

// doubts are the sessions that a statement which nobody waits for any more may change, or may have.
//
// That statement has ended, or it runs, or it has yet to begin: the network may have it, or it waits
// for its subject's lock, of which the id's tells nothing. For one that has ended, the session is
// published at once. One that runs holds the id's lock until after its commit: so long as the lock is
// held the publication is repeated, and the first one that finds it free comes after the commit. One
// that has yet to begin does so within the horizon, so that the publication at its end which finds the
// lock free is the last one. Those between, a second and five after it came into doubt, are only for
// sooner: a packet that was lost is sent again by then, and the lock that was waited for may be free.
// So a write that was never sent, as those are that end while they wait for a connection, where nobody
// can prove it, costs four publications of its id.
//
// Where there are too many, any session may have changed. That is published once in a horizon, since it
// empties every cache, and until nobody has what was before any more: nobody looks at locks for it.
// The sessions that are known by their ids go on as they were.
type doubts struct {
	keep    time.Duration // after how long nobody has what was before
	horizon time.Duration // after how long no statement can be on its way, or wait, without its lock

	byID  map[ID]*doubt
	queue doubtQueue
}

// doubt is one session; with the id "" it is any.
type doubt struct {
	id    ID
	since time.Time
	due   time.Time // when to publish it next
	delay time.Duration
	tried bool // it was published once
	once  bool // and that is enough
	index int  // in the queue; -1: it is being published
}

func newDoubts(keep, horizon time.Duration) doubts {
	return doubts{keep: keep, horizon: min(keep, horizon), byID: make(map[ID]*doubt)}
}

func (q *doubts) add(id ID, now time.Time) {
	if _, known := q.byID[id]; known || len(q.byID) < maxDoubts {
		q.put(&doubt{id: id, since: now, due: now})
		return
	}
	d := &doubt{since: now, due: now}
	if before := q.byID[""]; before != nil && !before.once {
		d.due, d.tried = before.due, before.tried
		if before.index < 0 { // it is being published, and may be too early for this one
			d.due = now.Add(q.horizon)
		}
	}
	q.put(d)
}

// missed has it published, once, that any session may have changed: some were not published in time,
// and there is still who wants to hear of them.
func (q *doubts) missed(now time.Time) {
	if q.byID[""] == nil {
		q.put(&doubt{since: now, due: now, once: true})
	}
}

// put puts a doubt in the place of one of the same id.
func (q *doubts) put(d *doubt) {
	if before := q.byID[d.id]; before != nil && before.index >= 0 {
		heap.Remove(&q.queue, before.index)
	}
	q.byID[d.id] = d
	heap.Push(&q.queue, d)
}

// wait is for how long nothing is to be published. more says whether there will be anything at all.
func (q *doubts) wait(now time.Time) (wait time.Duration, more bool) {
	if len(q.queue) == 0 {
		return 0, false
	}
	return max(0, q.queue[0].due.Sub(now)), true
}

// take returns what is to be published now in one call: some sessions, or any.
func (q *doubts) take(now time.Time) (taken []*doubt) {
	for len(q.queue) > 0 && len(taken) < maxEntries && !q.queue[0].due.After(now) {
		if d := q.queue[0]; d.id == "" && len(taken) > 0 {
			break
		}
		d := heap.Pop(&q.queue).(*doubt)
		taken = append(taken, d)
		if d.id == "" {
			break
		}
	}
	return taken
}

// published takes that these were, by a call that began then, and whose locks it found held.
func (q *doubts) published(taken []*doubt, held []ID, began time.Time) {
	busy := make(map[ID]bool, len(held))
	for _, id := range held {
		busy[id] = true
	}
	for _, d := range taken {
		d.tried = true
		age := began.Sub(d.since)
		switch {
		case d.id == "" && (d.once || age >= q.keep), d.id != "" && age >= q.horizon && !busy[d.id]:
			q.drop(d)
			continue
		case d.id == "":
			d.due = began.Add(q.horizon)
		case busy[d.id]:
			d.wait(began)
		default:
			d.due, d.delay = d.since.Add(q.nextStep(age)), 0
		}
		q.again(d)
	}
}

// wait puts it off, for longer each time.
func (d *doubt) wait(now time.Time) {
	d.due, d.delay = now.Add(max(d.delay, minDoubtDelay)), min(2*max(d.delay, minDoubtDelay), maxDoubtDelay)
}

func (q *doubts) nextStep(age time.Duration) time.Duration {
	for _, step := range doubtSteps {
		if age < step && step < q.horizon {
			return step
		}
	}
	return q.horizon
}

// failed takes that these could not be published, and returns how many it is too late for.
func (q *doubts) failed(taken []*doubt, now time.Time) (late int) {
	for _, d := range taken {
		if d.id != "" && now.Sub(d.since) > q.keep {
			q.drop(d)
			late++
			continue
		}
		d.wait(now)
		q.again(d)
	}
	return late
}

// again queues one that was taken, unless there is a newer one.
func (q *doubts) again(d *doubt) {
	if q.byID[d.id] == d {
		heap.Push(&q.queue, d)
	}
}

func (q *doubts) drop(d *doubt) {
	if q.byID[d.id] == d {
		delete(q.byID, d.id)
	}
}

// forgetTried leaves those that were never published: nobody will be here to do it again.
func (q *doubts) forgetTried() {
	for i := len(q.queue) - 1; i >= 0; i-- {
		if d := q.queue[i]; d.tried {
			q.drop(d)
		}
	}
	q.queue = slices.DeleteFunc(q.queue, func(d *doubt) bool { return d.tried })
	for i, d := range q.queue {
		d.index = i
	}
	heap.Init(&q.queue)
}

// doubtQueue is a heap by when each is due.
type doubtQueue []*doubt

func (q doubtQueue) Len() int           { return len(q) }
func (q doubtQueue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }

func (q doubtQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *doubtQueue) Push(x any) {
	d := x.(*doubt)
	d.index = len(*q)
	*q = append(*q, d)
}

func (q *doubtQueue) Pop() any {
	last := len(*q) - 1
	d := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	d.index = -1
	return d
}
