package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/alexedwards/scs/pgxstore"
	"github.com/gomodule/redigo/redis"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
)

// reads compares a read from the cache with the rivals': a GET from Redis over loopback, and Find of
// scs's pgxstore. It prints what a cached session takes of memory too.
func reads(ctx context.Context, url string) error {
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return err
	}
	defer pool.Close()
	store, err := pgsession.New(pool.Query, pgsession.Config{
		Schema: "pgsession_bench", Listen: pgsession.ListenFrom(pool),
		Cleanup: pgsession.Cleanup{Mode: pgsession.CleanupOff},
	})
	if err != nil {
		return err
	}
	defer store.Close()
	tokens, ids, err := fill(ctx, pool, store)
	if err != nil {
		return err
	}
	defer dropSchema(ctx, pool)
	if err := awaitLive(ctx, store); err != nil {
		return err
	}

	fmt.Printf("%d sessions of %d bytes, GOMAXPROCS %d\n", sessionCount, dataSize, runtime.GOMAXPROCS(0))
	if err := memory(ctx, pool, tokens); err != nil {
		return err
	}
	for _, token := range tokens {
		if _, err := store.Get(ctx, token); err != nil {
			return err
		}
	}

	look := func(pgsession.Session) error { return nil }
	view := func(ctx context.Context, n int) error { return store.View(ctx, tokens[n*7919%sessionCount], look) }
	same := func(ctx context.Context, _ int) error { return store.View(ctx, tokens[0], look) }
	get := func(ctx context.Context, n int) error {
		_, err := store.Get(ctx, tokens[n*7919%sessionCount])
		return err
	}
	redisGet, stop, err := redisReads(ctx, ids)
	if err != nil {
		return err
	}
	defer stop()
	find, err := scsReads(ctx, pool, ids)
	if err != nil {
		return err
	}
	for _, goroutines := range []int{1, 8} {
		var base float64
		for _, side := range []struct {
			name string
			op   operation
		}{{"View", view}, {"View of one", same}, {"Get", get}, {"Redis GET", redisGet}, {"scs Find", find}} {
			ns, allocs, err := nanoseconds(ctx, goroutines, side.op)
			if err != nil {
				return fmt.Errorf("%s: %w", side.name, err)
			}
			if base == 0 {
				base = ns
			}
			fmt.Printf("%-12s %d goroutines  %9.0f ns of a processor  %3d allocations  %7.1f x View\n",
				side.name, goroutines, ns, allocs, ns/base)
		}
	}
	return nil
}

// nanoseconds measures what is too short for measure: the median of several runs, in time of one
// processor, of which all goroutines together have GOMAXPROCS.
func nanoseconds(ctx context.Context, goroutines int, op operation) (ns float64, allocs int64, err error) {
	var runs []float64
	for range 5 {
		processors := min(goroutines, runtime.GOMAXPROCS(0))
		result := testing.Benchmark(func(b *testing.B) {
			b.ReportAllocs()
			var group sync.WaitGroup
			for range goroutines {
				group.Go(func() {
					for n := range b.N / goroutines {
						if opErr := op(ctx, n); opErr != nil {
							b.Error(opErr)
							return
						}
					}
				})
			}
			group.Wait()
		})
		if result.N == 0 {
			return 0, 0, errors.New("it failed")
		}
		runs, allocs = append(runs, float64(result.NsPerOp())*float64(processors)), result.AllocsPerOp()
	}
	return median(runs), allocs, nil
}

// memory measures what another instance needs for the sessions that it caches.
func memory(ctx context.Context, pool *pgxpool.Pool, tokens []pgsession.Token) error {
	store, err := pgsession.New(pool.Query, pgsession.Config{
		Schema: "pgsession_bench", Listen: pgsession.ListenFrom(pool),
		Cleanup: pgsession.Cleanup{Mode: pgsession.CleanupOff},
	})
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.Setup(ctx); err != nil {
		return err
	}
	if err := awaitLive(ctx, store); err != nil {
		return err
	}
	before := heap()
	for _, token := range tokens {
		if _, err := store.Get(ctx, token); err != nil {
			return err
		}
	}
	fmt.Printf("memory       %.0f bytes for each cached session beyond its data, at most 300\n",
		float64(heap()-before)/sessionCount-dataSize)
	runtime.KeepAlive(store)
	return nil
}

func awaitLive(ctx context.Context, stores ...*pgsession.Store) error {
	deadline := time.Now().Add(10 * time.Second)
	for _, s := range stores {
		for !s.Stats().Cache.Live {
			if time.Now().After(deadline) || ctx.Err() != nil {
				return errors.New("the cache is not live")
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return nil
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// redisReads starts a Redis and fills it.
func redisReads(ctx context.Context, ids []string) (operation, func(), error) {
	const address = "127.0.0.1:63799"
	server := exec.CommandContext(ctx, "redis-server", "--bind", "127.0.0.1", "--port", "63799",
		"--save", "", "--appendonly", "no")
	if err := server.Start(); err != nil {
		return nil, nil, fmt.Errorf("a rival is missing, apt-get install redis-server: %w", err)
	}
	pool := &redis.Pool{
		MaxIdle: 8, MaxActive: 8, Wait: true,
		Dial: func() (redis.Conn, error) { return redis.Dial("tcp", address) },
	}
	stop := func() {
		_ = pool.Close()
		_ = server.Process.Kill()
		_ = server.Wait()
	}
	var conn redis.Conn
	for range 100 {
		conn = pool.Get()
		if _, err := conn.Do("PING"); err == nil {
			break
		}
		_ = conn.Close()
		time.Sleep(20 * time.Millisecond)
	}
	for i, id := range ids {
		if _, err := conn.Do("SET", id, payload(i)); err != nil {
			stop()
			return nil, nil, err
		}
	}
	_ = conn.Close()
	return func(_ context.Context, n int) error {
		conn := pool.Get()
		defer conn.Close() //nolint:errcheck // back to the pool
		_, err := redis.Bytes(conn.Do("GET", ids[n*7919%sessionCount]))
		return err
	}, stop, nil
}

// scsReads fills scs's table.
func scsReads(ctx context.Context, pool *pgxpool.Pool, ids []string) (operation, error) {
	const table = `drop table if exists sessions;
create table sessions (token text primary key, data bytea not null, expiry timestamptz not null);
create index sessions_expiry_idx on sessions (expiry)`
	if _, err := pool.Exec(ctx, table); err != nil {
		return nil, err
	}
	s := pgxstore.NewWithCleanupInterval(pool, 0)
	for i, id := range ids {
		if err := s.CommitCtx(ctx, id, payload(i), time.Now().Add(time.Hour)); err != nil {
			return nil, err
		}
	}
	if _, err := pool.Exec(ctx, "vacuum analyze sessions"); err != nil {
		return nil, err
	}
	return func(ctx context.Context, n int) error {
		_, found, err := s.FindCtx(ctx, ids[n*7919%sessionCount])
		if err == nil && !found {
			err = errors.New("scs found nothing")
		}
		return err
	}, nil
}
