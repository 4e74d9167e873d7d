package cache_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/pgsession/internal/cache"
)

func TestWhatWasReadIsServed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.wantMiss("a")
	r.fill("a", reply("one", 1))
	r.wantHit("a", "one")
	r.wantMiss("b")
}

func TestAnEntryIsServedUntilItsDeadlineOrMaxAgeWhicheverIsEarlier(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(cfg *cache.Config) { cfg.Liveness = maxAge })
	short := reply("short", 1)
	short.Remaining = 10 * time.Second
	op := r.Begin(key("short")) // both count from the beginning of the operation
	r.clock.advance(time.Second)
	op.Read(short)
	op.End()
	r.fill("long", reply("long", 1))

	r.clock.advance(9*time.Second - 1)
	r.wantHit("short", "short")
	r.clock.advance(1)
	r.wantMiss("short")

	r.beat()
	r.clock.advance(maxAge - 9*time.Second - 1)
	r.wantHit("long", "long")
	r.clock.advance(1)
	r.wantMiss("long")
}

func TestARemainingTimeThatIsForEverDoesNotOverflow(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	answer := reply("one", 1)
	answer.Remaining = 1<<63 - 1
	r.clock.advance(time.Hour)
	r.beat()
	r.fill("a", answer)
	r.wantHit("a", "one")
}

// Each condition of the rule fill.
func TestWhatMustNotBeKeptIsNot(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		why    cache.Refusal
		reply  func(*cache.Reply[string])
		during func(*rig)
	}{
		{why: cache.RefusedNotAlive, reply: func(r *cache.Reply[string]) { r.Alive = false }},
		{why: cache.RefusedViaRenewed, reply: func(r *cache.Reply[string]) { r.RenewedTo = key("new") }},
		{why: cache.RefusedNotCacheable, reply: func(r *cache.Reply[string]) { r.Cacheable = false }},
		{why: cache.RefusedServer, reply: func(r *cache.Reply[string]) { r.Server = "another" }},
		{why: cache.RefusedServer, reply: func(r *cache.Reply[string]) { r.Server = "" }},
		{why: cache.RefusedEpoch, during: func(r *rig) { r.listener.Lost() }},
		{why: cache.RefusedEpoch, during: func(r *rig) { r.listener.Listening(server) }},
		{why: cache.RefusedEpoch, during: func(r *rig) { r.listener.HeardClear() }},
		{why: cache.RefusedEpoch, during: func(r *rig) { r.Cleared() }},
		{why: cache.RefusedEpoch, during: func(r *rig) { r.Ended(make([]cache.Version, cache.MaxRaises+1)) }},
		{why: cache.RefusedFence, during: func(r *rig) { r.BeginTx(key("a")) }},
		{why: cache.RefusedFence, during: func(r *rig) { r.EndedInTx([]cache.Version{{Key: key("a"), Version: 9}}) }},
		{why: cache.RefusedFloor, during: func(r *rig) { r.Heard(key("a"), 6) }},
		{why: cache.RefusedDead, during: func(r *rig) { r.HeardUnknown(key("a")) }},
		{why: cache.RefusedDead, during: func(r *rig) { r.InDoubt(key("b"), key("a")) }},
		{why: cache.RefusedDead, during: func(r *rig) { r.NotAlive(key("b"), key("a")) }},
		{why: cache.RefusedEpoch, during: func(r *rig) { r.NotAlive(make([]cache.Key, cache.MaxRaises+1)...) }},
		{why: cache.RefusedSubject, during: func(r *rig) { r.HeardSubject(7) }},
		{why: cache.RefusedSubject, during: func(r *rig) { r.Revoked(7) }},
		{why: cache.RefusedOlder, during: func(r *rig) { r.fill("a", reply("newer", 6)) }},
		{why: cache.RefusedLarge, reply: func(r *cache.Reply[string]) { r.Size = 1 << 20 }},
		{why: cache.RefusedLarge, reply: func(r *cache.Reply[string]) { r.Size = -1 }},
		{why: cache.RefusedExpired, reply: func(r *cache.Reply[string]) { r.Remaining = 0 }},
		{why: cache.RefusedExpired, during: func(r *rig) { r.clock.advance(maxAge) }},
	} {
		t.Run(test.why.String(), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			answer := reply("five", 5)
			answer.Subject = 7
			if test.reply != nil {
				test.reply(&answer)
			}
			op := r.Begin(key("a"))
			if test.during != nil {
				test.during(r)
			}
			before := r.Stats().Refused[test.why]
			op.Read(answer)
			op.End()
			if got := r.Stats().Refused[test.why]; got != before+1 {
				t.Errorf("refused %v", r.Stats().Refused)
			}
			r.listener.Listening(server)
			r.beat()
			r.wantMiss("a")
			if n := r.Pending(); n != 0 {
				t.Errorf("%d records of operations are left", n)
			}
		})
	}
}

func TestWhatEndsAnEntry(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		happens func(*rig)
		ends    bool
	}{
		"a newer version is heard":                  {func(r *rig) { r.Heard(key("a"), 6) }, true},
		"its own version is heard":                  {func(r *rig) { r.Heard(key("a"), 5) }, false},
		"an older version is heard":                 {func(r *rig) { r.Heard(key("a"), 4) }, false},
		"another session is heard of":               {func(r *rig) { r.Heard(key("b"), 6) }, false},
		"an unknown version is heard":               {func(r *rig) { r.HeardUnknown(key("a")) }, true},
		"its subject is revoked elsewhere":          {func(r *rig) { r.HeardSubject(7) }, true},
		"its subject is revoked here":               {func(r *rig) { r.Revoked(7) }, true},
		"another subject is revoked":                {func(r *rig) { r.HeardSubject(8) }, false},
		"nobody is revoked":                         {func(r *rig) { r.HeardSubject(0) }, false},
		"all is cleared elsewhere":                  {func(r *rig) { r.listener.HeardClear(); r.beat() }, true},
		"all is cleared here":                       {func(r *rig) { r.Cleared() }, true},
		"the listener is lost and comes back":       {func(r *rig) { r.listener.Lost(); r.listener.Listening(server); r.beat() }, true},
		"it is ended here":                          {func(r *rig) { r.Ended([]cache.Version{{Key: key("a"), Version: 6}}) }, true},
		"very many are ended here":                  {func(r *rig) { r.Ended(make([]cache.Version, cache.MaxRaises+1)) }, true},
		"somebody else has ended it":                {func(r *rig) { r.NotAlive(key("a")) }, true},
		"somebody else has ended another":           {func(r *rig) { r.NotAlive(key("b")) }, false},
		"a write of it has no reply":                {func(r *rig) { op := r.Begin(key("a")); op.InDoubt(); op.End() }, true},
		"a write of another has no reply":           {func(r *rig) { op := r.Begin(key("b")); op.InDoubt(); op.End() }, false},
		"a transaction writes it":                   {func(r *rig) { r.BeginTx(key("a")).Wrote(6) }, true},
		"a transaction writes it, nothing is heard": {func(r *rig) { r.BeginTx(key("a")) }, true},
		"a transaction wrote nothing":               {func(r *rig) { r.BeginTx(key("a")).WroteNothing() }, false},
		"a transaction ends it":                     {func(r *rig) { r.EndedInTx([]cache.Version{{Key: key("a"), Version: 6}}) }, true},
		"a read finds it gone":                      {func(r *rig) { r.fill("a", cache.Reply[string]{}) }, true},
		"a read finds a newer that is not kept":     {func(r *rig) { a := reply("six", 6); a.Cacheable = false; r.fill("a", a) }, true},
		"the machine sleeps":                        {func(r *rig) { r.clock.sleep(2 * time.Second); r.beat() }, true},
		"the cache is closed":                       {func(r *rig) { r.Close() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			answer := reply("five", 5)
			answer.Subject = 7
			r.fill("a", answer)
			r.wantHit("a", "five")
			test.happens(r)
			if test.ends {
				r.wantMiss("a")
			} else {
				r.wantHit("a", "five")
			}
		})
	}
}

func TestAWriterDoesNotEvictWhatItWrote(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	op := r.Begin(key("a"))
	op.Wrote(reply("five", 5))
	op.End()
	r.Heard(key("a"), 5)
	r.wantHit("a", "five")
}

func TestAReadThatBeganBeforeAWriteDoesNotUndoIt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	read := r.Begin(key("a"))
	write := r.Begin(key("a"))
	six := reply("six", 6)
	six.Cacheable = false // so that what is cached does not protect it
	write.Wrote(six)
	write.End()
	read.Read(reply("five", 5))
	read.End()
	r.wantMiss("a")
}

func TestAWriteWhoseReplyIsOvertakenIsNotKept(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	write := r.Begin(key("a"))
	r.Heard(key("a"), 6)
	write.Wrote(reply("five", 5))
	write.End()
	r.wantMiss("a")
}

// What the server answered before a fresh read found none may belong to an operation that began after it.
func TestWhatAFreshReadFoundGoneStaysGone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	fresh, write, read := r.Begin(key("a")), r.Begin(key("a")), r.Begin(key("a"))
	write.Wrote(reply("five", 5))
	write.End()
	r.wantHit("a", "five")
	fresh.Read(cache.Reply[string]{})
	fresh.End()
	r.wantMiss("a")
	read.Read(reply("five", 5))
	read.End()
	r.wantMiss("a")
	r.fill("a", reply("five", 5)) // as one that begins now finds it
	r.wantHit("a", "five")
}

func TestATouchExtendsTheVersionItFound(t *testing.T) {
	t.Parallel()
	touch := func(r *rig, version int64) {
		op := r.Begin(key("a"))
		answer := reply("ignored", version)
		op.Touched(answer, func(v string) string { return v + "!" })
		op.End()
	}
	r := newRig(t, func(cfg *cache.Config) { cfg.Liveness = maxAge })
	answer := reply("five", 5)
	answer.Subject = 7
	answer.Remaining = 10 * time.Second
	r.fill("a", answer)
	if _, left, ok := r.GetRemaining(key("a")); !ok || left != 10*time.Second {
		t.Errorf("%v left, %v", left, ok)
	}
	touch(r, 5)
	r.clock.advance(20 * time.Second)
	r.wantHit("a", "five!")
	if _, left, ok := r.GetRemaining(key("a")); !ok || left != time.Hour-20*time.Second {
		t.Errorf("%v left, %v", left, ok)
	}
	r.HeardSubject(7) // it has kept its subject
	r.wantMiss("a")

	r.fill("a", reply("five", 5))
	touch(r, 6)
	r.wantMiss("a")

	r.fill("a", reply("six", 6))
	op := r.Begin(key("a"))
	op.Touched(cache.Reply[string]{}, nil) // there is none
	op.End()
	r.wantMiss("a")
}

func TestATouchThatIsOvertakenExtendsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill("a", reply("five", 5))
	op := r.Begin(key("a"))
	r.Heard(key("a"), 6)
	op.Touched(reply("", 5), nil)
	op.End()
	r.wantMiss("a")
}

func TestAFailoverThatWentBackIsFollowed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill("a", reply("six", 6))
	r.listener.Lost()
	r.listener.Listening("the standby")
	r.beat()
	five := reply("five", 5) // the last commit was lost
	five.Server = "the standby"
	r.fill("a", five)
	r.wantHit("a", "five")
}

func TestTheCapacityIsABoundInBytes(t *testing.T) {
	t.Parallel()
	const capacity = 1 << 20
	r := newRig(t, func(cfg *cache.Config) { cfg.Capacity = capacity })
	largest := capacity/cache.LargestShare - cache.EntryOverhead
	large := reply("large", 1)
	large.Size = largest
	r.fill("a", large)
	r.wantHit("a", "large")
	large.Size++
	r.fill("b", large)
	r.wantMiss("b")
	large.Version++
	r.fill("a", large) // too large now, and what is cached is older
	r.wantMiss("a")
	for i := range 10_000 {
		r.fill(fmt.Sprint(i), reply(strings.Repeat("x", 400), 1))
	}
	for s := r.Stats(); s.Bytes > capacity; s = r.Stats() {
		// Entries are driven out by a goroutine of the map's.
		if t.Context().Err() != nil {
			t.Fatalf("%d bytes", s.Bytes)
		}
		runtime.Gosched()
	}
	if s := r.Stats(); s.Evictions == 0 || s.Entries == 0 {
		t.Errorf("%+v", s)
	}
}

func TestAConfigThatCannotWorkIsRefused(t *testing.T) {
	t.Parallel()
	good := cache.Config{Capacity: 1 << 20, MaxAge: maxAge, Liveness: liveness, MaxLoads: 1, LoadTimeout: time.Second}
	for name, spoil := range map[string]func(*cache.Config){
		"Capacity":    func(cfg *cache.Config) { cfg.Capacity = 1 },
		"MaxAge":      func(cfg *cache.Config) { cfg.MaxAge = 0 },
		"Liveness":    func(cfg *cache.Config) { cfg.Liveness = 2 * maxAge },
		"MaxLoads":    func(cfg *cache.Config) { cfg.MaxLoads = 0 },
		"LoadTimeout": func(cfg *cache.Config) { cfg.LoadTimeout = -1 },
		"WhenNotLive": func(cfg *cache.Config) { cfg.WhenNotLive = 9 },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := cache.New[string](cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAfterCloseNothingIsServed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill("a", reply("five", 5))
	r.Close()
	r.Close()
	r.listener.Listening(server)
	r.beat()
	r.fill("a", reply("five", 5))
	r.wantMiss("a")
	if _, _, err := r.Load(t.Context(), key("a"), answering(reply("five", 5))); !errors.Is(err, cache.ErrClosed) {
		t.Errorf("Load: %v", err)
	}
}
