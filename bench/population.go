package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/pgsession/pgsession"
)

// token is that of session n of a table which populate filled.
func token(n int) pgsession.Token { return pgsession.Token(fmt.Sprintf("bench-%012d", n)) }

// sessionID is how the store makes an id of a token.
func sessionID(t pgsession.Token) string {
	sum := sha256.Sum256([]byte(string(t)))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// sessionsSQL makes the sessions $1 to $2 of $3. Each is as session_set would write it, id and all,
// but for the way there: ten million calls take an hour. The tables keep their indexes meanwhile, so
// that these have the free space that ids in no order leave in them.
//
// Sessions are as old as the table fills: the first was created two days ago, the last a day ago. Of
// each two one was never used again, so it has expired where $4 ($4 false: it has not, yet); the other
// one is alive, and was given a new prune_after. So every page has both. Where $5 the expired are so
// in an order that has nothing to do with their place.
//
// The data is JSON of which a half, digests in hexadecimal, differs between sessions.
const sessionsSQL = `
insert into %s (
    version, created_at, expires_at, absolute_expires_at, prune_after, idle_timeout, codec, id, subject, data)
select floor(date_part('epoch', r.created_at) * 1000000)::int8, r.created_at, r.expires_at,
       r.created_at + interval '30 days', date_bin('1 second', r.expires_at, 'epoch') + interval '1 second',
       interval '1 day', 1,
       rtrim(translate(encode(sha256(convert_to('bench-' || lpad(r.n::text, 12, '0'), 'UTF8')), 'base64'), '+/', '-_'), '='),
       'user-' || r.n / 2, convert_to(` + dataSQL + `, 'UTF8')
  from (
    select c.n, c.created_at,
           case when c.n %% 2 = 0 and $4 then c.expired_at
                else now() + interval '1 day' * (0.1 + 0.8 * random()) end as expires_at
      from (
        select n::int8, now() - interval '2 days' + interval '1 day' * (n::float8 / $3) as created_at,
               now() - interval '1 day' * (case when $5 then random() else 1 - n::float8 / $3 end) as expired_at
          from generate_series($1::int8, $2::int8) as n
      ) as c
  ) as r`

// dataSQL has dataSize bytes.
const dataSQL = `rpad(format(
           '{"user":{"id":%%s,"name":"%%s","roles":["member"]},"csrf":"%%s","cart":[{"sku":"%%s","n":1},{"sku":"%%s","n":2}],'
           '"flash":"","locale":"en","last":"%%s","padding":"',
           r.n, md5('a' || r.n), md5('b' || r.n) || md5('c' || r.n), md5('d' || r.n), md5('e' || r.n), md5('f' || r.n)
       ), 398, ' ') || '"}'`

// population is a table of a number of sessions, in a schema of its own.
type population struct {
	schema             string
	sessions           int
	expired, scattered bool
	batch              int // Cleanup.BatchSize; 0: its default
}

func (p population) config() pgsession.Config {
	return pgsession.Config{
		Schema: p.schema, TouchInterval: time.Microsecond, // each touch writes
		Cleanup: pgsession.Cleanup{Mode: pgsession.CleanupOff, BatchSize: p.batch},
		Notify:  pgsession.NotifyOff,
		Logger:  slog.New(slog.DiscardHandler),
	}
}

func (p population) table() string { return pgx.Identifier{p.schema, "session"}.Sanitize() }

// fill makes the table, unless it is there and to be kept.
func (p population) fill(ctx context.Context, pool *pgxpool.Pool, keep bool) (*pgsession.Store, error) {
	store, err := pgsession.New(pool.Query, p.config())
	if err != nil {
		return nil, err
	}
	if keep {
		var n int
		if err := pool.QueryRow(ctx, "select count(*) from "+p.table()).Scan(&n); err == nil && n == p.sessions {
			return store, nil
		}
	}
	start := time.Now()
	if err := p.drop(ctx, pool); err != nil {
		return nil, err
	}
	if err := store.Setup(ctx); err != nil {
		return nil, err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(2)
	const chunk = 100_000
	for first := 0; first < p.sessions; first += chunk {
		group.Go(func() error {
			_, err := pool.Exec(groupCtx, fmt.Sprintf(sessionsSQL, p.table()),
				first, min(first+chunk, p.sessions)-1, p.sessions, p.expired, p.scattered)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for _, sql := range []string{"vacuum analyze " + p.table(), "checkpoint"} {
		if _, err := pool.Exec(ctx, sql); err != nil {
			return nil, err
		}
	}
	fmt.Printf("%s: %d sessions of %d bytes, inserted in %v\n",
		p.schema, p.sessions, dataSize, time.Since(start).Round(time.Second))
	return store, nil
}

func (p population) drop(ctx context.Context, pool *pgxpool.Pool) error {
	_, err := pool.Exec(ctx, "drop schema if exists "+pgx.Identifier{p.schema}.Sanitize()+" cascade")
	return err
}
