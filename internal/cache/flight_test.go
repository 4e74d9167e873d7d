package cache_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/pgsession/internal/cache"
)

// loads is a server that answers loads when told to.
type loads chan chan<- cache.Reply[string]

func (l loads) load(ctx context.Context) (cache.Reply[string], error) {
	answer := make(chan cache.Reply[string], 1)
	l <- answer
	select {
	case r := <-answer:
		return r, nil
	case <-ctx.Done():
		return cache.Reply[string]{}, context.Cause(ctx)
	}
}

// result is what a Load returned.
type result struct {
	value string
	alive bool
	err   error
}

// start calls Load on a goroutine.
func (r *rig) start(ctx context.Context, name string, l loads) <-chan result {
	c := make(chan result, 1)
	go func() {
		v, alive, err := r.Load(ctx, key(name), l.load)
		if v == nil {
			v = new(string)
		}
		c <- result{*v, alive, err}
	}()
	return c
}

func wantResult(t *testing.T, c <-chan result, value string) {
	t.Helper()
	if got := <-c; got.value != value || !got.alive || got.err != nil {
		t.Errorf("got %+v, want %q", got, value)
	}
}

func TestThoseWhoAskTogetherShareOneLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, l := newRig(t), make(loads, 10)
		var all []<-chan result
		for range 10 {
			all = append(all, r.start(t.Context(), "a", l))
		}
		synctest.Wait()
		(<-l) <- reply("five", 5)
		for _, c := range all {
			wantResult(t, c, "five")
		}
		if s := r.Stats(); s.Loads != 1 || s.Joins != 9 || s.Misses != 10 {
			t.Errorf("%+v", s)
		}
		r.wantHit("a", "five")
		wantResult(t, r.start(t.Context(), "a", nil), "five")
		if n := r.Pending(); n != 0 {
			t.Errorf("%d records are left", n)
		}
	})
}

// What ends the joining of a load that runs; each is the case of a stale read otherwise.
func TestALoadThatBeganBeforeAChangeIsNotJoinedAfterIt(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*rig){
		"a version is heard":          func(r *rig) { r.Heard(key("a"), 6) },
		"an unknown version is heard": func(r *rig) { r.HeardUnknown(key("a")) },
		"a subject is revoked":        func(r *rig) { r.HeardSubject(7) },
		"all is cleared":              func(r *rig) { r.Cleared() },
		"the listener comes back":     func(r *rig) { r.listener.Listening(server); r.beat() },
		"a write is answered":         func(r *rig) { op := r.Begin(key("a")); op.Wrote(cache.Reply[string]{Version: 6}); op.End() },
		"a write has no reply":        func(r *rig) { op := r.Begin(key("a")); op.InDoubt(); op.End() },
		"an earlier one is ended":     func(r *rig) { r.Ended([]cache.Version{{Key: key("a"), Version: 4}}) },
		"a transaction writes it":     func(r *rig) { r.BeginTx(key("a")) },
		"the store is no longer live": func(r *rig) { r.clock.advance(liveness) },
		"it is no longer young":       func(r *rig) { r.clock.advance(liveness); r.beat() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r, l := newRig(t), make(loads, 2)
				before := r.start(t.Context(), "a", l)
				first := <-l
				change(r)
				after := r.start(t.Context(), "a", l)
				synctest.Wait()
				first <- reply("five", 5)
				wantResult(t, before, "five")
				(<-l) <- reply("six", 6)
				wantResult(t, after, "six")
			})
		})
	}
}

func TestALoadOvertakenByAnInvalidationIsNotKept(t *testing.T) {
	t.Parallel()
	for name, heard := range map[string]func(*rig){
		"by a version":          func(r *rig) { r.Heard(key("a"), 6) },
		"by an unknown version": func(r *rig) { r.HeardUnknown(key("a")) },
		"by a reconnect":        func(r *rig) { r.listener.Lost(); r.listener.Listening(server); r.beat() },
		"by a clear":            func(r *rig) { r.listener.HeardClear(); r.beat() },
		"by a revoke":           func(r *rig) { r.HeardSubject(7) },
		"by the end of it":      func(r *rig) { r.Ended([]cache.Version{{Key: key("a"), Version: 6}}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.OnLoaded(func(cache.Key) { heard(r) })
			five := reply("five", 5)
			five.Subject = 7
			if _, _, err := r.Load(t.Context(), key("a"), answering(five)); err != nil {
				t.Fatal(err)
			}
			r.wantMiss("a")
			if s := r.Stats(); s.Loads != 1 || s.Entries != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestWhileNotLiveLoadsOfOneSessionTakeTurnsAndAreShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, l := newRig(t), make(loads, 10)
		r.listener.Lost()
		first := r.start(t.Context(), "a", l)
		answer := <-l
		var others []<-chan result
		for range 5 {
			others = append(others, r.start(t.Context(), "a", l))
		}
		synctest.Wait()
		if len(l) != 0 {
			t.Error("a second load runs beside the first")
		}
		answer <- reply("five", 5)
		wantResult(t, first, "five")
		(<-l) <- reply("six", 6)
		for _, c := range others {
			wantResult(t, c, "six")
		}
		r.wantMiss("a")
		if s := r.Stats(); s.NotLive != 6 || s.Loads != 2 {
			t.Errorf("%+v", s)
		}
	})
}

func TestALoadThatHangsDoesNotHoldUpTheNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, l := newRig(t), make(loads, 10)
		r.listener.Lost()
		ctx, cancel := context.WithCancel(t.Context())
		hanging := r.start(ctx, "a", l)
		<-l
		second := r.start(t.Context(), "a", l)
		began := time.Now()
		answer := <-l
		if waited := time.Since(began); waited != liveness {
			t.Errorf("the next one waited %v", waited)
		}
		answer <- reply("five", 5)
		wantResult(t, second, "five")
		cancel()
		if got := <-hanging; !errors.Is(got.err, context.Canceled) {
			t.Errorf("%+v", got)
		}
	})
}

func TestLoadsAtOnceAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(cfg *cache.Config) { cfg.MaxLoads = 2 })
		l := make(loads, 10)
		a, b, c := r.start(t.Context(), "a", l), r.start(t.Context(), "b", l), r.start(t.Context(), "c", l)
		synctest.Wait()
		if len(l) != 2 {
			t.Fatalf("%d loads run", len(l))
		}
		for range 3 {
			(<-l) <- reply("v", 1)
		}
		wantResult(t, a, "v")
		wantResult(t, b, "v")
		wantResult(t, c, "v")
	})
}

func TestALoadGoesOnWhenTheOneWhoAskedGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, l := newRig(t), make(loads, 10)
		ctx, cancel := context.WithCancel(t.Context())
		first, second := r.start(ctx, "a", l), r.start(t.Context(), "a", l)
		answer := <-l
		cancel()
		if got := <-first; !errors.Is(got.err, context.Canceled) {
			t.Errorf("%+v", got)
		}
		answer <- reply("five", 5)
		wantResult(t, second, "five")
		r.wantHit("a", "five")
	})
}

func TestALoadThatNobodyWaitsForDoesNotBegin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(cfg *cache.Config) { cfg.MaxLoads = 1 })
		l := make(loads, 10)
		busy := r.start(t.Context(), "busy", l)
		answer := <-l
		ctx, cancel := context.WithCancel(t.Context())
		queued := r.start(ctx, "a", l)
		synctest.Wait()
		cancel()
		<-queued
		answer <- reply("v", 1)
		wantResult(t, busy, "v")
		synctest.Wait()
		if len(l) != 0 || r.Pending() != 0 {
			t.Errorf("%d loads began, %d records", len(l), r.Pending())
		}
		again := r.start(t.Context(), "a", l)
		(<-l) <- reply("v", 1)
		wantResult(t, again, "v")
	})
}

func TestARequestThatHasEndedLoadsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := r.Load(ctx, key("a"), answering(reply("v", 1))); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if s := r.Stats(); s.Loads != 0 {
		t.Errorf("%+v", s)
	}
}

func TestALoadsContextHasTheRequestsValuesAndEndsByTheTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		type traceKey struct{}
		ctx := context.WithValue(t.Context(), traceKey{}, "trace")
		_, _, err := r.Load(ctx, key("a"), func(ctx context.Context) (cache.Reply[string], error) {
			if ctx.Value(traceKey{}) != "trace" {
				t.Error("the value is gone")
			}
			<-ctx.Done()
			return cache.Reply[string]{}, ctx.Err()
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}

// What is read inside one request's transaction is for nobody else, whether they came before it began or after.
func TestAPrivateLoadIsForTheOneItWasBegunForAlone(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]error{"an answer": nil, "an error": errors.New("the transaction is aborted")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, func(cfg *cache.Config) { cfg.MaxLoads = 1 })
				busy, proceed := make(chan struct{}), make(chan struct{})
				go func() {
					_, _, _ = r.Load(t.Context(), key("busy"), func(context.Context) (cache.Reply[string], error) {
						<-busy
						return reply("v", 1), nil
					})
				}()
				synctest.Wait()
				results := make(chan error, 3)
				load := func() {
					_, _, err := r.Load(t.Context(), key("a"), func(context.Context) (cache.Reply[string], error) {
						<-proceed
						private := reply("uncommitted", 6)
						private.Private, private.Cacheable = true, false
						return private, fails
					})
					results <- err
				}
				go load()
				synctest.Wait()
				go load() // before it begins
				synctest.Wait()
				close(busy)
				synctest.Wait()
				go load() // while it runs
				synctest.Wait()
				close(proceed)
				private := 0
				for range 3 {
					if err := <-results; errors.Is(err, cache.ErrPrivate) {
						private++
					} else if !errors.Is(err, fails) {
						t.Errorf("%v", err)
					}
				}
				if private != 2 {
					t.Errorf("%d of 3 were told to read for themselves, want 2", private)
				}
				r.wantMiss("a")
			})
		})
	}
}

func TestErrorsAreNotKept(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	down := errors.New("the server is down")
	_, alive, err := r.Load(t.Context(), key("a"), func(context.Context) (cache.Reply[string], error) {
		return reply("never", 9), down
	})
	if alive || !errors.Is(err, down) {
		t.Errorf("%v %v", alive, err)
	}
	v, alive, err := r.Load(t.Context(), key("a"), answering(reply("five", 5)))
	if !alive || err != nil || *v != "five" {
		t.Errorf("%v %v %v", v, alive, err)
	}
}

func TestALoadThatPanicsOrExitsFailsAllWhoWait(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(){"panic": func() { panic("boo") }, "exit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				proceed, results := make(chan struct{}), make(chan error, 2)
				for range 2 {
					go func() {
						_, _, err := r.Load(t.Context(), key("a"), func(context.Context) (cache.Reply[string], error) {
							<-proceed
							end()
							return reply("never", 1), nil
						})
						results <- err
					}()
				}
				synctest.Wait()
				close(proceed)
				for range 2 {
					err := <-results
					var p *cache.PanicError
					if err == nil || errors.As(err, &p) != (name == "panic") {
						t.Errorf("%v", err)
					}
				}
				if n := r.Pending(); n != 0 {
					t.Errorf("%d records are left", n)
				}
				r.wantMiss("a")
			})
		})
	}
}

func TestCloseEndsLoadsThatRunAndLoadsThatWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(cfg *cache.Config) { cfg.MaxLoads = 1 })
		l := make(loads, 10)
		a := r.start(t.Context(), "a", l)
		<-l
		b := r.start(t.Context(), "b", l)
		synctest.Wait()
		r.Close()
		for _, c := range []<-chan result{a, b} {
			if got := <-c; !errors.Is(got.err, cache.ErrClosed) {
				t.Errorf("%+v", got)
			}
		}
		if n := r.Pending(); n != 0 {
			t.Errorf("%d records are left", n)
		}
	})
}

// Nobody is told of a session that was created, so no notification fences a load that found none.
func TestWhoJoinedLateIsNotToldThatThereIsNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, l := newRig(t), make(loads, 2)
		before := r.start(t.Context(), "a", l)
		first := <-l
		var after []<-chan result // of those to whom another instance has just given the token
		for range 5 {
			after = append(after, r.start(t.Context(), "a", l))
		}
		synctest.Wait()
		first <- cache.Reply[string]{}
		if got := <-before; got.alive || got.err != nil {
			t.Errorf("%+v", got)
		}
		second := <-l // for all of them
		synctest.Wait()
		second <- reply("new", 1)
		for _, one := range after {
			wantResult(t, one, "new")
		}
		if s := r.Stats(); s.Loads != 2 {
			t.Errorf("%d loads", s.Loads)
		}
	})
}
