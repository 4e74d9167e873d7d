package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
)

const (
	sessionCount = 10_000
	dataSize     = 400
)

// overhead compares the store with what a careful user would write by hand: a prepared statement on
// a table of the same columns and indexes, through the same pool.
func overhead(ctx context.Context, url string) error {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return err
	}
	config.MaxConns = 8
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()

	store, err := pgsession.New(pool.Query, pgsession.Config{
		Schema: "pgsession_bench", Cleanup: pgsession.Cleanup{Mode: pgsession.CleanupOff},
		Notify: pgsession.NotifyOff, // the raw side tells nobody either; "updates" measures what telling costs
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
	fmt.Printf("%d sessions of %d bytes, GOMAXPROCS %d\n", sessionCount, dataSize, runtime.GOMAXPROCS(0))

	get := func(ctx context.Context, n int) error {
		_, err := store.GetFresh(ctx, tokens[n*7919%sessionCount])
		return err
	}
	rawGet := func(ctx context.Context, n int) error {
		rows, err := pool.Query(ctx, rawSelect, ids[n*7919%sessionCount])
		if err != nil {
			return err
		}
		defer rows.Close()
		var s pgsession.Session
		var absolute time.Time
		var idle float64
		for rows.Next() {
			err := rows.Scan(&s.Subject, &s.Data, &s.Codec, &s.CreatedAt, &s.ExpiresAt, &absolute, &idle, &s.Version)
			if err != nil {
				return err
			}
		}
		return rows.Err()
	}
	// Each write changes the data: a byte-equal one would be a touch, and cheaper. n begins anew with
	// each round, so the data come from a count of their own.
	var writes atomic.Int64
	set := func(ctx context.Context, n int) error {
		i := n * 7919 % sessionCount
		_, err := store.Set(ctx, tokens[i], pgsession.Session{Subject: subject(i), Data: payload(int(writes.Add(1)))})
		return err
	}
	rawSet := func(ctx context.Context, n int) error {
		i := n * 7919 % sessionCount
		rows, err := pool.Query(ctx, rawUpsert, ids[i], subject(i), payload(int(writes.Add(1))), 86400.0)
		if err != nil {
			return err
		}
		defer rows.Close()
		var version int64
		var expires time.Time
		for rows.Next() {
			if err := rows.Scan(&version, &expires); err != nil {
				return err
			}
		}
		return rows.Err()
	}
	var beyond error
	for _, c := range []struct {
		name       string
		goroutines int
		limit      float64
		ours, raw  operation
	}{
		{"GetFresh", 1, 1.35, get, rawGet},
		{"GetFresh", 8, 1.45, get, rawGet},
		{"Set", 1, 1.30, set, rawSet},
		{"Set", 8, 1.30, set, rawSet},
	} {
		err := pair(ctx, c.name, c.goroutines, c.limit, c.ours, c.raw)
		switch {
		case errors.Is(err, errBeyondLimit): // after the others
			beyond = errors.Join(beyond, err)
		case err != nil:
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return beyond
}

const rawSelect = `
select coalesce(subject, ''), data, codec, created_at, expires_at, absolute_expires_at,
       date_part('epoch', idle_timeout), version
  from pgsession_bench.raw
 where id = $1 and revoked_at is null and expires_at > now()`

const rawUpsert = `
insert into pgsession_bench.raw as t (
    id, subject, data, codec, version, created_at, expires_at, absolute_expires_at, prune_after, idle_timeout)
values ($1, $2, $3, 0, 1, now(), now() + make_interval(secs => $4), now() + interval '30 days',
        now() + make_interval(secs => $4), make_interval(secs => $4))
on conflict (id) do update
   set subject = excluded.subject, data = excluded.data, expires_at = excluded.expires_at, version = t.version + 1
returning version, expires_at`

// dropSchema tidies up at the end, as far as it can.
func dropSchema(ctx context.Context, pool *pgxpool.Pool) {
	_, _ = pool.Exec(context.WithoutCancel(ctx), "drop schema pgsession_bench cascade")
}

// fill makes the sessions, and a copy of the table for the raw side.
func fill(ctx context.Context, pool *pgxpool.Pool, store *pgsession.Store) ([]pgsession.Token, []string, error) {
	if _, err := pool.Exec(ctx, "drop schema if exists pgsession_bench cascade"); err != nil {
		return nil, nil, err
	}
	if err := store.Setup(ctx); err != nil {
		return nil, nil, err
	}
	tokens, ids := make([]pgsession.Token, sessionCount), make([]string, sessionCount)
	for i := range tokens {
		token, session, err := store.Create(ctx, pgsession.Session{Subject: subject(i), Data: payload(-1 - i)})
		if err != nil {
			return nil, nil, err
		}
		tokens[i], ids[i] = token, string(session.ID)
	}
	pool.Reset()
	for _, sql := range []string{
		"create table pgsession_bench.raw (like pgsession_bench.session including all)",
		"alter table pgsession_bench.raw set (fillfactor = 90)",
		"insert into pgsession_bench.raw select * from pgsession_bench.session",
		"vacuum analyze pgsession_bench.session, pgsession_bench.raw",
		"checkpoint",
	} {
		if _, err := pool.Exec(ctx, sql); err != nil {
			return nil, nil, err
		}
	}
	return tokens, ids, nil
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
