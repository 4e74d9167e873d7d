package main

import (
	"context"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// touchCounter touches by a connection that does nothing else, so that all updates which its backend
// counts are touches, however the store makes them. After each one it reads the counts that the backend
// has not reported to pg_stat_all_tables yet. That report comes once a second at most, and the counts
// begin at 0 then; the one touch in between two readings that it takes away is not counted, HOT or not.
type touchCounter struct {
	pool     *pgxpool.Pool
	store    sessionStore
	table    string
	last     [2]int64 // all, HOT
	all, hot atomic.Int64
}

func newTouchCounter(ctx context.Context, at place, r rival) (*touchCounter, error) {
	config, err := pgxpool.ParseConfig(at.url)
	if err != nil {
		return nil, err
	}
	config.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	at.pool = pool
	store, err := r.open(ctx, at)
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &touchCounter{pool: pool, store: store, table: r.table}, nil
}

func (c *touchCounter) touch(ctx context.Context, key string, data []byte) error {
	if err := c.store.touch(ctx, key, data); err != nil {
		return err
	}
	var now [2]int64
	err := c.pool.QueryRow(ctx, `select pg_stat_get_xact_tuples_updated($1::text::regclass),
	                                    pg_stat_get_xact_tuples_hot_updated($1::text::regclass)`, c.table).Scan(&now[0], &now[1])
	if err != nil {
		return err
	}
	if now[0] < c.last[0] {
		c.last = [2]int64{}
	}
	c.all.Add(now[0] - c.last[0])
	c.hot.Add(now[1] - c.last[1])
	c.last = now
	return nil
}

func splitName(table string) pgx.Identifier { return strings.Split(table, ".") }
