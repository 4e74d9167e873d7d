package pgsession

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// These are in the package, for a clock of their own and a wire that does what they want.

// wire is where a publisher sends to.
type wire struct {
	mu      sync.Mutex
	began   time.Time
	locked  map[ID]bool                                 // ids whose locks are held
	fail    error                                       // of every call
	asked   map[ID][]time.Duration                      // when each was published in doubt; "": any
	log     []string                                    // messages
	sending func(entries versions, server string) error // nil: it succeeds
}

func newWire(p *publisher) *wire {
	w := &wire{began: time.Now(), locked: make(map[ID]bool), asked: make(map[ID][]time.Duration)}
	p.log = func(_ context.Context, _ slog.Level, message string, attrs ...slog.Attr) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.log = append(w.log, fmt.Sprint(message, " ", attrs))
	}
	p.send = func(_ context.Context, entries versions, server string) error {
		if w.sending != nil {
			return w.sending(entries, server)
		}
		return nil
	}
	p.ask = func(_ context.Context, entries versions) (busy []ID, err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.fail != nil {
			return nil, w.fail
		}
		if entries == nil {
			entries = versions{"": 0}
		}
		for id := range entries {
			w.asked[id] = append(w.asked[id], time.Since(w.began))
			if w.locked[id] {
				busy = append(busy, id)
			}
		}
		return busy, nil
	}
	return w
}

func (w *wire) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func (w *wire) askedFor(id ID) []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.asked[id])
}

func (w *wire) logged() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.log)
}

func TestAWriteInDoubtIsPublishedUnderAnyLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPublisher(time.Minute, 15*time.Second)
		w := newWire(p)
		w.sending = func(versions, string) error {
			time.Sleep(2 * time.Millisecond)
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		var writers sync.WaitGroup
		for i := range 16 {
			writers.Go(func() {
				for version := int64(1); ctx.Err() == nil; version++ {
					time.Sleep(time.Millisecond) // the write itself
					_ = p.publish(ctx, ID(rune('a'+i)), version, "")
				}
			})
		}
		time.Sleep(100 * time.Millisecond)
		p.inDoubt("x")
		time.Sleep(10 * time.Millisecond)
		if len(w.askedFor("x")) == 0 {
			t.Error("after 10 ms it has not been published")
		}
		cancel()
		writers.Wait()
		p.close(time.Second)
	})
}

func TestAWriteInDoubtIsPublishedAFewTimes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPublisher(time.Minute, 15*time.Second)
		w := newWire(p)
		p.inDoubt("x")
		time.Sleep(time.Minute)
		want := []time.Duration{0, time.Second, 5 * time.Second, 15 * time.Second}
		if got := w.askedFor("x"); !slices.Equal(got, want) {
			t.Errorf("it was published after %v, want %v", got, want)
		}
		p.close(time.Second)
	})
}

func TestAWriteInDoubtIsPublishedUntilItsLockIsFree(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPublisher(time.Minute, 15*time.Second)
		w := newWire(p)
		w.locked["x"] = true
		p.inDoubt("x")
		time.Sleep(time.Second)
		if n := len(w.askedFor("x")); n < 5 {
			t.Errorf("in the first second its lock was looked at %d times", n)
		}
		time.Sleep(49 * time.Second)
		freed := time.Since(w.began)
		w.set(func() { w.locked["x"] = false })
		time.Sleep(time.Minute)
		if times := w.askedFor("x"); times[len(times)-1] < freed {
			t.Errorf("its lock was freed after %v, and it was last published after %v", freed, times[len(times)-1])
		} else if times[len(times)-1] > freed+2*time.Second {
			t.Errorf("its lock was freed after %v, and that was seen after %v", freed, times[len(times)-1])
		}
		p.close(time.Second)
	})
}

// A statement that waits in its commit has its lock however many others there are.
func TestManyWritesInDoubtAreEachPublishedUntilTheirLocksAreFree(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPublisher(time.Minute, 15*time.Second)
		w := newWire(p)
		const n = 20_000
		ids := make([]ID, n)
		for i := range ids {
			ids[i] = ID(fmt.Sprint(i))
			w.locked[ids[i]] = i%100 == 0
		}
		p.inDoubt(ids...)
		time.Sleep(50 * time.Second)
		w.set(func() { clear(w.locked) })
		time.Sleep(10 * time.Second)
		for i, id := range ids {
			times := w.askedFor(id)
			if len(times) == 0 {
				t.Fatalf("%s was not published by its name", id)
			}
			switch last := times[len(times)-1]; {
			case i%100 == 0 && last < 50*time.Second:
				t.Fatalf("%s, whose lock was held, was last published after %v", id, last)
			case i%100 != 0 && (len(times) != 4 || last < 15*time.Second):
				t.Fatalf("%s was published after %v", id, times)
			}
		}
		if times := w.askedFor(""); len(times) > 0 {
			t.Errorf("all caches were emptied after %v", times)
		}
		p.close(time.Second)
	})
}

func TestMoreWritesInDoubtThanCanBeKeptEmptyCachesOnceInAHorizon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const keep, horizon = time.Minute, 15 * time.Second
		p := newPublisher(keep, horizon)
		w := newWire(p)
		ids := make([]ID, maxDoubts)
		for i := range ids {
			ids[i] = ID(fmt.Sprint(i))
		}
		w.locked[ids[0]] = true
		p.inDoubt(ids...)
		for i := range 10_000 { // and on, for ten seconds
			time.Sleep(time.Millisecond)
			p.inDoubt(ID(fmt.Sprint("more", i)))
		}
		last := time.Since(w.began)
		time.Sleep(2 * keep)
		times := w.askedFor("")
		for i, at := range times {
			if i > 0 && at-times[i-1] < horizon {
				t.Errorf("all caches were emptied after %v and after %v", times[i-1], at)
			}
		}
		if n := len(times); n < 2 || times[0] > time.Second || times[n-1] < last+keep || n > 7 {
			t.Errorf("all caches were emptied after %v", times)
		}
		w.set(func() { clear(w.locked) })
		if times := w.askedFor(ids[0]); times[len(times)-1] < last+keep {
			t.Errorf("the one whose lock is held was last published after %v", times[len(times)-1])
		}
		p.close(time.Second)
		if n := len(p.doubts.byID); n != 0 {
			t.Errorf("%d are still in doubt", n)
		}
	})
}

func TestWritersWaitTenSecondsForACallThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPublisher(time.Minute, 15*time.Second)
		w := newWire(p)
		hangs := make(chan struct{})
		w.sending = func(versions, string) error {
			<-hangs
			return nil
		}
		var writers sync.WaitGroup
		for i := range 2 { // the second one waits behind the first
			writers.Go(func() {
				time.Sleep(time.Duration(i) * time.Second)
				began := time.Now()
				err := p.publish(context.Background(), ID(fmt.Sprint(i)), 1, "")
				if took := time.Since(began); took != publishPatience || !errors.Is(err, ErrUnpublished) {
					t.Errorf("writer %d waited for %v: %v", i, took, err)
				}
			})
		}
		writers.Wait()
		close(hangs)
		synctest.Wait()
		if n := p.published.Load(); n != 2 {
			t.Errorf("%d were published in the end", n)
		}
		p.close(time.Second)
	})
}

func TestAChangeWhoseServerIsGoneHoldsUpNoOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPublisher(time.Minute, 15*time.Second)
		w := newWire(p)
		w.sending = func(_ versions, server string) error {
			if server == "gone" {
				return errElsewhere
			}
			return nil
		}
		err := p.publish(t.Context(), "x", 1, "gone")
		if !errors.Is(err, ErrUnpublished) || !errors.Is(err, errElsewhere) {
			t.Errorf("the error is %v", err)
		}
		if err := p.publish(t.Context(), "y", 1, "there"); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if n := len(w.askedFor("x")); n != 4 {
			t.Errorf("it was published everywhere %d times", n)
		}
		p.close(time.Second)
	})
}

func TestADoubtThatComesTooLateIsLoggedAndToldToSubscribers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPublisher(time.Minute, 15*time.Second)
		w := newWire(p)
		w.fail = errors.New("down")
		p.inDoubt("x")
		time.Sleep(2 * time.Minute)
		logged := w.logged()
		if n := len(logged); n != 2 || logged[1] != "pgsession: changes were not published in time [sessions=1 error=down]" {
			t.Errorf("logged: %q", logged)
		}
		w.set(func() { w.fail = nil })
		time.Sleep(2 * time.Minute)
		p.close(time.Second)
		if got := slices.Collect(maps.Keys(w.asked)); len(got) != 1 || len(w.asked[""]) != 1 {
			t.Errorf("when it worked again these were published: %v", w.asked)
		}
	})
}

func TestWhatCloseGivesUpIsLogged(t *testing.T) {
	t.Parallel()
	for name, publish := range map[string]func(ctx context.Context, p *publisher){
		"a change": func(ctx context.Context, p *publisher) { _ = p.publish(ctx, "x", 1, "") },
		"changes, one of them behind": func(ctx context.Context, p *publisher) {
			_ = p.publish(ctx, "y", 1, "")
			_ = p.publish(ctx, "x", 1, "")
		},
		"too many to name": func(ctx context.Context, p *publisher) {
			p.mu.Lock()
			p.next.begun, p.next.all = time.Now(), true
			p.next.timer = time.NewTimer(time.Hour)
			p.mu.Unlock()
			_ = p.publish(ctx, "x", 1, "")
		},
		"a doubt": func(_ context.Context, p *publisher) { p.inDoubt("x") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := newPublisher(time.Minute, 15*time.Second)
				w := newWire(p)
				var calls atomic.Int64
				w.fail = errors.New("down")
				w.sending = func(versions, string) error {
					calls.Add(1)
					return w.fail
				}
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				publish(ctx, p)
				p.close(time.Second)
				logged := w.logged()
				sessions, more := 1, name == "too many to name"
				if name == "changes, one of them behind" {
					sessions = 2
				}
				want := fmt.Sprintf("pgsession: closed with changes unpublished [sessions=%d more=%t ids=", sessions, more)
				if n := len(logged); n == 0 || len(logged[n-1]) < len(want) || logged[n-1][:len(want)] != want {
					t.Errorf("logged: %q, want %s", logged, want)
				}
			})
		})
	}
}

// Of a batch with changes of two servers, those that cannot be published stay so when the others are tried again.
func TestAChangeWhoseServerIsGoneIsToldOfAlthoughTheRestIsTriedAgain(t *testing.T) {
	t.Parallel()
	for range 20 { // the order of servers is any
		synctest.Test(t, func(t *testing.T) {
			p := newPublisher(time.Minute, time.Second)
			w := newWire(p)
			gate := make(chan struct{})
			failed := false
			w.sending = func(_ versions, server string) error {
				switch {
				case server == "gate":
					<-gate
				case server == "gone":
					return errElsewhere
				case !failed:
					failed = true
					return errors.New("once")
				}
				return nil
			}
			publish := func(id ID, server string) chan error {
				done := make(chan error, 1)
				go func() { done <- p.publish(t.Context(), id, 1, server) }()
				synctest.Wait()
				return done
			}
			first, gone, there := publish("first", "gate"), publish("a", "gone"), publish("b", "there")
			close(gate)
			if err := errors.Join(<-first, p.life.Err()); err != nil {
				t.Fatal(err)
			}
			if err := <-gone; !errors.Is(err, ErrUnpublished) {
				t.Errorf("of the server that is gone: %v", err)
			}
			<-there
			p.close(time.Second)
		})
	}
}

func TestAPublicationCountsWhereBothServersAreHeard(t *testing.T) {
	t.Parallel()
	n := &notifier{links: []*link{{server: "a"}, {server: "b"}}}
	for _, c := range []struct {
		wrote, published string
		want             bool
	}{{"a", "b", true}, {"b", "a", true}, {"a", "a", true}, {"", "c", true}, {"a", "c", false}, {"c", "a", false}} {
		if got := n.reachesListeners(c.wrote, c.published); got != c.want {
			t.Errorf("written on %q and published on %q: %v", c.wrote, c.published, got)
		}
	}
}

func TestWhatWasNeverSentIsNotInDoubtWhateverTheServerSays(t *testing.T) {
	t.Parallel()
	if cutOff(&notSentError{&pgconn.PgError{Code: "08P01"}}, false) { // PgBouncer's, of a connection too many
		t.Error("in doubt")
	}
}
