package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
)

// wal measures what a touch and a set write to the write-ahead log, with each wal_compression that the
// server has. After a checkpoint the first write of a page logs all of it; that is the ordinary case of
// a large table, where writes seldom meet a page twice between two checkpoints. So each session that is
// written is on a page of its own, and is written twice after each checkpoint.
func wal(ctx context.Context, url string, res *results, opts options) error {
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return err
	}
	defer pool.Close()
	var methods []string
	err = pool.QueryRow(ctx, "select enumvals from pg_settings where name = 'wal_compression'").Scan(&methods)
	if err != nil {
		return err
	}
	// On is another name of pglz, and all there is before PostgreSQL 15.
	methods = slices.DeleteFunc(methods, func(m string) bool { return m == "on" || m == "off" })
	if len(methods) == 0 {
		methods = []string{"on"}
	}
	p := population{schema: "pgsession_wal", sessions: opts.small}
	defer func() { _ = p.drop(context.WithoutCancel(ctx), pool) }()
	if _, err := p.fill(ctx, pool, false); err != nil {
		return err
	}
	for _, method := range append([]string{"off"}, methods...) {
		if err := walBy(ctx, url, res, p, method); err != nil {
			return fmt.Errorf("%s: %w", method, err)
		}
	}
	return nil
}

func walBy(ctx context.Context, url string, res *results, p population, method string) error {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return err
	}
	config.ConnConfig.RuntimeParams["wal_compression"] = method
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	store, err := pgsession.New(pool.Query, p.config())
	if err != nil {
		return err
	}
	defer store.Close()
	var writes int
	for _, op := range growthOperations {
		if op.name == "Get" {
			continue
		}
		var line strings.Builder
		for _, sql := range []string{"vacuum " + p.table(), "checkpoint"} { // so that no page is pruned meanwhile
			if _, err := pool.Exec(ctx, sql); err != nil {
				return err
			}
		}
		for _, when := range []string{"the first of a page after a checkpoint", "the next"} {
			bytes, times, err := logged(ctx, pool, p.sessions, func(n int) error {
				writes++
				return op.call(ctx, store, n, writes)
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(&line, "  %s: %5.0f bytes, %v", when, bytes, times)
		}
		res.printf("wal_compression %-4s  %-5s%s", method, op.name, line.String())
	}
	return nil
}

// logged calls op for sessions on pages of their own, and returns the bytes of log for each.
func logged(ctx context.Context, pool *pgxpool.Pool, sessions int, op func(n int) error) (float64, percentiles, error) {
	const stride = 25 // more than a page holds
	var before string
	if err := pool.QueryRow(ctx, "select pg_current_wal_insert_lsn()::text").Scan(&before); err != nil {
		return 0, percentiles{}, err
	}
	var times []time.Duration
	for n := 0; n < sessions; n += stride {
		start := time.Now()
		if err := op(n); err != nil {
			return 0, percentiles{}, err
		}
		times = append(times, time.Since(start))
	}
	var bytes float64
	err := pool.QueryRow(ctx, "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1::pg_lsn)::float8", before).Scan(&bytes)
	if len(times) == 0 {
		err = errors.Join(err, errors.New("no session"))
	}
	return bytes / float64(len(times)), percentilesOf(times), err
}
