package pgsession_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "github.com/lib/pq"              // the driver "postgres"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		// The version matrix: what differs between versions does so whichever way it is reached.
		doors = slices.DeleteFunc(doors, func(d door) bool { return !slices.Contains(shortDoors, d.name) })
	}
	pgtest.Main(m)
}

// shortDoors are the ways in that a short run takes: both protocols, both drivers, and a transaction.
var shortDoors = []string{"pool, cache_statement", "pool, simple_protocol", cached, "sql.DB, lib pq", "conn", "in a pgx.Tx"}

// way is one way in which an application reaches its sessions: by some driver, in some mode of it,
// over a pool, a connection or a transaction.
type way struct {
	pgsession.Sessions // the store's; inside a transaction of the caller's, the Tx's

	store *pgsession.Store
	query pgsession.QueryFunc // the store's
	begin func(t *testing.T) transaction
	admin *pgxpool.Pool
	// see runs statements that see what the way sees: the transaction's changes before they are
	// committed, where there is one.
	see pgsession.QueryFunc

	schema string // the name as it is: it needs no quotes
	table  string // qualified
	inTx   bool
}

// transaction is one of the caller's, of whatever driver. It is rolled back when the test ends.
type transaction struct {
	query            pgsession.QueryFunc
	commit, rollback func() error
}

// door is how a way begins: what opens connections to the database at a URL.
type door struct {
	name string
	kind kind
	open func(t *testing.T, url string) (pgsession.QueryFunc, func(*testing.T) transaction)
}

// cached is the name of the door whose store reads through the cache.
const cached = "pool, cached"

type kind int

const (
	pooled kind = iota
	single      // one connection, which the callers take in turns
	inTx        // one connection, in a transaction of the caller's
)

var doors = []door{
	{"pool, cache_statement", pooled, openPool("cache_statement")},
	{"pool, cache_describe", pooled, openPool("cache_describe")},
	{"pool, describe_exec", pooled, openPool("describe_exec")},
	{"pool, exec", pooled, openPool("exec")},
	{"pool, simple_protocol", pooled, openPool("simple_protocol")},
	{cached, pooled, openFromPool},
	{"sql.DB, pgx", pooled, openSQL("pgx")},
	{"sql.DB, lib pq", pooled, openSQL("postgres")},
	// PgBouncer 1.18 has no prepared statements in transaction mode, which rules out pgx's others, and
	// lib/pq's way to send arguments, unless they are binary.
	{"PgBouncer, cache_describe", pooled, throughBouncer(openPool("cache_describe"))},
	{"PgBouncer, exec", pooled, throughBouncer(openPool("exec"))},
	{"PgBouncer, simple_protocol", pooled, throughBouncer(openPool("simple_protocol"))},
	{"PgBouncer, lib pq", pooled, throughBouncer(openSQL("postgres", "binary_parameters"))},
	{"conn", single, openConn},
	{"sql.Conn, pgx", single, openSQLConn},
	{"in a pgx.Tx", inTx, openPool("cache_statement")},
	{"in a sql.Tx, pgx", inTx, openSQL("pgx")},
	{"in a sql.Tx, lib pq", inTx, openSQL("postgres")},
}

// everyWay runs f as a subtest for every way in, each with a schema of its own.
func everyWay(t *testing.T, cfg pgsession.Config, f func(t *testing.T, w *way)) {
	t.Helper()
	every(t, inTx, cfg, f)
}

// everyStore is everyWay less those inside a transaction, of which only one call at a time may be
// under way, and in which nothing is retried.
func everyStore(t *testing.T, cfg pgsession.Config, f func(t *testing.T, w *way)) {
	t.Helper()
	every(t, single, cfg, f)
}

// everyPool is everyStore less those with one connection only.
func everyPool(t *testing.T, cfg pgsession.Config, f func(t *testing.T, w *way)) {
	t.Helper()
	every(t, pooled, cfg, f)
}

// mainWays is everyWay for those that a short run takes: for what differs with the protocol, the driver,
// the cache and a transaction, and with nothing else.
func mainWays(t *testing.T, cfg pgsession.Config, f func(t *testing.T, w *way)) {
	t.Helper()
	admin, address := pgtest.Pool(t), pgtest.URL(t)
	for _, d := range doors {
		if slices.Contains(shortDoors, d.name) {
			t.Run(d.name, func(t *testing.T) {
				t.Parallel()
				f(t, enter(t, d, admin, address, cfg))
			})
		}
	}
}

func every(t *testing.T, upTo kind, cfg pgsession.Config, f func(t *testing.T, w *way)) {
	t.Helper()
	admin, address := pgtest.Pool(t), pgtest.URL(t)
	for _, d := range doors {
		if d.kind > upTo {
			break
		}
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			f(t, enter(t, d, admin, address, cfg))
		})
	}
}

// enter opens a door, and sets a store up through it.
func enter(t *testing.T, d door, admin *pgxpool.Pool, address string, cfg pgsession.Config) *way {
	t.Helper()
	if cfg.Schema == "" {
		cfg.Schema = pgtest.SchemaAt(t, address)
	}
	w := &way{admin: admin, see: admin.Query, inTx: d.kind == inTx, schema: cfg.Schema, table: cfg.Schema + ".session"}
	w.query, w.begin = d.open(t, address)
	if d.name == cached {
		cfg.Listen = func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, address) }
		if cfg.Tombstone > 0 {
			cfg.Cache.MaxAge = min(cfg.Tombstone, time.Minute)
		}
	}
	w.store = setUp(t, w.query, cfg)
	if d.name == cached {
		eventually(t, "the cache is live", func() bool { return w.isLive(t) })
	}
	w.Sessions = w.store
	if w.inTx {
		tx := w.begin(t)
		w.Sessions, w.see = w.store.WithQuery(tx.query), tx.query
	}
	return w
}

// onPool is the way for tests that need no other.
func onPool(t *testing.T, cfg pgsession.Config) *way {
	t.Helper()
	return enter(t, doors[0], pgtest.Pool(t), pgtest.URL(t), cfg)
}

// setUp makes a store that does not prune by itself, and runs Setup. The store is closed when the test
// ends.
func setUp(t *testing.T, query pgsession.QueryFunc, cfg pgsession.Config) *pgsession.Store {
	t.Helper()
	cfg.Cleanup.Mode = pgsession.CleanupOff
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	store, err := pgsession.New(query, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	if err := store.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	return store
}

// exec runs a statement that sees what the way sees, with {table} and {schema} filled in.
func (w *way) exec(t *testing.T, statement string, args ...any) {
	t.Helper()
	rows, err := w.see(t.Context(), w.fill(statement), args...)
	if err == nil {
		rows.Close()
		err = rows.Err()
	}
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	w.forget(t)
}

// forget empties the cache of a way that has one, for what was done behind its back.
func (w *way) forget(t *testing.T) {
	t.Helper()
	if w.store == nil { // by its QueryFunc alone
		return
	}
	if before := w.store.Stats().Cache; before.Live {
		rows, err := w.see(t.Context(), w.fill(`select {schema}.session_notify(null)`))
		must(t, err)
		rows.Close()
		must(t, rows.Err())
		eventually(t, "the cache is empty", func() bool {
			return w.store.Stats().Cache.Resets > before.Resets && w.isLive(t)
		})
	}
}

// isLive reports whether the cache is live, and if not publishes the nonce that it may wait for, which
// otherwise comes with its next beat.
func (w *way) isLive(t *testing.T) bool {
	t.Helper()
	live := w.store.Stats().Cache.Live
	if !live {
		_, err := w.admin.Exec(t.Context(), w.fill(`select {schema}.session_beat(0.01)`))
		must(t, err)
	}
	return live
}

// scan is exec of a statement that returns a row.
func (w *way) scan(t *testing.T, dest any, statement string, args ...any) {
	t.Helper()
	rows, err := w.see(t.Context(), w.fill(statement), args...)
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	defer rows.Close()
	if !rows.Next() {
		t.Fatalf("%s: no row; %v", statement, rows.Err())
	}
	if err := rows.Scan(dest); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func (w *way) fill(statement string) string {
	return strings.NewReplacer("{table}", w.table, "{schema}", w.schema).Replace(statement)
}

// row is all that the table says of a session, as text; "" where there is no row.
func (w *way) row(t *testing.T, token pgsession.Token) (text string) {
	t.Helper()
	w.scan(t, &text, `select coalesce((select t::text from {table} as t where t.id = $1::text), '')`,
		string(w.id(t, token)))
	return text
}

func (w *way) id(t *testing.T, token pgsession.Token) pgsession.ID {
	t.Helper()
	id, err := w.store.ID(token)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// create creates a session that has a row, also where there is nothing to store.
func (w *way) create(t *testing.T, session pgsession.Session) (pgsession.Token, pgsession.Session) {
	t.Helper()
	token, session, err := w.Create(t.Context(), session)
	if err == nil && session.Version == 0 {
		session, err = w.Set(t.Context(), token, session)
	}
	if err != nil {
		t.Fatal(err)
	}
	return token, session
}

// age moves a session, or all, into the past, as if it had been left alone for so long.
func (w *way) age(t *testing.T, by time.Duration, tokens ...pgsession.Token) {
	t.Helper()
	const shift = `
		update {table} as t
		   set created_at = t.created_at - make_interval(secs => $1::float8),
		       expires_at = t.expires_at - make_interval(secs => $1::float8),
		       absolute_expires_at = t.absolute_expires_at - make_interval(secs => $1::float8),
		       prune_after = t.prune_after - make_interval(secs => $1::float8),
		       revoked_at = t.revoked_at - make_interval(secs => $1::float8)`
	if len(tokens) == 0 {
		w.exec(t, shift, by.Seconds())
	}
	if len(tokens) > 0 {
		w.exec(t, shift+` where t.id = any (array(select jsonb_array_elements_text($2::jsonb)))`, by.Seconds(), w.ids(t, tokens...))
	}
}

// ids are the ids of tokens as a JSON array, which every driver takes.
func (w *way) ids(t *testing.T, tokens ...pgsession.Token) string {
	t.Helper()
	ids := make([]pgsession.ID, len(tokens))
	for i, token := range tokens {
		ids[i] = w.id(t, token)
	}
	text, err := json.Marshal(ids)
	must(t, err)
	return string(text)
}

// prune prunes all there is to prune, also inside a transaction.
func (w *way) prune(t *testing.T) (deleted int64) {
	t.Helper()
	w.scan(t, &deleted, `select p.deleted from {schema}.session_prune(1000000) as p`)
	return deleted
}

// seed inserts n live sessions of a subject, with the tokens prefix1, prefix2 and so on.
func (w *way) seed(t *testing.T, n int, prefix, subject string, bytes int) {
	t.Helper()
	w.exec(t, `
		insert into {table} (version, created_at, expires_at, prune_after, idle_timeout, codec, id, subject, data)
		select 1, now(), now() + '1 day', now() + '1 day 1 minute', '1 day', 0,
		       translate(rtrim(encode(sha256(convert_to($2::text || i, 'UTF8')), 'base64'), '='), '+/', '-_'),
		       nullif($3::text, ''), convert_to(repeat('x', $4::int), 'UTF8')
		  from generate_series(1, $1::int) as i`, n, prefix, subject, bytes)
}

// seeded is the token of the i-th session of a seed, counted from 1.
func seeded(prefix string, i int) pgsession.Token {
	return pgsession.Token(fmt.Sprint(prefix, i))
}

// waiting is how many calls on the way's schema wait for locks that a transaction holds.
func (w *way) waiting(t *testing.T) (n int) {
	t.Helper()
	must(t, w.admin.QueryRow(t.Context(), `
		select count(*) from pg_stat_activity where `+pgtest.Waits+` and position($1 in query) > 0`,
		w.schema).Scan(&n))
	return n
}

// advisoryWaits is how many wait for advisory locks in a database that is the test's own.
func advisoryWaits(t *testing.T, db executor) int {
	t.Helper()
	return value[int](t, db, `
		select count(*) from pg_locks
		 where locktype = 'advisory' and not granted
		   and database = (select oid from pg_database where datname = current_database())`)
}

// running is how many calls on the way's schema are under way. One that waits for a lock is not seen to at every
// moment: whatever signals its backend, as the check for deadlocks does, interrupts the wait.
func (w *way) running(t *testing.T) (n int) {
	t.Helper()
	must(t, w.admin.QueryRow(t.Context(), `
		select count(*) from pg_stat_activity
		 where state = 'active' and pid <> pg_backend_pid() and position($1 in query) > 0`, w.schema).Scan(&n))
	return n
}

func (w *way) awaitWaiting(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d calls wait for a lock", n), func() bool { return w.waiting(t) >= n })
}

func TestASessionWrittenInOneWayIsReadInEveryOther(t *testing.T) {
	t.Parallel()
	schema := pgtest.Schema(t)
	first := onPool(t, pgsession.Config{Schema: schema})
	data := []byte("\x00\xffå")
	token, _ := first.create(t, pgsession.Session{Subject: "ada", Data: data})
	for _, d := range doors {
		t.Run(d.name, func(t *testing.T) {
			w := enter(t, d, first.admin, pgtest.URL(t), pgsession.Config{Schema: schema})
			got, err := w.Get(t.Context(), token)
			if err != nil || got.Subject != "ada" || string(got.Data) != string(data) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestASingleConnectionIsSharedByTakingTurns(t *testing.T) {
	t.Parallel()
	everyStore(t, pgsession.Config{}, func(t *testing.T, w *way) {
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() {
				token, _, err := w.Create(t.Context(), pgsession.Session{Data: []byte("1")})
				if err == nil {
					_, err = w.Get(t.Context(), token)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if n, err := w.Count(t.Context(), pgsession.Filter{}); err != nil || n != 20 {
			t.Errorf("counted %d sessions, %v; want 20", n, err)
		}
	})
}
