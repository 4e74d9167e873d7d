package pgsession_test

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// deed is one call at one instance: what it did and saw. All times are by one clock that only goes
// forward: begin is read before the call and end after it.
type deed struct {
	instance, session int
	action            action
	outcome           outcome
	begin, end        time.Duration
	// version is what a read returned or a write made; 0 where it is not known.
	version int64
	// data is what a read returned or a write wrote. No two writes write the same.
	data string
	// notifies: the notification is committed with the change, not after it.
	notifies bool
	// inTx: in a transaction of the caller's, which had not ended before begin and had by end.
	inTx bool
}

type action int

const (
	reads action = iota // that may be served from memory
	readsFresh
	writes
	ends
)

type outcome int

const (
	done        outcome = iota // read; or committed and published
	missing                    // read: there is no such session
	unpublished                // committed, and said to be not published yet
	inDoubt                    // it may have been committed
	failed                     // it was not, or was rolled back; or nothing was read
)

func (r deed) String() string {
	action := [...]string{"reads", "reads fresh", "writes", "ends"}[r.action]
	outcome := [...]string{"done", "missing", "unpublished", "in doubt", "failed"}[r.outcome]
	in := ""
	if r.inTx {
		in = ", in a transaction"
	}
	return fmt.Sprintf("%10.6f to %10.6f: instance %d %s session %d: %s, version %d, data %q%s",
		r.begin.Seconds(), r.end.Seconds(), r.instance, action, r.session, outcome, r.version, r.data, in)
}

// guarantee is what reads are held to.
type guarantee struct {
	maxAge time.Duration
	// liveness is each instance's deadline; 0: it serves until maxAge while it is not live.
	liveness []time.Duration
}

// ended is the version of a session that has ended: nothing comes after it.
const ended = math.MaxInt64

// check returns what in a history breaks the guarantee:
//
//   - a read returns what a write wrote, and neither what was rolled back nor another version's;
//   - no session is missing that nobody tried to end;
//   - a fresh read is not older than what was known to be committed when it began;
//   - nor any read than what this instance had said before that it wrote, or ended, or that a fresh read did not find;
//   - nor than what was known to be published for the liveness deadline,
//   - or known to be committed for MaxAge.
//
// It needs no allowance for slow machines: what a read may be served from began, or was proved by what
// began, no longer than the bound before the read did; and a call's end comes after what it did.
//
// What is known of a write in doubt is what reads have shown of it by then.
func (g guarantee) check(history []deed) (violations []string) {
	sessions := make(map[int][]deed)
	for _, r := range history {
		sessions[r.session] = append(sessions[r.session], r)
	}
	for _, deeds := range sessions {
		slices.SortStableFunc(deeds, func(a, b deed) int { return cmp.Compare(a.begin, b.begin) })
		violations = append(violations, newLife(deeds).check(g)...)
	}
	return violations
}

// fact is that since a moment nothing older than a version may be returned.
type fact struct {
	since   time.Duration
	version int64
	by      deed
}

// facts are in the order of time once they are settled, each with the highest version up to then.
type facts []fact

func (f facts) settle() {
	slices.SortFunc(f, func(a, b fact) int { return cmp.Compare(a.since, b.since) })
	for i := 1; i < len(f); i++ {
		if f[i].version < f[i-1].version {
			f[i].version, f[i].by = f[i-1].version, f[i-1].by
		}
	}
}

// at is what holds at a moment.
func (f facts) at(moment time.Duration) (fact, bool) {
	i, exact := slices.BinarySearchFunc(f, moment, func(f fact, m time.Duration) int { return cmp.Compare(f.since, m) })
	for exact && i+1 < len(f) && f[i+1].since == moment {
		i++
	}
	if !exact {
		i--
	}
	if i < 0 {
		return fact{}, false
	}
	return f[i], true
}

// life is the history of one session.
type life struct {
	deeds     []deed
	written   map[string]deed // by data
	committed facts
	published facts
	endBegun  time.Duration // when somebody first tried to end it
}

func newLife(deeds []deed) *life {
	l := &life{deeds: deeds, written: make(map[string]deed), endBegun: math.MaxInt64}
	for _, r := range deeds {
		switch {
		case r.action == writes:
			l.written[r.data] = r
		case r.action == ends && r.outcome != failed:
			l.endBegun = min(l.endBegun, r.begin)
		}
	}
	for _, r := range deeds {
		f := fact{since: r.end, version: r.version, by: r}
		var isPublished bool
		switch {
		case r.action <= readsFresh && r.outcome == done:
			isPublished = l.written[r.data].notifies
		case r.action <= readsFresh && r.outcome == missing:
			f.version, isPublished = ended, true // every end notifies
		case r.action == writes && (r.outcome == done || r.outcome == unpublished):
			isPublished = r.outcome == done || r.notifies
		case r.action == ends && r.outcome == done:
			f.version, isPublished = ended, true
		default:
			continue
		}
		l.committed = append(l.committed, f)
		if isPublished {
			l.published = append(l.published, f)
		}
	}
	l.committed.settle()
	l.published.settle()
	return l
}

// own is what an instance was told about its own writes, and that a fresh read found none. A write that was
// committed so long after its statement that nothing fenced it any more is as another instance's.
func (l *life) own(instance int, maxAge time.Duration) (own facts) {
	for _, r := range l.deeds {
		f := fact{since: r.end, version: r.version, by: r}
		switch {
		case r.instance == instance && r.action == readsFresh && r.outcome == missing:
			f.version = ended
		case r.instance != instance || r.outcome != done && r.outcome != unpublished || r.inTx && r.end-r.begin >= maxAge:
			continue
		case r.action == ends:
			f.version = ended
		case r.action != writes:
			continue
		}
		own = append(own, f)
	}
	own.settle()
	return own
}

func (l *life) check(g guarantee) (violations []string) {
	own := make([]facts, len(g.liveness))
	for i := range own {
		own[i] = l.own(i, g.maxAge)
	}
	dataOf := make(map[int64]string)
	for _, r := range l.deeds {
		if r.action > readsFresh || r.outcome != done && r.outcome != missing {
			continue
		}
		broken := l.invented(r, dataOf)
		if broken == "" {
			broken = l.stale(r, g, own[r.instance])
		}
		if broken != "" {
			violations = append(violations, fmt.Sprintf("%s\n%s\nbefore it\n%s", broken, r, l.before(r)))
		}
	}
	return violations
}

// invented says whether a read returned what never was.
func (l *life) invented(r deed, dataOf map[int64]string) string {
	if r.outcome == missing {
		if l.endBegun < r.end {
			return ""
		}
		return "missing, though nobody had tried to end it"
	}
	w, known := l.written[r.data]
	switch {
	case !known || w.begin >= r.end:
		return "nobody had written that"
	case w.outcome == failed:
		return "that was not committed: " + w.String()
	case w.version != 0 && w.version != r.version:
		return "that was another version: " + w.String()
	case dataOf[r.version] != "" && dataOf[r.version] != r.data:
		return "that version was " + dataOf[r.version]
	}
	dataOf[r.version] = r.data
	w.version = r.version // no two writes write the same
	l.written[r.data] = w
	return ""
}

// stale says whether a read returned what was too old.
func (l *life) stale(r deed, g guarantee, own facts) string {
	version := r.version
	if r.outcome == missing {
		return ""
	}
	if f, ok := own.at(r.begin); ok && version < f.version {
		return "this instance had changed it, or found it gone: " + f.by.String()
	}
	if f, ok := l.committed.at(r.begin); ok && r.action == readsFresh && version < f.version {
		return "a fresh read, and it had been changed: " + f.by.String()
	}
	deadline := g.liveness[r.instance]
	if f, ok := l.published.at(r.begin - deadline); ok && deadline > 0 && version < f.version {
		return fmt.Sprintf("published for more than %v: %v", deadline, f.by)
	}
	if f, ok := l.committed.at(r.begin - g.maxAge); ok && version < f.version {
		return fmt.Sprintf("committed for more than %v: %v", g.maxAge, f.by)
	}
	return ""
}

// before is what happened to the session before a read ended, reads that tell nothing new apart.
func (l *life) before(r deed) string {
	var lines []string
	for i, o := range l.deeds {
		repeats := i > 0 && o.action == reads && l.deeds[i-1].action == reads && o.version == l.deeds[i-1].version &&
			o.instance == l.deeds[i-1].instance
		if o.begin < r.end && !repeats {
			lines = append(lines, o.String())
		}
	}
	return strings.Join(lines[max(0, len(lines)-25):], "\n")
}
