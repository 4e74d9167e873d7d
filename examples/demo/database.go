package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/postgres"
)

// teardownTimeout bounds what is done at the end to a database that may be down by then.
const teardownTimeout = 30 * time.Second

// database is the PostgreSQL behind the demo, and a look behind the scenes: what the tour counts in
// the table, the store's users never see. Applications have no business there.
type database struct {
	url    string
	source string // which server it is, in words
	given  bool   // by the environment: not ours to stop
	schema string
	server *postgres.Server
	pool   *pgxpool.Pool
}

// openDatabase finds or starts a PostgreSQL, and makes sure that the schema is free: it will be
// dropped in the end, and whatever is there already is not ours to drop.
func openDatabase(ctx context.Context, schema string) (_ *database, err error) {
	server, err := postgres.Start(ctx, postgres.Options{})
	if err != nil {
		return nil, err
	}
	db := &database{
		url:    server.URL(),
		source: server.Source(),
		given:  os.Getenv("DATABASE_URL") != "" || os.Getenv("PGSESSION_TEST_DATABASE_URL") != "",
		schema: schema,
		server: server,
	}
	defer func() {
		if err != nil {
			if db.pool != nil {
				db.pool.Close()
			}
			err = errors.Join(err, server.Stop())
		}
	}()
	config, err := pgxpool.ParseConfig(db.url)
	if err != nil {
		return nil, err
	}
	config.MaxConns = 1
	if db.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, err
	}
	var taken bool
	err = db.pool.QueryRow(ctx,
		`select exists (select from pg_catalog.pg_namespace where nspname = $1)`, schema).Scan(&taken)
	if err != nil {
		return nil, fmt.Errorf("look for the schema %s: %w", schema, err)
	}
	if taken {
		return nil, fmt.Errorf("the schema %[1]s is there already, in %[2]s, so it is not this demo's to use.\n"+
			"Another demo is running, or one was killed. Choose another by -schema, or, if it may go:\n"+
			"  drop schema %[3]s cascade", schema, db.source, pgx.Identifier{schema}.Sanitize())
	}
	return db, nil
}

// close drops the schema and stops a server that was started here.
func (db *database) close() error {
	// Not the run's context: that has ended when Ctrl-C was pressed.
	ctx, cancel := context.WithTimeout(context.Background(), teardownTimeout)
	defer cancel()
	_, err := db.pool.Exec(ctx, "drop schema if exists "+pgx.Identifier{db.schema}.Sanitize()+" cascade")
	if err != nil {
		err = fmt.Errorf("drop the schema %s: %w", db.schema, err)
	}
	db.pool.Close()
	return errors.Join(err, db.server.Stop())
}

func (db *database) table() string { return pgx.Identifier{db.schema, "session"}.Sanitize() }

// census is how many rows of each kind the table has.
type census struct{ rows, live, expired, tombstones int }

func (c census) String() string {
	return fmt.Sprintf("%d: %d live, %d expired, %d tombstones", c.rows, c.live, c.expired, c.tombstones)
}

func (db *database) census(ctx context.Context) (c census, err error) {
	err = db.pool.QueryRow(ctx, `
		select count(*),
		       count(*) filter (where revoked_at is null and expires_at > clock_timestamp()),
		       count(*) filter (where revoked_at is null and expires_at <= clock_timestamp()),
		       count(*) filter (where revoked_at is not null)
		  from `+db.table()).Scan(&c.rows, &c.live, &c.expired, &c.tombstones)
	return c, err
}

// isTombstone says whether a session's row is a tombstone, without data.
func (db *database) isTombstone(ctx context.Context, id pgsession.ID) (is bool, err error) {
	err = db.pool.QueryRow(ctx, `select revoked_at is not null and data is null from `+db.table()+` where id = $1`,
		string(id)).Scan(&is)
	return is, err
}

// until returns how long it is until a moment, by the server's clock: deadlines are the server's, and
// this machine's clock may differ.
func (db *database) until(ctx context.Context, deadline time.Time) (time.Duration, error) {
	var seconds float64
	err := db.pool.QueryRow(ctx, `select extract(epoch from $1 - clock_timestamp())::float8`, deadline).Scan(&seconds)
	return time.Duration(seconds * float64(time.Second)), err
}

// notify publishes that a session has changed, as a client in another language might.
func (db *database) notify(ctx context.Context, id pgsession.ID) error {
	entries, err := json.Marshal(map[pgsession.ID]int64{id: 1})
	if err == nil {
		_, err = db.pool.Exec(ctx, "select "+pgx.Identifier{db.schema, "session_notify"}.Sanitize()+"($1)", string(entries))
	}
	return err
}

// killListeners ends the connections that listen for notifications, as a network or an administrator
// might, and returns how many there were.
func (db *database) killListeners(ctx context.Context) (n int, err error) {
	err = db.pool.QueryRow(ctx, `
		select count(pg_terminate_backend(pid)) from pg_stat_activity
		 where datname = current_database() and application_name = $1 || ' pgsession listener'`,
		applicationName(db.schema)).Scan(&n)
	return n, err
}

// applicationName tells one demo's connections from another's. It is short: PostgreSQL cuts off what
// is longer than 63 bytes.
func applicationName(schema string) string {
	return fmt.Sprintf("demo %08x", crc32.ChecksumIEEE([]byte(schema)))
}

// letPass makes the dead rows as old as they would be in ten minutes: prune leaves an expired row for
// up to a second, and a tombstone for Config.Tombstone.
func (db *database) letPass(ctx context.Context) error {
	_, err := db.pool.Exec(ctx, `
		update `+db.table()+`
		   set prune_after = prune_after - interval '10 minutes'
		 where revoked_at is not null or expires_at <= clock_timestamp()`)
	return err
}
