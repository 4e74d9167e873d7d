package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/alexedwards/scs/pgxstore"
	fiber "github.com/gofiber/storage/postgres/v3"
	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
)

// rival is a kind of store. Those on PostgreSQL have a table of their own, of their own schema, which
// is filled by COPY.
type rival struct {
	name      string
	what      string   // how it was configured, for the report
	modules   []string // whose versions the report names
	kind      kind
	setup     func(ctx context.Context, at place) error
	open      func(ctx context.Context, at place) (sessionStore, error)
	instances int // that share the table, each with a pool of its own; 1, if 0
	table     string
	columns   []string
	row       func(c *clock, key string, data []byte, created, expires time.Duration) ([]any, error)
	deadline  string // SQL: that of the row whose key is $1
	address   string // of Redis
	day       *dayRival
}

type kind int

const (
	postgresRival kind = iota
	oursKind
	limitKind
	redisRival
)

// dayRival is what the replay of a day needs beside.
type dayRival struct {
	name     string
	open     func(ctx context.Context, at place) (sessionStore, error) // nil: as ever
	live     string                                                    // which rows are alive
	cleanup  time.Duration                                             // between two, in a day of 24 hours
	pruneSQL string                                                    // it returns how many living rows were updated
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

const (
	oursName     = "pgsession"
	uncachedName = "pgsession without cache"
	rawName      = "raw pgx"
)

// postgresRivals are those on PostgreSQL, ours and the limit first.
var postgresRivals = []rival{
	{
		name: oursName, table: "pgsession_cached.session", kind: oursKind, instances: 2,
		what: "two instances, of which each client uses one, with caches of a GiB, a MaxAge of 5 minutes and `NotifyGrouped`; " +
			"all else is the default, so most touches write nothing",
		modules:  []string{"github.com/jackc/pgx/v5"},
		setup:    setupOurs("pgsession_cached"),
		open:     openCached,
		columns:  ourColumns,
		row:      ourHashedRow,
		deadline: ourDeadline("pgsession_cached"),
	},
	{
		name: uncachedName, table: "pgsession_rival.session", kind: oursKind,
		what:    "one instance without a listener, `NotifyOff`: what the rivals do, too; each touch writes",
		modules: []string{"github.com/jackc/pgx/v5"},
		setup:   setupOurs("pgsession_rival"),
		open: func(_ context.Context, at place) (sessionStore, error) {
			cfg := ourConfig("pgsession_rival", at.clock)
			cfg.TouchInterval = time.Microsecond
			return newOurs(at.pool, cfg)
		},
		columns:  ourColumns,
		row:      ourHashedRow,
		deadline: ourDeadline("pgsession_rival"),
		day: &dayRival{
			name: oursName,
			open: func(_ context.Context, at place) (sessionStore, error) {
				return newOurs(at.pool, ourConfig("pgsession_rival", at.clock))
			},
			live:    "revoked_at is null and expires_at > now()",
			cleanup: time.Minute, pruneSQL: "select moved from pgsession_rival.session_prune()",
		},
	},
	{
		name: rawName, table: "pgsession_raw.session", kind: limitKind,
		what:     "one statement by hand for each operation, on a table like ours: the limit",
		modules:  []string{"github.com/jackc/pgx/v5"},
		setup:    setupOurs("pgsession_raw"),
		open:     func(_ context.Context, at place) (sessionStore, error) { return raw{at.pool}, nil },
		columns:  ourColumns,
		deadline: "select expires_at from pgsession_raw.session where id = $1",
		row: func(c *clock, key string, data []byte, created, expires time.Duration) ([]any, error) {
			return ourRow(c, key, data, created, expires), nil
		},
	},
	{
		name: "scs + pgxstore", table: "sessions",
		what:    "its README's table; a touch commits the session again",
		modules: []string{"github.com/alexedwards/scs/pgxstore", "github.com/jackc/pgx/v5"},
		setup:   setupSCS,
		open: func(_ context.Context, at place) (sessionStore, error) {
			return scs{pgxstore.NewWithCleanupInterval(at.pool, 0), at.shorten(idleTimeout)}, nil
		},
		columns: scsColumns, row: scsRow,
		deadline: "select expiry from sessions where token = $1",
		day: &dayRival{
			name:     "scs",
			live:     "expiry > now()",
			cleanup:  5 * time.Minute, // pgxstore's default
			pruneSQL: "delete from sessions where expiry < current_timestamp returning 0::int8",
		},
	},
	{
		name: "scs + postgresstore", table: "sessions",
		what:    "its README's table, by database/sql and lib/pq; a touch commits the session again",
		modules: []string{"github.com/alexedwards/scs/postgresstore", "github.com/lib/pq"},
		setup:   setupSCS,
		open:    func(_ context.Context, at place) (sessionStore, error) { return openPostgresstore(at) },
		columns: scsColumns, row: scsRow,
		deadline: "select expiry from sessions where token = $1",
	},
	{
		name: "gorilla + pgstore", table: "http_sessions",
		what: "the table that it makes, `MaxLength` raised from 4,096; a touch saves the session again; " +
			"its gob, HMAC and base64 are in its numbers; reads at once race, over its own options",
		modules: []string{"github.com/antonlindstrom/pgstore", "github.com/gorilla/sessions", "github.com/lib/pq"},
		setup: func(ctx context.Context, at place) error {
			store, err := openGorilla(at) // makes the table
			if err != nil {
				return err
			}
			return store.close()
		},
		open:     func(_ context.Context, at place) (sessionStore, error) { return openGorilla(at) },
		columns:  []string{"key", "data", "created_on", "modified_on", "expires_on"},
		deadline: "select expires_on from http_sessions where key = convert_to($1, 'UTF8')",
		row: func(c *clock, key string, data []byte, created, expires time.Duration) ([]any, error) {
			encoded, err := encodeGorilla(data)
			return []any{[]byte(key), []byte(encoded), c.at(created), c.at(created), c.at(expires)}, err
		},
	},
	{
		name: "gofiber storage/postgres", table: "public.fiber_storage",
		what:    "the table that it makes; a touch sets the session again",
		modules: []string{"github.com/gofiber/storage/postgres/v3", "github.com/jackc/pgx/v5"},
		setup: func(ctx context.Context, at place) error {
			_, err := at.pool.Exec(ctx, "drop table if exists public.fiber_storage")
			return err
		},
		open: func(ctx context.Context, at place) (sessionStore, error) {
			cfg := fiber.Config{DB: at.pool, Table: "fiber_storage", GCInterval: 24 * time.Hour}
			// It makes the table; its ticker sleeps till the process ends.
			return fiberStore{fiber.NewWithContext(ctx, cfg), at.clock}, nil
		},
		columns:  []string{"k", "v", "e"},
		deadline: "select to_timestamp(e) from public.fiber_storage where k = $1",
		row: func(c *clock, key string, data []byte, _, expires time.Duration) ([]any, error) {
			return []any{key, data, c.fiberTime(expires).Unix()}, nil
		},
		day: &dayRival{
			name:     "fiber",
			live:     "e > $now",
			cleanup:  10 * time.Second, // its default
			pruneSQL: "delete from fiber_storage where e <= $now and e != 0 returning 0::int8",
		},
	},
	{
		name: "koa-pg-session", table: "public.session",
		what: "the table that it makes, by a query function on a pool of pg: with Node 14 and newer its own connections " +
			"never open; a set reads first, and a touch is a set; in Node, a process of its own",
		open: openNode("koa-pg-session"),
		setup: func(ctx context.Context, at place) error { // its createSql, for the rows to be there before it
			_, err := at.pool.Exec(ctx, `drop table if exists public.session;
create table public.session (id text not null primary key, expiry timestamp not null, session json)`)
			return err
		},
		columns:  []string{"id", "expiry", "session"},
		deadline: "select expiry::timestamptz from public.session where id = $1",
		row: func(c *clock, key string, data []byte, _, expires time.Duration) ([]any, error) {
			return []any{key, c.at(expires), string(data)}, nil
		},
	},
	{
		name: "connect-pg-simple", table: "session",
		what:     "its table.sql, on a pool of pg; in Node, a process of its own",
		open:     openNode("connect-pg-simple"),
		setup:    setupConnect,
		columns:  []string{"sid", "sess", "expire"},
		deadline: "select expire::timestamptz from session where sid = $1",
		row: func(c *clock, key string, data []byte, _, expires time.Duration) ([]any, error) {
			return []any{key, string(data), c.at(expires)}, nil
		},
	},
}

// redisRivals are those on a Redis, which are filled one by one.
func redisRivals(address string, durable bool) []rival {
	by := rival{
		name: "Redis by go-redis", kind: redisRival, address: address,
		what:    "GET, SET with a deadline, PEXPIRE, DEL; Redis keeps all in memory and writes nothing to disk",
		modules: []string{"github.com/redis/go-redis/v9"},
		open:    openGoRedis(address),
	}
	if durable {
		by.name = "Redis with appendfsync always"
		by.what = "as above, but a write waits for the disk, as with PostgreSQL"
		return []rival{by}
	}
	return []rival{by, {
		name: "scs + redisstore", kind: redisRival, address: address,
		what:    "the same Redis, by redigo; a commit is MULTI, SET, PEXPIREAT, EXEC",
		modules: []string{"github.com/alexedwards/scs/redisstore", "github.com/gomodule/redigo"},
		open:    openRedisstore(address),
	}}
}

var ourColumns = []string{
	"version", "created_at", "expires_at", "absolute_expires_at", "prune_after", "idle_timeout", "codec", "id", "data",
}

// openCached opens one instance of ours, with a cache.
func openCached(ctx context.Context, at place) (sessionStore, error) {
	cfg := ourConfig("pgsession_cached", at.clock)
	cfg.Notify = pgsession.NotifyGrouped
	cfg.Listen = pgsession.ListenFrom(at.pool)
	cfg.Cache.Size = 1 << 30 // all sessions fit
	cfg.Cache.MaxAge = 5 * time.Minute
	store, err := newOurs(at.pool, cfg)
	if err == nil {
		err = store.store.Setup(ctx)
	}
	if err == nil {
		err = awaitLive(ctx, store.store)
	}
	return store, err
}

// ourDeadline hashes the key as we do.
func ourDeadline(schema string) string {
	return "select expires_at from " + schema + ".session where id = translate(" +
		"rtrim(encode(sha256(convert_to($1, 'UTF8')), 'base64'), '='), '+/', '-_')"
}

func ourHashedRow(c *clock, key string, data []byte, created, expires time.Duration) ([]any, error) {
	return ourRow(c, sessionID(pgsession.Token(key)), data, created, expires), nil
}

func ourRow(c *clock, id string, data []byte, created, expires time.Duration) []any {
	// No touch moved it; prune did, where the session is older than that.
	after := created + idleTimeout
	if after < 0 {
		after = expires
	}
	return []any{
		c.at(created).UnixMicro(), c.at(created), c.at(expires), c.at(created + absoluteTimeout),
		c.at((after + time.Minute).Truncate(time.Minute)), c.shorten(idleTimeout), int16(0), id, data,
	}
}

var scsColumns = []string{"token", "data", "expiry"}

func scsRow(c *clock, key string, data []byte, _, expires time.Duration) ([]any, error) {
	return []any{key, data, c.at(expires)}, nil
}

func setupSCS(ctx context.Context, at place) error {
	_, err := at.pool.Exec(ctx, `drop table if exists sessions;
create table sessions (token text primary key, data bytea not null, expiry timestamptz not null);
create index sessions_expiry_idx on sessions (expiry)`) // its README
	return err
}

func setupConnect(ctx context.Context, at place) error {
	if err := installNode(); err != nil {
		return err
	}
	script, err := os.ReadFile(filepath.Join(nodeDirectory, "node_modules", "connect-pg-simple", "table.sql"))
	if err != nil {
		return err
	}
	_, err = at.pool.Exec(ctx, string(script))
	return err
}

func ourConfig(schema string, c *clock) pgsession.Config {
	return pgsession.Config{
		Schema:          schema,
		IdleTimeout:     c.shorten(idleTimeout), // and a touch must move it by a twentieth, as ever
		AbsoluteTimeout: c.shorten(absoluteTimeout),
		Tombstone:       max(time.Second, c.shorten(5*time.Minute)), // a second is the least
		Cleanup:         pgsession.Cleanup{Mode: pgsession.CleanupOff},
		Notify:          pgsession.NotifyOff,
		Logger:          slog.New(slog.DiscardHandler),
	}
}

// setupOurs makes our table in a schema, and compresses the second by which prune_after counts, too.
func setupOurs(schema string) func(context.Context, place) error {
	return func(ctx context.Context, at place) error {
		if _, err := at.pool.Exec(ctx, "drop schema if exists "+schema+" cascade"); err != nil {
			return err
		}
		var script strings.Builder
		if err := pgsession.SetupSQL(&script, ourConfig(schema, at.clock)); err != nil {
			return err
		}
		second := fmt.Sprintf("'%d microseconds'", max(1, at.shorten(time.Second).Microseconds()))
		_, err := at.pool.Exec(ctx, strings.ReplaceAll(script.String(), "'1 second'", second))
		return err
	}
}

// dayRivals are those of whom a day is replayed.
func dayRivals() []rival {
	var rivals []rival
	for _, r := range postgresRivals {
		if r.day == nil {
			continue
		}
		r.name = r.day.name
		if r.day.open != nil {
			r.open = r.day.open
		}
		rivals = append(rivals, r)
	}
	return rivals
}

// fill makes sessions by COPY, in the order in which they were created.
func (r rival) fill(ctx context.Context, at place, n int, row func(i int) ([]any, error)) error {
	table := splitName(r.table)
	if _, err := at.pool.CopyFrom(ctx, table, r.columns, pgx.CopyFromSlice(n, row)); err != nil {
		return err
	}
	_, err := at.pool.Exec(ctx, "vacuum analyze "+table.Sanitize())
	return err
}
