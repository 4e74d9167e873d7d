package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/postgres"
)

// counted are sessions that hold a count, which a writer raises, and when each count was published. It
// tells how stale a read is.
type counted struct {
	tokens []pgsession.Token

	mu        sync.Mutex
	published [][]time.Time // of each session, of each of its counts: when the Set returned
}

func newCounted(ctx context.Context, store *pgsession.Store, n int) (*counted, error) {
	c := &counted{published: make([][]time.Time, n)}
	for i := range n {
		token, _, err := store.Create(ctx, pgsession.Session{Data: make([]byte, dataSize)})
		if err != nil {
			return nil, err
		}
		c.tokens = append(c.tokens, token)
		c.published[i] = []time.Time{time.Now()}
	}
	return c, nil
}

// raise raises the count of a session. One goroutine does so.
func (c *counted) raise(ctx context.Context, store *pgsession.Store, i int) error {
	c.mu.Lock()
	count := len(c.published[i])
	c.mu.Unlock()
	data := make([]byte, dataSize)
	binary.BigEndian.PutUint64(data, uint64(count))
	if _, err := store.Set(ctx, c.tokens[i], pgsession.Session{Data: data}); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.published[i] = append(c.published[i], time.Now())
	return nil
}

// read reads a session and returns how long before it began a newer count than its own was published;
// 0: none was.
func (c *counted) read(ctx context.Context, store *pgsession.Store, i int) (stale time.Duration, err error) {
	begun := time.Now()
	s, err := store.Get(ctx, c.tokens[i])
	if err != nil {
		return 0, err
	}
	count := binary.BigEndian.Uint64(s.Data)
	c.mu.Lock()
	defer c.mu.Unlock()
	if newer := count + 1; newer < uint64(len(c.published[i])) {
		return max(0, begun.Sub(c.published[i][newer])), nil
	}
	return 0, nil
}

// keepRaising raises counts of random sessions of the first n until ctx ends, that often.
func (c *counted) keepRaising(ctx context.Context, store *pgsession.Store, n int, every time.Duration) error {
	for next := time.Now(); ; next = next.Add(every) {
		select {
		case <-time.After(time.Until(next)):
		case <-ctx.Done():
			return nil
		}
		if err := c.raise(context.WithoutCancel(ctx), store, rand.N(n)); err != nil {
			return err
		}
	}
}

const liveness = 3 * time.Second // Config.Cache.Liveness

// saturated reads for 30 seconds from the cache of an instance whose pool is held by slow queries,
// while another instance updates every tenth session.
func saturated(ctx context.Context, url string, res *results, _ options) error {
	const sessions, changing, slow, duration = 200, 20, 300 * time.Millisecond, 30 * time.Second
	d, err := newDuo(ctx, url)
	if err != nil {
		return err
	}
	defer d.close(ctx)
	a, b, poolA := d.a, d.b, d.poolA
	c, err := newCounted(ctx, b, sessions)
	if err != nil {
		return err
	}
	for i := range sessions {
		if _, err := c.read(ctx, a, i); err != nil {
			return err
		}
	}
	running, stop := context.WithTimeout(ctx, duration)
	defer stop()
	var group sync.WaitGroup
	var failed errorOnce
	for range 4 * poolA.Config().MaxConns { // so that connections are waited for all the time
		group.Go(func() { failed.set(hold(running, poolA, slow)) })
	}
	group.Go(func() { failed.set(c.keepRaising(running, b, changing, 20*time.Millisecond)) })
	var steady, changed, notLive atomic.Int64
	var worst atomic.Int64
	for reader := range 4 {
		group.Go(func() {
			for running.Err() == nil {
				// Half of the readers are held up by the sessions that change: theirs is not all from memory.
				i := changing + rand.N(sessions-changing)
				count := &steady
				if reader%2 == 1 {
					i, count = rand.N(changing), &changed
				}
				stale, err := c.read(ctx, a, i)
				failed.set(err)
				raiseTo(&worst, int64(stale))
				count.Add(1)
				if !a.Stats().Cache.Live {
					notLive.Add(1)
				}
				time.Sleep(100 * time.Microsecond) // what else a request does
			}
		})
	}
	group.Wait()
	if err := failed.get(); err != nil {
		return err
	}
	res.printf("%v with every connection held by queries of %v: %d reads of sessions that do not change, %d of those that do; "+
		"%d while not live; oldest by %v, at most %v", duration, slow, steady.Load(), changed.Load(), notLive.Load(),
		time.Duration(worst.Load()).Round(time.Microsecond), liveness)
	if time.Duration(worst.Load()) > liveness || notLive.Load() > 0 || steady.Load() < 10_000 {
		return fmt.Errorf("%w: saturated", errBeyondLimit)
	}
	return nil
}

// hold holds a connection, again and again.
func hold(ctx context.Context, pool *pgxpool.Pool, d time.Duration) error {
	for ctx.Err() == nil {
		if _, err := pool.Exec(ctx, "select pg_sleep($1)", d.Seconds()); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// swallowed reads 10,000 times from the cache of an instance while the network swallows what its
// listener should hear, and another instance updates what it reads.
func swallowed(ctx context.Context, url string, res *results, _ options) error {
	const sessions, reads, duration = 20, 10_000, 2 * liveness
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return err
	}
	proxy, err := postgres.NewProxy(fmt.Sprintf("%s:%d", config.Host, config.Port))
	if err != nil {
		return err
	}
	defer proxy.Close() //nolint:errcheck // its listener is all that could fail
	around, err := postgres.WithAddress(url, proxy.Address())
	if err != nil {
		return err
	}
	b, poolB, err := instance(ctx, url, pgsession.Config{})
	if err != nil {
		return err
	}
	defer poolB.Close()
	defer b.Close()
	defer dropSchema(ctx, poolB)
	a, err := pgsession.New(poolB.Query, pgsession.Config{
		Schema:  "pgsession_bench",
		Listen:  func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, around) },
		Cleanup: pgsession.Cleanup{Mode: pgsession.CleanupOff},
	})
	if err != nil {
		return err
	}
	defer a.Close()
	if err := a.Setup(ctx); err != nil {
		return err
	}
	if err := awaitLive(ctx, a, b); err != nil {
		return err
	}
	c, err := newCounted(ctx, b, sessions)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	var failed errorOnce
	var writer sync.WaitGroup
	writer.Go(func() { failed.set(c.keepRaising(running, b, sessions, 20*time.Millisecond)) })
	for i := range sessions {
		if _, err := c.read(ctx, a, i); err != nil {
			return err
		}
	}
	proxy.Swallow()
	before := a.Stats().Cache
	var worst time.Duration
	var stale int
	start := time.Now()
	for n := range reads {
		time.Sleep(time.Until(start.Add(duration / reads * time.Duration(n))))
		age, err := c.read(ctx, a, n%sessions)
		if err != nil {
			return err
		}
		if age > 0 {
			stale++
		}
		worst = max(worst, age)
	}
	after := a.Stats().Cache
	stop()
	writer.Wait()
	if err := failed.get(); err != nil {
		return err
	}
	res.printf("%d reads in %v after the network began to swallow: %d from memory, %d stale, the oldest by %v, at most %v",
		reads, time.Since(start).Round(time.Second), after.Hits-before.Hits, stale, worst.Round(time.Millisecond), liveness)
	if worst > liveness || after.Live || stale == 0 {
		return fmt.Errorf("%w: swallowed", errBeyondLimit)
	}
	return nil
}

// errorOnce keeps the first error.
type errorOnce struct {
	mu  sync.Mutex
	err error
}

func (e *errorOnce) set(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil && !errors.Is(err, context.Canceled) {
		e.err = err
	}
}

func (e *errorOnce) get() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

func raiseTo(worst *atomic.Int64, value int64) {
	for old := worst.Load(); value > old && !worst.CompareAndSwap(old, value); old = worst.Load() {
	}
}
