package cache_test

import (
	"fmt"
	"testing"

	"github.com/pgsession/pgsession/internal/cache"
)

func TestAFenceIsLiftedByWhatItsTransactionCommitted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill("a", reply("five", 5))
	tx := r.BeginTx(key("a"))
	r.Heard(key("a"), 6) // of another writer, whom the transaction waited for
	r.fill("a", reply("six", 6))
	r.wantMiss("a")
	tx.Wrote(7)
	r.Heard(key("a"), 6)
	r.fill("a", reply("six", 6))
	r.wantMiss("a")
	r.Heard(key("a"), 7)
	r.fill("a", reply("seven", 7))
	r.wantHit("a", "seven")
}

func TestAFenceOfTwoTransactionsWaitsForTheLater(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first, second := r.BeginTx(key("a")), r.BeginTx(key("a"))
	first.Wrote(6)
	r.Heard(key("a"), 6)
	r.fill("a", reply("six", 6))
	r.wantMiss("a")
	second.WroteNothing()
	r.fill("a", reply("six", 6))
	r.wantMiss("a") // it is not known yet that the first has ended
	r.Heard(key("a"), 6)
	r.fill("a", reply("six", 6))
	r.wantHit("a", "six")
}

func TestAFenceEndsWithMaxAge(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.BeginTx(key("a"))
	r.clock.advance(maxAge - 1)
	r.beat()
	r.fill("a", reply("five", 5))
	r.wantMiss("a")
	r.clock.advance(1)
	r.fill("a", reply("five", 5))
	r.wantHit("a", "five")
	if n := r.Stats().Fences; n != 0 {
		t.Errorf("%d fences are left", n)
	}
}

// Others keep the fence up, and each is heard of.
func TestAStatementInDoubtFencesForMaxAge(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.BeginTx(key("a")) // never answered
	for version := range int64(3) {
		r.clock.advance(maxAge/2 - 1)
		r.beat()
		r.BeginTx(key("a")).Wrote(version)
		r.Heard(key("a"), version)
		r.fill("a", reply("v", version))
		if version < 2 {
			r.wantMiss("a")
		} else {
			r.wantHit("a", "v")
		}
	}
}

func TestAStatementThatOutlivesItsFenceFencesAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	slow := r.BeginTx(key("a"))
	r.clock.advance(maxAge)
	r.beat()
	r.fill("a", reply("five", 5))
	r.wantHit("a", "five") // its fence has ended
	other := r.BeginTx(key("a"))
	slow.Wrote(6)
	r.Heard(key("a"), 6)
	r.fill("a", reply("six", 6))
	r.wantMiss("a") // the other one is still awaited
	other.Wrote(7)
	r.Heard(key("a"), 7)
	r.fill("a", reply("seven", 7))
	r.wantHit("a", "seven")
}

func TestAFloodOfFencesFencesEverythingForMaxAge(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill("a", reply("five", 5))
	for i := range cache.MaxFences + 1 {
		r.BeginTx(key(fmt.Sprint(i)))
	}
	if n := r.Stats().Fences; n > cache.MaxFences {
		t.Fatalf("%d fences", n)
	}
	r.wantMiss("a")
	r.wantMiss("0")
	r.clock.advance(maxAge)
	r.beat()
	r.fill("a", reply("six", 6))
	r.wantHit("a", "six")
	r.fill("0", reply("one", 1))
	r.wantHit("0", "one")
}

func TestASessionThisProcessEndedIsNoneEvenWhereALaggingReplicaShowsIt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.Ended([]cache.Version{{Key: key("a"), Version: 6}})
	five := reply("five", 5)
	five.Cacheable = false
	op := r.Begin(key("a"))
	if op.Read(five) {
		t.Error("it lives")
	}
	op.End()
	if _, alive, err := r.Load(t.Context(), key("a"), answering(five)); alive || err != nil {
		t.Errorf("it lives: %v", err)
	}
	seven := reply("seven", 7) // a new session of the same id
	if v, alive, err := r.Load(t.Context(), key("a"), answering(seven)); !alive || err != nil || *v != "seven" {
		t.Errorf("the new session: %v %v %v", v, alive, err)
	}
	r.clock.advance(maxAge)
	if _, alive, err := r.Load(t.Context(), key("a"), answering(five)); !alive || err != nil {
		t.Errorf("after MaxAge: %v %v", alive, err)
	}
}

func TestARenewedTokenInItsGraceIsAnswered(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.Ended([]cache.Version{{Key: key("old"), Version: 6}})
	answer := reply("six", 6)
	answer.RenewedTo = key("new")
	if v, alive, err := r.Load(t.Context(), key("old"), answering(answer)); !alive || err != nil || *v != "six" {
		t.Errorf("%v %v %v", v, alive, err)
	}
	r.wantMiss("old")
}

func TestEndedSessionsTakeBoundedMemory(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range cache.MaxEnded + 100 {
		r.Ended([]cache.Version{{Key: key(fmt.Sprint(i)), Version: 1}})
	}
	if n := r.Remembered(); n > cache.MaxEnded {
		t.Errorf("%d are remembered", n)
	}
	r.clock.advance(maxAge)
	r.Ended([]cache.Version{{Key: key("a"), Version: 1}})
	if n := r.Remembered(); n != 1 {
		t.Errorf("%d are remembered after MaxAge", n)
	}
}
