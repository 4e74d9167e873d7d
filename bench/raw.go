package main

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
)

// raw is what a careful user would write by hand, and the limit of what any store over pgx can do:
// prepared statements on a table of the same columns and indexes as ours, with neither locks, nor
// versions that go on, nor tombstones.
type raw struct{ pool *pgxpool.Pool }

const rawSelect = `
select coalesce(subject, ''), data, codec, created_at, expires_at, absolute_expires_at,
       date_part('epoch', idle_timeout), version
  from pgsession_raw.session
 where id = $1 and revoked_at is null and expires_at > now()`

const rawUpsert = `
insert into pgsession_raw.session as t (
    id, data, codec, version, created_at, expires_at, absolute_expires_at, prune_after, idle_timeout)
values ($1, $2, 0, 1, now(), now() + make_interval(secs => $3), now() + interval '30 days',
        now() + make_interval(secs => $3), make_interval(secs => $3))
on conflict (id) do update
   set data = excluded.data, expires_at = excluded.expires_at, version = t.version + 1
returning version, expires_at`

const rawTouch = `
update pgsession_raw.session set expires_at = now() + make_interval(secs => $2)
 where id = $1 and revoked_at is null and expires_at > now()
returning version, expires_at`

const rawDelete = `delete from pgsession_raw.session where id = $1 returning version, expires_at`

func (s raw) create(ctx context.Context, data []byte) (string, error) {
	key := newKey()
	return key, s.write(ctx, key, data)
}

func (s raw) read(ctx context.Context, key string) ([]byte, error) {
	rows, err := s.pool.Query(ctx, rawSelect, key)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var session pgsession.Session
	var absolute time.Time
	var idle float64
	if !rows.Next() {
		return present(nil, false, rows.Err())
	}
	err = rows.Scan(&session.Subject, &session.Data, &session.Codec, &session.CreatedAt, &session.ExpiresAt,
		&absolute, &idle, &session.Version)
	if err != nil {
		return nil, err
	}
	rows.Close()
	return session.Data, rows.Err()
}

func (s raw) write(ctx context.Context, key string, data []byte) error {
	return s.exec(ctx, rawUpsert, key, data, idleTimeout.Seconds())
}

func (s raw) touch(ctx context.Context, key string, _ []byte) error {
	return s.exec(ctx, rawTouch, key, idleTimeout.Seconds())
}

func (s raw) destroy(ctx context.Context, key string) error {
	return s.exec(ctx, rawDelete, key)
}

func (s raw) close() error { return nil }

// exec runs a statement that returns one row.
func (s raw) exec(ctx context.Context, sql string, args ...any) error {
	var version int64
	var expires time.Time
	err := s.pool.QueryRow(ctx, sql, args...).Scan(&version, &expires)
	if err == pgx.ErrNoRows { //nolint:errorlint // Scan returns it as it is
		return pgsession.ErrNotFound
	}
	return err
}
