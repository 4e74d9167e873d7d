package cache_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgsession/pgsession/internal/cache"
)

// What this process has returned to its callers is never undone, whatever runs beside it. The race
// detector watches; the histories of the model cannot find what lies within one call.
func TestNoReadIsOlderThanAWriteOfThisProcessUnderLoad(t *testing.T) {
	t.Parallel()
	const keys, rounds = 4, 3000
	c, err := cache.New[int64](cache.Config{
		Capacity: 1 << 20, MaxAge: maxAge, Liveness: maxAge, MaxLoads: 4, LoadTimeout: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l := c.NewListener()
	live := func() {
		l.Listening(server)
		b := l.Beat()
		b.Answered("n")
		l.HeardBeat("n")
	}
	live()

	var table [keys]struct {
		lock      sync.Mutex // the row's
		committed atomic.Int64
		returned  atomic.Int64
	}
	name := func(i int) cache.Key { return key(fmt.Sprint(i)) }
	answer := func(version int64) cache.Reply[int64] {
		return cache.Reply[int64]{
			Alive: true, Cacheable: true, Server: server, Version: version, Remaining: time.Hour,
			Subject: cache.Subject(1 + version%2), Value: version,
		}
	}
	for i := range table {
		table[i].committed.Store(1)
	}

	type heard struct {
		key     cache.Key
		version int64
	}
	queue := make(chan heard, 64)
	var writers, others sync.WaitGroup
	others.Go(func() {
		for n := 0; ; n++ {
			h, ok := <-queue
			if !ok {
				return
			}
			switch n % 100 {
			case 97:
				l.Lost()
				live()
			case 98:
				c.HeardSubject(cache.Subject(1 + rand.IntN(2)))
			case 99:
				c.HeardUnknown(h.key)
			default:
				c.Heard(h.key, h.version)
			}
		}
	})
	for range 2 {
		writers.Go(func() {
			for range rounds {
				i := rand.IntN(keys)
				row := &table[i]
				inTx := rand.IntN(10) == 0
				var tx cache.TxWrite[int64]
				var op *cache.Op[int64]
				if inTx {
					tx = c.BeginTx(name(i))
				} else {
					op = c.Begin(name(i))
				}
				row.lock.Lock()
				version := row.committed.Load() + 1
				if inTx {
					tx.Wrote(version)
				}
				row.committed.Store(version)
				queue <- heard{name(i), version}
				row.lock.Unlock()
				if !inTx {
					op.Wrote(answer(version))
					op.End()
				}
				for old := row.returned.Load(); old < version && !row.returned.CompareAndSwap(old, version); {
					old = row.returned.Load()
				}
			}
		})
	}
	stop := make(chan struct{})
	for range 4 {
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				i := rand.IntN(keys)
				atLeast := table[i].returned.Load()
				v, ok := c.Get(name(i))
				if !ok {
					var err error
					v, _, err = c.Load(context.Background(), name(i), func(context.Context) (cache.Reply[int64], error) {
						return answer(table[i].committed.Load()), nil
					})
					if err != nil {
						t.Error(err)
						return
					}
				}
				if *v < atLeast {
					t.Errorf("read %d after %d had been returned", *v, atLeast)
					return
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	close(queue)
	others.Wait()
	if s := c.Stats(); s.Hits == 0 || s.Loads == 0 {
		t.Errorf("%+v", s)
	}
}
