package cache_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/pgsession/internal/cache"
)

const tick = time.Millisecond

// Now makes the world a clock.
func (w *world) Now() cache.Instant {
	t := int64(w.now) * int64(tick)
	return cache.Instant{Mono: t, Wall: 1e18 + t}
}

func (w *world) Mono() int64 { return w.Now().Mono }

// real is the cache of one process, on the model's wire. Its goroutines run only while the world
// waits in settle, which puts what they did in an order that does not depend on the scheduler.
type real struct {
	*cache.Cache[value]
	w        *world
	i        int
	listener *cache.Listener[value]

	mu      sync.Mutex
	busy    bool // goroutines have been woken or started
	gets    int
	asked   []asked
	arrived []arrived
}

type asked struct {
	key    int
	answer chan answer
}

type arrived struct {
	get  int
	done func()
}

func newReal(t *testing.T) func(*world, int) node {
	return func(w *world, i int) node {
		when := cache.Bypass
		if w.serve {
			when = cache.ServeUntilMaxAge
		}
		c, err := cache.New[value](cache.Config{
			WhenNotLive: when, Capacity: 1 << 20, MaxAge: maxAgeTicks * tick, Liveness: liveTicks * tick,
			MaxLoads: 1000, LoadTimeout: time.Hour, Clock: w,
		})
		if err != nil {
			t.Fatal(err)
		}
		for s, rule := range map[switches]cache.Rule{
			offLoadFloor: cache.RuleFloor, offRaiseOnReply: cache.RuleRaiseOnReply, offJoinRule: cache.RuleJoin,
			offTxFence: cache.RuleTxFence, offLoadEpoch: cache.RuleEpoch, offSecondEpoch: cache.RuleSecondEpoch,
			offSubjectFloor: cache.RuleSubjectFloor, offViaRenewed: cache.RuleViaRenewed,
			offSendingTime: cache.RuleSendingTime, offFenceVersion: cache.RuleFenceVersion,
			offLate: cache.RuleLate, offEnded: cache.RuleEnded, offGone: cache.RuleGone,
		} {
			if w.off&s != 0 {
				c.SwitchOff(rule)
			}
		}
		return &real{Cache: c, w: w, i: i, listener: c.NewListener()}
	}
}

func realKey(key int) cache.Key { return cache.Key{byte(key), byte(key), 1} }

func toReply(a answer) cache.Reply[value] {
	r := cache.Reply[value]{
		Alive: a.alive, Cacheable: a.cacheable, Server: server, Version: int64(a.version),
		Subject: cache.Subject(a.subject), Remaining: time.Duration(a.remaining) * tick, Value: a.value,
	}
	if a.viaRenewed {
		r.RenewedTo = realKey(a.value.row)
	}
	return r
}

func toVersions(sessions []version) []cache.Version {
	out := make([]cache.Version, len(sessions))
	for i, s := range sessions {
		out[i] = cache.Version{Key: realKey(s.key), Version: int64(s.version)}
	}
	return out
}

func (n *real) get(key int, done func(value, bool)) {
	if v, ok := n.Get(realKey(key)); ok {
		done(*v, true)
		return
	}
	get := n.gets
	n.gets++
	n.busy = true
	go func() {
		v, alive, err := n.Load(context.Background(), realKey(key), func(ctx context.Context) (cache.Reply[value], error) {
			return n.load(ctx, key)
		})
		if errors.Is(err, cache.ErrClosed) {
			return
		}
		if v == nil {
			v = new(value)
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.arrived = append(n.arrived, arrived{get, func() { done(*v, alive) }})
	}()
}

func (n *real) load(ctx context.Context, key int) (cache.Reply[value], error) {
	c := make(chan answer, 1)
	n.mu.Lock()
	n.asked = append(n.asked, asked{key, c})
	n.mu.Unlock()
	select {
	case a := <-c:
		return toReply(a), nil
	case <-ctx.Done():
		return cache.Reply[value]{}, ctx.Err()
	}
}

func (n *real) settle() {
	if !n.busy {
		return
	}
	synctest.Wait()
	n.busy = false
	slices.SortFunc(n.asked, func(a, b asked) int { return a.key - b.key })
	for _, one := range n.asked {
		n.w.load(n.i, one.key, func(a answer) {
			n.busy = true
			one.answer <- a
		})
	}
	slices.SortFunc(n.arrived, func(a, b arrived) int { return a.get - b.get })
	for _, one := range n.arrived {
		one.done()
	}
	n.asked, n.arrived = n.asked[:0], n.arrived[:0]
}

func (n *real) close() { n.Close() }

// realOp is an operation. Without the rule that writes are begun it begins with its reply.
type realOp struct {
	n   *real
	key int
	op  *cache.Op[value]
}

func (n *real) begin(key int, write bool) operation {
	op := &realOp{n: n, key: key}
	if !write || n.w.off&offWritesBegun == 0 {
		op.begun()
	}
	return op
}

func (op *realOp) begun() *cache.Op[value] {
	if op.op == nil {
		op.op = op.n.Begin(realKey(op.key))
	}
	return op.op
}

func (op *realOp) read(a answer) bool { return op.begun().Read(toReply(a)) }
func (op *realOp) wrote(a answer)     { op.begun().Wrote(toReply(a)) }
func (op *realOp) touched(a answer)   { op.begun().Touched(toReply(a), nil) }
func (op *realOp) inDoubt()           { op.begun().InDoubt() }
func (op *realOp) end()               { op.begun().End() }

type realTx struct{ cache.TxWrite[value] }

func (t realTx) wrote(version int) { t.Wrote(int64(version)) }
func (t realTx) wroteNothing()     { t.WroteNothing() }

func (n *real) inDoubt(key int)              { n.InDoubt(realKey(key)) }
func (n *real) ended(sessions []version)     { n.Ended(toVersions(sessions)) }
func (n *real) revoked(subject int)          { n.Revoked(cache.Subject(subject)) }
func (n *real) cleared()                     { n.Cleared() }
func (n *real) beginTx(key int) transaction  { return realTx{n.BeginTx(realKey(key))} }
func (n *real) endedInTx(sessions []version) { n.EndedInTx(toVersions(sessions)) }
func (n *real) heard(key, version int)       { n.Heard(realKey(key), int64(version)) }
func (n *real) heardUnknown(key int)         { n.HeardUnknown(realKey(key)) }
func (n *real) heardSubject(subject int)     { n.HeardSubject(cache.Subject(subject)) }
func (n *real) heardClear()                  { n.listener.HeardClear() }
func (n *real) listening()                   { n.listener.Listening(server) }
func (n *real) lost()                        { n.listener.Lost() }
func (n *real) heardBeat(nonce int)          { n.listener.HeardBeat(strconv.Itoa(nonce)) }

func (n *real) beat() func(int) {
	b := n.listener.Beat()
	return func(nonce int) { b.Answered(strconv.Itoa(nonce)) }
}

// realHistory is history of the real cache, in a bubble of its own.
func realHistory(t *testing.T, seed uint64, off switches, verbose bool) (w *world) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { w = history(seed, off, verbose, newReal(t)) })
	return w
}

func TestTheRealCacheInTheHistoriesOfTheModel(t *testing.T) {
	t.Parallel()
	search(t, modelTime(t)/3, func(seed uint64, verbose bool) *world { return realHistory(t, seed, 0, verbose) })
}

func TestEachRuleOfTheRealCacheIsNeeded(t *testing.T) {
	t.Parallel()
	for off, name := range switchNames {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			needed(t, func(seed uint64) *world { return realHistory(t, seed, off, false) })
		})
	}
}

func TestAHistoryIsTheSameForTheSameSeed(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		if a, b := realHistory(t, seed, 0, true).String(), realHistory(t, seed, 0, true).String(); a != b {
			t.Errorf("seed %d gave two histories", seed)
		}
	}
}
