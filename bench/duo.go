package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/pgsession/pgsession"
)

const (
	sessionCount = 10_000
	dataSize     = 400
)

// instance is a store with a pool of its own, which listens.
func instance(ctx context.Context, url string, cfg pgsession.Config) (*pgsession.Store, *pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, nil, err
	}
	config.MaxConns = 40
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, nil, err
	}
	cfg.Schema, cfg.Listen = "pgsession_bench", pgsession.ListenFrom(pool)
	cfg.Cleanup.Mode = pgsession.CleanupOff
	cfg.Logger = slog.New(slog.DiscardHandler)
	store, err := pgsession.New(pool.Query, cfg)
	if err == nil {
		if err = store.Setup(ctx); err == nil {
			return store, pool, nil
		}
		_ = store.Close() // always nil
	}
	pool.Close()
	return nil, nil, err
}

// duo is two instances whose caches are live.
type duo struct {
	a, b         *pgsession.Store
	poolA, poolB *pgxpool.Pool
}

func newDuo(ctx context.Context, url string) (*duo, error) {
	var d duo
	var err error
	if d.a, d.poolA, err = instance(ctx, url, pgsession.Config{}); err != nil {
		return nil, err
	}
	if d.b, d.poolB, err = instance(ctx, url, pgsession.Config{}); err == nil {
		err = awaitLive(ctx, d.a, d.b)
	}
	if err != nil {
		d.close(ctx)
		return nil, err
	}
	return &d, nil
}

// close drops the schema too.
func (d *duo) close(ctx context.Context) {
	dropSchema(ctx, d.poolA)
	_ = d.a.Close() // always nil
	d.poolA.Close()
	if d.b != nil {
		_ = d.b.Close() // always nil
		d.poolB.Close()
	}
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

// dropSchema tidies up at the end, as far as it can.
func dropSchema(ctx context.Context, pool *pgxpool.Pool) {
	_, _ = pool.Exec(context.WithoutCancel(ctx), "drop schema pgsession_bench cascade")
}

// setUp sets up the store on an empty schema.
func setUp(ctx context.Context, pool *pgxpool.Pool, store *pgsession.Store) error {
	if _, err := pool.Exec(ctx, "drop schema if exists pgsession_bench cascade"); err != nil {
		return err
	}
	return store.Setup(ctx)
}

// fill makes sessionCount sessions, of which every user has two.
func fill(ctx context.Context, store *pgsession.Store) ([]pgsession.Token, error) {
	tokens := make([]pgsession.Token, sessionCount)
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for i := range tokens {
		group.Go(func() (err error) {
			tokens[i], _, err = store.Create(groupCtx, pgsession.Session{Subject: subject(i), Data: payload(-1 - i)})
			return err
		})
	}
	return tokens, group.Wait()
}

// subject gives every user two sessions.
func subject(i int) string { return fmt.Sprintf("user-%d", i/2) }

// payload is different for each n.
func payload(n int) []byte {
	b := make([]byte, dataSize)
	for i := range b {
		b[i] = byte(n >> (i % 8 * 8))
	}
	return b
}
