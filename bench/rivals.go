package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/alexedwards/scs/pgxstore"
	fiber "github.com/gofiber/storage/postgres/v3"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
)

// sessionStore is a store as the replay of a day uses it: each as its own middleware does. With an
// idle timeout scs's commits the session after each request, and fiber's does too; pgsession's Touch
// writes where the deadline moves by a twentieth of the timeout.
type sessionStore interface {
	read(ctx context.Context, t pgsession.Token) error
	touch(ctx context.Context, t pgsession.Token, data []byte) error
	write(ctx context.Context, t pgsession.Token, data []byte) error // creates it too
	destroy(ctx context.Context, t pgsession.Token) error
}

// rival is a kind of store, with a table of its own.
type rival struct {
	name     string
	table    string
	live     string // which rows are alive
	columns  []string
	cleanup  time.Duration // between two, in a day of 24 hours
	setup    func(ctx context.Context, pool *pgxpool.Pool, c *clock) error
	open     func(pool *pgxpool.Pool, c *clock) (sessionStore, error)
	row      func(c *clock, t pgsession.Token, data []byte, created, expires time.Duration) []any
	pruneSQL string // it returns how many living rows were updated
}

// clock compresses time: durations of the day become shorter, and points in it come sooner.
type clock struct {
	start time.Time
	speed float64
}

func (c *clock) shorten(d time.Duration) time.Duration { return time.Duration(float64(d) / c.speed) }

func (c *clock) at(d time.Duration) time.Time { return c.start.Add(c.shorten(d)) }

// long is the time that has passed, in the day's own measure.
func (c *clock) long(d time.Duration) time.Duration { return time.Duration(float64(d) * c.speed) }

// fiberTime is for a store that counts in seconds, which cannot be compressed: there each second of
// the day has its own number. $now in SQL stands for the present one.
func (c *clock) fiberTime(d time.Duration) time.Time { return c.start.Add(d) }

var rivals = []rival{
	{
		name: "pgsession", table: "pgsession_day.session",
		live:    "revoked_at is null and expires_at > now()",
		cleanup: time.Minute,
		setup:   setupOurs,
		open: func(pool *pgxpool.Pool, c *clock) (sessionStore, error) {
			store, err := pgsession.New(pool.Query, ourConfig(c))
			return ours{store}, err
		},
		columns: []string{
			"version", "created_at", "expires_at", "absolute_expires_at", "prune_after", "idle_timeout", "codec", "id", "data",
		},
		row: func(c *clock, t pgsession.Token, data []byte, created, expires time.Duration) []any {
			// No touch moved it; prune did, where the session is older than that.
			after := created + idleTimeout
			if after < 0 {
				after = expires
			}
			return []any{
				c.at(created).UnixMicro(), c.at(created), c.at(expires), c.at(created + absoluteTimeout),
				c.at((after + time.Minute).Truncate(time.Minute)), c.shorten(idleTimeout), int16(0), sessionID(t), data,
			}
		},
		pruneSQL: "select moved from pgsession_day.session_prune()",
	},
	{
		name: "scs", table: "sessions",
		live:    "expiry > now()",
		cleanup: 5 * time.Minute, // pgxstore's default
		setup: func(ctx context.Context, pool *pgxpool.Pool, _ *clock) error {
			_, err := pool.Exec(ctx, `drop table if exists sessions;
create table sessions (token text primary key, data bytea not null, expiry timestamptz not null);
create index sessions_expiry_idx on sessions (expiry)`) // its README
			return err
		},
		open: func(pool *pgxpool.Pool, c *clock) (sessionStore, error) {
			return scs{pgxstore.NewWithCleanupInterval(pool, 0), c.shorten(idleTimeout)}, nil
		},
		columns: []string{"token", "data", "expiry"},
		row: func(c *clock, t pgsession.Token, data []byte, _, expires time.Duration) []any {
			return []any{sessionID(t), data, c.at(expires)} // as hashed by HashTokenInStore
		},
		pruneSQL: "delete from sessions where expiry < current_timestamp returning 0::int8",
	},
	{
		name: "fiber", table: "fiber_storage",
		live:    "e > $now",
		cleanup: 10 * time.Second, // its default
		setup: func(ctx context.Context, pool *pgxpool.Pool, _ *clock) error {
			_, err := pool.Exec(ctx, "drop table if exists fiber_storage")
			if err == nil { // makes the table; its ticker sleeps till the process ends
				fiber.NewWithContext(ctx, fiber.Config{DB: pool, Table: "fiber_storage", GCInterval: 24 * time.Hour})
			}
			return err
		},
		open: func(pool *pgxpool.Pool, c *clock) (sessionStore, error) {
			return fiberStore{
				fiber.New(fiber.Config{DB: pool, Table: "fiber_storage", GCInterval: 24 * time.Hour}), c,
			}, nil
		},
		columns: []string{"k", "v", "e"},
		row: func(c *clock, t pgsession.Token, data []byte, _, expires time.Duration) []any {
			return []any{sessionID(t), data, c.fiberTime(expires).Unix()}
		},
		pruneSQL: "delete from fiber_storage where e <= $now and e != 0 returning 0::int8",
	},
}

func ourConfig(c *clock) pgsession.Config {
	return pgsession.Config{
		Schema:          "pgsession_day",
		IdleTimeout:     c.shorten(idleTimeout), // and a touch must move it by a twentieth, as ever
		AbsoluteTimeout: c.shorten(absoluteTimeout),
		Tombstone:       max(time.Second, c.shorten(5*time.Minute)), // a second is the least
		Cleanup:         pgsession.Cleanup{Mode: pgsession.CleanupOff},
		Notify:          pgsession.NotifyOff,
		Logger:          slog.New(slog.DiscardHandler),
	}
}

// setupOurs compresses the minute by which prune_after counts, too.
func setupOurs(ctx context.Context, pool *pgxpool.Pool, c *clock) error {
	if _, err := pool.Exec(ctx, "drop schema if exists pgsession_day cascade"); err != nil {
		return err
	}
	var script strings.Builder
	if err := pgsession.SetupSQL(&script, ourConfig(c)); err != nil {
		return err
	}
	minute := fmt.Sprintf("'%d microseconds'", c.shorten(time.Minute).Microseconds())
	_, err := pool.Exec(ctx, strings.ReplaceAll(script.String(), "'1 minute'", minute))
	return err
}

type ours struct{ store *pgsession.Store }

func (s ours) read(ctx context.Context, t pgsession.Token) error {
	_, err := s.store.GetFresh(ctx, t)
	return err
}

func (s ours) touch(ctx context.Context, t pgsession.Token, _ []byte) error {
	_, err := s.store.Touch(ctx, t)
	return err
}

func (s ours) write(ctx context.Context, t pgsession.Token, data []byte) error {
	_, err := s.store.Set(ctx, t, pgsession.Session{Data: data})
	return err
}

func (s ours) destroy(ctx context.Context, t pgsession.Token) error {
	_, err := s.store.Destroy(ctx, t)
	return err
}

type scs struct {
	store *pgxstore.PostgresStore
	idle  time.Duration
}

func (s scs) read(ctx context.Context, t pgsession.Token) error {
	return present(s.store.FindCtx(ctx, sessionID(t)))
}

func (s scs) touch(ctx context.Context, t pgsession.Token, data []byte) error {
	return s.write(ctx, t, data)
}

func (s scs) write(ctx context.Context, t pgsession.Token, data []byte) error {
	return s.store.CommitCtx(ctx, sessionID(t), data, time.Now().Add(s.idle))
}

func (s scs) destroy(ctx context.Context, t pgsession.Token) error {
	return s.store.DeleteCtx(ctx, sessionID(t))
}

type fiberStore struct {
	store *fiber.Storage
	clock *clock
}

func (s fiberStore) read(ctx context.Context, t pgsession.Token) error {
	data, err := s.store.GetWithContext(ctx, sessionID(t))
	return present(data, data != nil, err)
}

func (s fiberStore) touch(ctx context.Context, t pgsession.Token, data []byte) error {
	return s.write(ctx, t, data)
}

func (s fiberStore) write(ctx context.Context, t pgsession.Token, data []byte) error {
	now := time.Now()
	deadline := s.clock.fiberTime(s.clock.long(now.Sub(s.clock.start)) + idleTimeout)
	return s.store.SetWithContext(ctx, sessionID(t), data, deadline.Sub(now))
}

func (s fiberStore) destroy(ctx context.Context, t pgsession.Token) error {
	return s.store.DeleteWithContext(ctx, sessionID(t))
}

func present(_ []byte, found bool, err error) error {
	if err == nil && !found {
		err = pgsession.ErrNotFound
	}
	return err
}
