package pace_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pgsession/pgsession/internal/pace"
)

// fleet is instances that share the beat of one store, and the server's row of it, in a time that passes
// only when somebody's call is due.
type fleet struct {
	t            *testing.T
	deadline     time.Duration
	now          time.Duration
	nonce        int
	at           time.Duration // of the last publication
	publications int
	instances    []*instance
}

type instance struct {
	*pace.Beats
	due   time.Duration
	sent  map[int]time.Duration
	until time.Duration
	cut   bool // its calls fail; it hears
	calls int
}

func (i *instance) live(now time.Duration) (left time.Duration, live bool) {
	return i.until - now, now < i.until
}

// newFleet is instances that begin within one deadline, of which each is live by the next.
func newFleet(t *testing.T, n int, deadline time.Duration) *fleet {
	t.Helper()
	f := &fleet{t: t, deadline: deadline, at: -time.Hour}
	for range n {
		f.instances = append(f.instances, &instance{
			Beats: pace.NewBeats(deadline), sent: make(map[int]time.Duration), due: rand.N(deadline),
		})
	}
	f.run(2*deadline, nil)
	for _, i := range f.instances {
		i.calls = 0
	}
	f.publications = 0
	return f
}

// run has time pass, and calls each after every call.
func (f *fleet) run(d time.Duration, each func()) {
	end := f.now + d
	for {
		next := f.instances[0]
		for _, i := range f.instances {
			if i.due < next.due {
				next = i
			}
		}
		if next.due > end {
			f.now = end
			return
		}
		f.now = max(f.now, next.due)
		f.call(next)
		if each != nil {
			each()
		}
	}
}

func (f *fleet) call(caller *instance) {
	caller.calls++
	heard := -1
	if !caller.cut {
		caller.sent[f.nonce] = f.now
		if f.now-f.at >= caller.Interval() {
			heard = f.nonce
			f.nonce++
			f.at = f.now
			f.publications++
		}
	}
	caller.due = f.now + caller.Called(caller.live(f.now))
	if heard < 0 {
		return
	}
	for _, i := range f.instances {
		if sent, asked := i.sent[heard]; asked {
			i.until = max(i.until, sent+f.deadline)
			delete(i.sent, heard)
		}
		if wait, ok := i.Heard(i.live(f.now)); ok {
			i.due = f.now + wait
		}
	}
}

// cleared is that all hear at once what ends their liveness.
func (f *fleet) cleared() {
	for _, i := range f.instances {
		i.until = f.now
		if wait, ok := i.Hurry(f.now); ok {
			i.due = f.now + wait
		}
	}
}

func (f *fleet) live() (n int) {
	for _, i := range f.instances {
		if _, live := i.live(f.now); live {
			n++
		}
	}
	return n
}

// wantLive fails the test unless all are live.
func (f *fleet) wantLive(what string) {
	f.t.Helper()
	if n := f.live(); n < len(f.instances) {
		f.t.Errorf("%s: %d of %d are live", what, n, len(f.instances))
	}
}

// each runs a test with fleets of several sizes and deadlines.
func each(t *testing.T, test func(t *testing.T, n int, deadline time.Duration)) {
	t.Helper()
	for _, n := range []int{1, 2, 3, 20, 200} {
		for _, deadline := range []time.Duration{100 * time.Millisecond, 3 * time.Second, 30 * time.Second, time.Hour} {
			test(t, n, deadline)
		}
	}
}

func interval(deadline time.Duration) time.Duration { return pace.NewBeats(deadline).Interval() }

func TestAllStayLiveWithFewCalls(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, n int, deadline time.Duration) {
		t.Helper()
		const deadlines = 20
		f := newFleet(t, n, deadline)
		f.wantLive("at first")
		f.run(deadlines*deadline, func() { f.wantLive("later") })
		for _, i := range f.instances {
			// What is proved counts from its call, and the next call comes half a deadline later; one that
			// proves nothing by then costs another.
			if i.calls > deadlines*5/2+2 {
				t.Errorf("%d instances, %v: %d calls in %d deadlines", n, deadline, i.calls, deadlines)
			}
			if n == 1 && (i.calls > 2*deadlines+1 || f.publications != i.calls) {
				t.Errorf("alone, %v: %d calls, %d publications in %d deadlines", deadline, i.calls, f.publications, deadlines)
			}
		}
		if most := int(deadlines*deadline/interval(deadline)) + 1; f.publications > most {
			t.Errorf("%d instances, %v: %d publications, at most %d", n, deadline, f.publications, most)
		}
	})
}

// The others' beats are heard, more often than its own calls are due, and none of them is a proof.
func TestWhoHasAskedForNothingAsksThoughOthersBeatsAreHeard(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, n int, deadline time.Duration) {
		t.Helper()
		f := newFleet(t, n, deadline)
		one := f.instances[0]
		one.cut = true
		f.run(3*deadline, nil)
		if _, live := one.live(f.now); live {
			t.Errorf("%d instances, %v: it is live", n, deadline)
		}
		one.cut = false
		f.run(3*interval(deadline), nil)
		f.wantLive("soon after it could ask")
	})
}

func TestWhatEndsAllLivenessAtOnceTakesOneBeatToMend(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, n int, deadline time.Duration) {
		t.Helper()
		f := newFleet(t, n, deadline)
		for range 20 {
			f.run(interval(deadline)+rand.N(deadline), nil)
			f.publications = 0
			f.cleared()
			f.run(interval(deadline)/6, nil)
			f.wantLive("soon after a clear")
			if f.publications > 3 {
				t.Errorf("%d instances, %v: it took %d publications", n, deadline, f.publications)
			}
		}
	})
}

// Anyone in the database can send what ends liveness.
func TestAFloodOfWhatEndsLivenessMakesNoFloodOfBeats(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, n int, deadline time.Duration) {
		t.Helper()
		const intervals = 20
		f := newFleet(t, n, deadline)
		for range 100 * intervals {
			f.cleared()
			f.run(interval(deadline)/100, nil)
		}
		for _, i := range f.instances {
			if i.calls > 5*(intervals+1) {
				t.Errorf("%d instances, %v: %d calls in %d intervals", n, deadline, i.calls, intervals)
			}
		}
		f.run(interval(deadline)*5/4, nil)
		f.wantLive("after the flood")
	})
}
