package cache_test

import (
	"testing"
	"time"

	"github.com/pgsession/pgsession/internal/cache"
)

func TestNothingIsServedWithoutAListener(t *testing.T) {
	t.Parallel()
	c, err := cache.New[string](cache.Config{
		Capacity: 1 << 20, MaxAge: maxAge, Liveness: liveness, MaxLoads: 1, LoadTimeout: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, live := c.Live(); live {
		t.Error("it is live")
	}
}

func TestLivenessCountsFromTheSendingOfABeat(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.clock.advance(time.Second)
	r.fill("a", reply("five", 5))
	b := r.listener.Beat()
	r.clock.advance(time.Second)
	b.Answered("n")
	r.clock.advance(time.Second - 1)
	r.wantHit("a", "five") // by the first beat
	r.clock.advance(1)
	r.wantMiss("a")
	r.listener.HeardBeat("n")
	r.wantHit("a", "five")
	if left, live := r.Live(); !live || left != time.Second {
		t.Errorf("live %v for %v", live, left)
	}
	r.clock.advance(time.Second)
	r.wantMiss("a")
}

func TestANonceThatIsHeardBeforeItsBeatIsAnsweredCounts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.clock.advance(time.Second)
	b := r.listener.Beat()
	r.listener.HeardBeat("n")
	b.Answered("n")
	if left, _ := r.Live(); left != liveness {
		t.Errorf("live for %v", left)
	}
}

func TestTwoBeatsWithOneNonceProveWhatTheLaterDoes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.clock.advance(time.Second)
	first := r.listener.Beat()
	r.clock.advance(time.Second)
	second := r.listener.Beat()
	second.Answered("n")
	first.Answered("n")
	r.listener.HeardBeat("n")
	if left, _ := r.Live(); left != liveness {
		t.Errorf("live for %v", left)
	}
}

func TestANonceThatNobodyAskedForProvesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.clock.advance(liveness)
	r.listener.HeardBeat("forged")
	for range 100 {
		r.listener.HeardBeat("another's")
	}
	if _, live := r.Live(); live {
		t.Error("it is live")
	}
}

func TestABeatOfAnEarlierConnectionProvesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	unanswered, answered := r.listener.Beat(), r.listener.Beat()
	answered.Answered("answered")
	r.listener.Lost()
	r.listener.Listening(server)
	unanswered.Answered("unanswered")
	r.listener.HeardBeat("unanswered")
	r.listener.HeardBeat("answered")
	if _, live := r.Live(); live {
		t.Error("it is live")
	}
	r.beat()
	if _, live := r.Live(); !live {
		t.Error("it is not live again")
	}
}

func TestLiveIsAllListenersLive(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill("a", reply("five", 5))
	second := r.NewListener()
	r.wantMiss("a")
	second.Listening("the second")
	b := second.Beat()
	b.Answered("n")
	second.HeardBeat("n")
	r.fill("a", reply("five", 5))
	r.wantHit("a", "five")
	there := reply("six", 6)
	there.Server = "the second"
	r.fill("b", there)
	r.wantHit("b", "six")
	second.Lost()
	r.wantMiss("a")
	r.beat()
	r.wantMiss("a")
}

func TestServingWhileNotLiveEndsWithMaxAgeAndWithTheNextConnection(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(cfg *cache.Config) { cfg.WhenNotLive = cache.ServeUntilMaxAge })
	r.fill("a", reply("five", 5))
	r.listener.Lost()
	r.clock.advance(maxAge - 1)
	r.wantHit("a", "five")
	r.clock.advance(1)
	r.wantMiss("a")

	r.fill("a", reply("five", 5))
	r.wantHit("a", "five")
	r.listener.Listening(server)
	r.wantMiss("a")
}

func TestASleepingMachineServesNothingWhenItWakes(t *testing.T) {
	t.Parallel()
	for name, when := range map[string]cache.WhenNotLive{"bypass": cache.Bypass, "serve": cache.ServeUntilMaxAge} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(cfg *cache.Config) { cfg.WhenNotLive = when })
			r.fill("a", reply("five", 5))
			r.clock.sleep(time.Hour)
			r.wantMiss("a")
			r.listener.HeardBeat("beat") // asked for before the sleep
			r.wantMiss("a")
			r.beat()
			r.wantMiss("a") // its deadlines did not count the sleep
			r.fill("a", reply("six", 6))
			r.wantHit("a", "six")
		})
	}
}

func TestAShortSleepCountsTowardsTheLivenessDeadline(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill("a", reply("five", 5))
	r.clock.advance(liveness - time.Second/2)
	r.wantHit("a", "five")
	r.clock.sleep(time.Second / 2)
	r.wantMiss("a")
	r.beat()
	r.wantHit("a", "five")
}

func TestAWallClockThatIsSetBackProlongsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill("a", reply("five", 5))
	r.clock.wall.Add(-int64(time.Hour))
	r.wantHit("a", "five")
	r.clock.advance(liveness)
	r.wantMiss("a")
}
