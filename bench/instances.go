package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
)

const (
	manyInstances = 200
	fourWriters   = 4
	idleLimit     = 0.05 // of a core
	manyLimit     = 0.9
)

// instances measures what many instances that listen and beat cost: the server when nothing happens,
// and the updates of four writers, side by side with a single instance that listens.
//
// The limit on updates holds without their publications (NotifyOff), so that what is compared is the
// beats. What the publications of NotifyGrouped cost, which wake every instance, is printed beside it;
// on one machine that includes the instances themselves, which have machines of their own otherwise.
func instances(ctx context.Context, url string, res *results, _ options) error {
	writer, pool, err := instance(ctx, url, pgsession.Config{})
	if err != nil {
		return err
	}
	defer pool.Close()
	defer writer.Close()
	defer dropSchema(ctx, pool)
	silent, silentPool, err := instance(ctx, url, pgsession.Config{Notify: pgsession.NotifyOff})
	if err != nil {
		return err
	}
	defer silentPool.Close()
	defer silent.Close()
	tokens := make([]pgsession.Token, 1000)
	for i := range tokens {
		if tokens[i], _, err = writer.Create(ctx, pgsession.Session{Data: payload(-1 - i)}); err != nil {
			return err
		}
	}
	if err := awaitLive(ctx, writer, silent); err != nil {
		return err
	}

	meter, err := newMeter(ctx, url)
	if err != nil {
		return err
	}
	defer meter.close()

	var writes int
	sample := func() (c crowdSample, err error) {
		if c.idle, err = serverCPU(ctx, meter, 10*time.Second); err != nil {
			return c, err
		}
		for _, side := range []struct {
			store *pgsession.Store
			rate  *float64
		}{{silent, &c.off}, {writer, &c.grouped}} {
			before := writer.Stats().Notify.Heard
			start := time.Now()
			if *side.rate, err = storeRate(ctx, side.store, tokens, fourWriters, writes, 2*time.Second); err != nil {
				return c, err
			}
			c.publications = float64(writer.Stats().Notify.Heard-before) / time.Since(start).Seconds()
			writes += 1 << 20
		}
		return c, nil
	}
	var alone, among []crowdSample
	for range 3 {
		one, err := sample()
		if err != nil {
			return err
		}
		crowd, err := newCrowd(ctx, url, pool, manyInstances)
		if err != nil {
			return err
		}
		many, err := sample()
		crowd.close()
		if err != nil {
			return err
		}
		alone, among = append(alone, one), append(among, many)
	}
	of := func(samples []crowdSample, value func(crowdSample) float64) float64 {
		var values []float64
		for _, s := range samples {
			values = append(values, value(s))
		}
		return median(values)
	}
	off := func(s crowdSample) float64 { return s.off }
	grouped := func(s crowdSample) float64 { return s.grouped }
	idle := of(among, func(s crowdSample) float64 { return s.idle })
	var ratios []float64
	for i := range alone {
		ratios = append(ratios, among[i].off/alone[i].off)
	}
	res.printf("idle server     %d instances %.3f of a core, at most %.2f; 2 instances %.3f",
		manyInstances+2, idle, idleLimit, of(alone, func(s crowdSample) float64 { return s.idle }))
	res.printf("updates/s, off  %d instances %6.0f, 2 instances %6.0f, ratio %.2f, at least %.2f",
		manyInstances+2, of(among, off), of(alone, off), median(ratios), manyLimit)
	res.printf("grouped         %d instances %6.0f, 2 instances %6.0f: %.0f publications/s woke %d listeners each",
		manyInstances+2, of(among, grouped), of(alone, grouped),
		of(among, func(s crowdSample) float64 { return s.publications }), manyInstances+2)
	if idle > idleLimit || median(ratios) < manyLimit {
		return fmt.Errorf("%w: instances", errBeyondLimit)
	}
	return nil
}

// crowdSample is what one round measured.
type crowdSample struct{ idle, off, grouped, publications float64 }

// crowd is many instances, which share a pool that they do not use after Setup.
type crowd struct{ stores []*pgsession.Store }

func newCrowd(ctx context.Context, url string, pool *pgxpool.Pool, n int) (*crowd, error) {
	c := &crowd{}
	for range n {
		store, err := pgsession.New(pool.Query, pgsession.Config{
			Schema: "pgsession_bench", SkipMigrate: true,
			Listen:  func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, url) },
			Cleanup: pgsession.Cleanup{Mode: pgsession.CleanupOff},
		})
		if err == nil {
			err = store.Setup(ctx)
			c.stores = append(c.stores, store)
		}
		if err != nil {
			c.close()
			return nil, err
		}
	}
	if err := awaitLive(ctx, c.stores...); err != nil {
		c.close()
		return nil, err
	}
	time.Sleep(10 * time.Second) // each connection plans its statement at its first five beats
	return c, nil
}

func (c *crowd) close() {
	var group sync.WaitGroup
	for _, store := range c.stores {
		group.Go(func() { _ = store.Close() }) // always nil
	}
	group.Wait()
}

// serverCPU is what all processes of the server use during d, in cores.
func serverCPU(ctx context.Context, m *meter, d time.Duration) (float64, error) {
	before, err := m.used(ctx)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	after, err := m.used(ctx)
	return (after - before).Seconds() / time.Since(start).Seconds(), err
}
