package pgsession_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

// check is Check, which must not fail.
func check(t *testing.T, store *pgsession.Store) []pgsession.Finding {
	t.Helper()
	findings, err := store.Check(t.Context())
	must(t, err)
	for i, f := range findings {
		if f.Message == "" || f.Remedy == "" || f.Code == "" || i > 0 && f.Severity > findings[i-1].Severity {
			t.Errorf("finding %d of %v", i, findings)
		}
	}
	return findings
}

// finding returns the findings of a code, and fails the test unless one has the severity and all words.
func finding(t *testing.T, findings []pgsession.Finding, code string, severity pgsession.Severity, words ...string) {
	t.Helper()
	for _, f := range findings {
		text := f.String()
		if f.Code == code && f.Severity == severity && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) }) {
			return
		}
	}
	t.Errorf("no %s %q with %q in it: %v", severity, code, words, findings)
}

// noFinding fails the test where something is found that is worse than information, but for codes.
func noFinding(t *testing.T, findings []pgsession.Finding, but ...string) {
	t.Helper()
	for _, f := range findings {
		if f.Severity > pgsession.SeverityInfo && !slices.Contains(but, f.Code) {
			t.Errorf("found: %s", f)
		}
	}
}

// bugged is the finding that there is of a healthy store, on a server that is not up to date.
func bugged(t *testing.T, db executor) (codes []string) {
	t.Helper()
	mended := map[int]int{14: 140021, 15: 150016, 16: 160012, 17: 170008, 18: 180002}
	if v := value[int](t, db, "select current_setting('server_version_num')::int4"); v < mended[v/10000] {
		return []string{pgsession.FindingListenBug}
	}
	return nil
}

func TestCheckNamesAServerThatLosesNotifications(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	findings := check(t, setUp(t, pool.Query, pgsession.Config{Schema: pgtest.Schema(t)}))
	want := bugged(t, pool)
	if os.Getenv("PGSESSION_TEST_OLD") != "" && want == nil {
		t.Error("this server is not old")
	}
	if want != nil {
		finding(t, findings, pgsession.FindingListenBug, pgsession.SeverityWarning, "lose notifications", "upgrade to PostgreSQL")
	} else {
		noFinding(t, findings, pgsession.FindingOwner)
	}
}

func TestCheckOfAHealthyStoreFindsNothingButInformation(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	owner := setUp(t, pgtest.Connect(t, c.ownerAddress).Query, c.cfg)
	token, _, err := owner.Create(t.Context(), pgsession.Session{Subject: "ada"})
	must(t, err)
	for _, who := range []struct{ name, address string }{{"owner", c.ownerAddress}, {"app", c.appAddress}, {"admin", c.adminAddress}} {
		cfg := fastListening(who.address)
		cfg.AppRole, cfg.AdminRole, cfg.Columns = c.app, c.admin, c.cfg.Columns
		store := setUp(t, pgtest.Connect(t, who.address).Query, cfg)
		awaitLive(t, store)
		findings := check(t, store)
		noFinding(t, findings, bugged(t, c.superuser)...)
		if len(findings) == 0 {
			t.Errorf("%s sees everything", who.name)
		}
		finding(t, findings, pgsession.FindingUnobservable, pgsession.SeverityInfo, "pg_read_all_stats")
		for _, f := range findings {
			if strings.Contains(f.String(), string(token)) {
				t.Errorf("a finding tells a token")
			}
		}
	}
	// By every way in too.
	for _, d := range doors {
		if d.kind != inTx {
			w := enter(t, d, pgtest.Connect(t, c.address), c.address, pgsession.Config{Schema: "pgsession", Columns: c.cfg.Columns, Owner: c.owner})
			noFinding(t, check(t, w.store), bugged(t, c.superuser)...)
		}
	}
	closed := storeOf(t, pgtest.Connect(t, c.address).Query, c.cfg)
	must(t, closed.Close())
	_, err = closed.Check(t.Context())
	wantError(t, "Check of a store that is closed", err, pgsession.ErrClosed)
}

func TestCheckFindsWhatADBACanDoWrong(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	setUp(t, pgtest.Connect(t, c.ownerAddress).Query, c.cfg)
	role, app := identifier(c.other), identifier(c.app)
	for _, test := range []struct {
		name, do string
		cfg      func(*pgsession.Config)
		code     string
		severity pgsession.Severity
		words    []string
	}{
		{"a function less", "drop function pgsession.session_touch", nil, pgsession.FindingSchema, pgsession.SeverityError, []string{`"session_touch" is missing`, "run Setup"}},
		{"all gone", "drop schema pgsession cascade", nil, pgsession.FindingSchema, pgsession.SeverityError, []string{`the schema "pgsession" is missing`}},
		{"a newer program", "create or replace function pgsession.session_schema_version(out migration int4, out functions int4, out columns text) language sql as $$select 99, 99, '[{\"name\":\"ip\",\"type\":\"inet\"}]'$$", nil, pgsession.FindingSchema, pgsession.SeverityInfo, []string{"newer"}},
		{"a migration missed", "drop table pgsession.session_cleanup", nil, pgsession.FindingSchema, pgsession.SeverityError, []string{`"session_cleanup" is missing`}},
		{"no index on the subject", "drop index pgsession.session_subject_idx", nil, pgsession.FindingIndex, pgsession.SeverityWarning, []string{`"subject"`}},
		{"no index to prune by", "drop index pgsession.session_prune_after_idx", nil, pgsession.FindingIndex, pgsession.SeverityWarning, []string{`"prune_after"`}},
		{"no index to find an old id by", "drop index pgsession.session_renewed_to_idx", nil, pgsession.FindingIndex, pgsession.SeverityWarning, []string{`"renewed_to"`}},
		{"unlogged", "alter table pgsession.session set unlogged", nil, pgsession.FindingDurability, pgsession.SeverityWarning, []string{"crash", "SwitchDurability"}},
		{"logged, to be unlogged", "select", func(cfg *pgsession.Config) { cfg.Durability = pgsession.DurabilityUnlogged }, pgsession.FindingDurability, pgsession.SeverityInfo, []string{"SwitchDurability"}},
		{"an index on the deadline", "create index mine on pgsession.session (expires_at)", nil, pgsession.FindingHOT, pgsession.SeverityWarning, []string{`"mine"`, "each touch"}},
		{"an index of an expression of the data", "create index mine on pgsession.session (length(data))", nil, pgsession.FindingHOT, pgsession.SeverityWarning, []string{`"mine"`, `"data"`}},
		{"an index with a condition on the version", "create index mine on pgsession.session (created_at) where version > 7", nil, pgsession.FindingHOT, pgsession.SeverityWarning, []string{`"mine"`, `"version"`}},
		{"a unique constraint", "alter table pgsession.session add constraint mine unique (id, expires_at)", nil, pgsession.FindingHOT, pgsession.SeverityWarning, []string{`"mine"`}},
		{"everyone may execute", "grant execute on function pgsession.session_get to public", nil, pgsession.FindingACL, pgsession.SeverityError, []string{"everyone may execute session_get"}},
		{"everyone may read", "grant select on pgsession.session to public", nil, pgsession.FindingACL, pgsession.SeverityError, []string{"everyone has SELECT on the table session"}},
		{"everyone may see the view", "grant select on pgsession.session_view to public", nil, pgsession.FindingACL, pgsession.SeverityError, []string{"session_view"}},
		{"everyone may create", "grant create on schema pgsession to public", nil, pgsession.FindingACL, pgsession.SeverityError, []string{"everyone has CREATE on the schema"}},
		{"the application may read", "grant select, update on pgsession.session to " + app, nil, pgsession.FindingACL, pgsession.SeverityWarning, []string{"SELECT, UPDATE"}},
		{"a column is given away", "grant select (data) on pgsession.session to " + role, nil, pgsession.FindingACL, pgsession.SeverityInfo, []string{"the column data"}},
		{"a superuser owns it", "alter table pgsession.session owner to postgres", nil, pgsession.FindingOwner, pgsession.SeverityWarning, []string{`"postgres"`}},
		{"row security is forced", "alter table pgsession.session owner to " + role + "; alter table pgsession.session enable row level security; alter table pgsession.session force row level security", nil, pgsession.FindingRowSecurity, pgsession.SeverityError, []string{"hide"}},
		{"what is due is there", "insert into pgsession.session (version, created_at, expires_at, prune_after, codec, id, data) values (1, now() - interval '2 h', now() - interval '1 h', now() - interval '1 h', 0, 'x', '')", nil, pgsession.FindingCleanup, pgsession.SeverityWarning, []string{"1 rows", "1h0m"}},
		{"no right to look", "revoke execute on function pgsession.session_cleanup_status from " + app + "; set local role " + app, nil, pgsession.FindingUnobservable, pgsession.SeverityInfo, []string{"pruning"}},
		{"no rights", "set local role " + role + ";grant", nil, pgsession.FindingSchema, pgsession.SeverityError, []string{"no USAGE"}},
		{"no right to execute", "grant usage on schema pgsession to " + role + "; grant execute on function pgsession.session_schema_version() to " + role + "; set local role " + role, nil, pgsession.FindingRights, pgsession.SeverityError, []string{"may not execute", "get,", "AppRole"}},
		{"no right to prune", "set local role " + app, func(cfg *pgsession.Config) { cfg.Cleanup.Mode = pgsession.CleanupTicker }, pgsession.FindingRights, pgsession.SeverityInfo, []string{"may not prune"}},
		{"no listener", "select", nil, pgsession.FindingListener, pgsession.SeverityInfo, []string{"Config.Listen"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := c.cfg
			if test.cfg != nil {
				test.cfg(&cfg)
			}
			conn := dial(t, c.address, nil)
			inTransaction(t, conn, func(tx pgx.Tx) {
				store := storeOf(t, tx.Query, cfg)
				for _, f := range check(t, store) {
					if f.Code == test.code && f.Severity > pgsession.SeverityInfo {
						t.Errorf("before: %s", f)
					}
				}
				for statement := range strings.SplitSeq(strings.TrimSuffix(test.do, ";grant"), "; ") {
					exec(t, tx, statement)
				}
				finding(t, check(t, store), test.code, test.severity, test.words...)
			})
		})
	}
}

func TestCheckFindsAnotherIsolation(t *testing.T) {
	t.Parallel()
	w := isolated(t, "repeatable read", pgsession.Config{})
	finding(t, check(t, w.store), pgsession.FindingIsolation, pgsession.SeverityWarning, "repeatable read")
}

func TestCheckFindsPoolers(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	setUp(t, pgtest.Connect(t, c.ownerAddress).Query, c.cfg)
	through := withParameter(t, bouncerFor(t, c.address), "default_query_exec_mode", "exec")
	cfg := fastListening(through)
	cfg.Columns = c.cfg.Columns
	store := setUp(t, pgtest.Connect(t, through).Query, cfg)
	findings := check(t, store)
	finding(t, findings, pgsession.FindingPooler, pgsession.SeverityInfo, "QueryFunc")
	finding(t, findings, pgsession.FindingPooler, pgsession.SeverityWarning, "listener 1", "passes no notifications")
	eventually(t, "it notices that it hears nothing", func() bool {
		return slices.ContainsFunc(check(t, store), func(f pgsession.Finding) bool {
			return f.Code == pgsession.FindingListener && f.Severity == pgsession.SeverityWarning && strings.Contains(f.Message, "no beat was heard")
		})
	})
	lib := storeOf(t, pgsession.FromSQL(openDB(t, "postgres", c.address)), c.cfg)
	finding(t, check(t, lib), pgsession.FindingUnobservable, pgsession.SeverityInfo, "pooler")
}

func TestCheckTellsWhyNothingIsHeard(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	pool := pgtest.Connect(t, address)
	var mu sync.Mutex
	refuse := true
	cfg := fastListening()
	cfg.Listen = func(ctx context.Context) (*pgx.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		if refuse {
			return nil, errors.New("the door is shut")
		}
		return pgx.Connect(ctx, address)
	}
	cfg.Cleanup, cfg.Logger = withoutCleanup, slog.New(slog.DiscardHandler)
	store, err := pgsession.New(pool.Query, cfg)
	must(t, err)
	t.Cleanup(func() { _ = store.Close() })
	must(t, store.Migrate(t.Context()))
	findings := check(t, store)
	finding(t, findings, pgsession.FindingListener, pgsession.SeverityInfo, "Setup has not run")
	finding(t, findings, pgsession.FindingListener, pgsession.SeverityWarning, "the door is shut")
	must(t, store.Setup(t.Context()))
	eventually(t, "it is known why", func() bool {
		return slices.ContainsFunc(check(t, store), func(f pgsession.Finding) bool {
			return f.Code == pgsession.FindingListener && strings.Contains(f.Message, "not proved") && strings.Contains(f.Message, "the door is shut")
		})
	})
	mu.Lock()
	refuse = false
	mu.Unlock()
	awaitLive(t, store)
	for _, f := range check(t, store) {
		if f.Code == pgsession.FindingListener {
			t.Errorf("heard again: %s", f)
		}
	}
}

// An own server: what these find is the whole server's.
func TestCheckFindsWhatHoldsTheHorizonAndFillsTheQueue(t *testing.T) {
	t.Parallel()
	server := pgtest.PrivateServer(t, postgres.Options{Settings: map[string]string{"max_prepared_transactions": "2", "autovacuum": "off"}})
	pool := pgtest.Connect(t, server.URL())
	cfg := pgsession.Config{Check: pgsession.Limits{Snapshot: time.Millisecond, SnapshotAge: 1, Queue: 1e-9}}
	store := setUp(t, pool.Query, cfg)
	lenient := setUp(t, pool.Query, pgsession.Config{})
	quiet := func() {
		t.Helper()
		noFinding(t, check(t, store), append(bugged(t, pool), pgsession.FindingOwner)...)
	}
	quiet()

	conn := dial(t, server.URL(), map[string]string{"application_name": "forgetful"})
	inTransaction(t, conn, func(tx pgx.Tx) {
		exec(t, tx, "set transaction isolation level repeatable read")
		exec(t, tx, "select 1")
		eventually(t, "it is found", func() bool {
			return slices.ContainsFunc(check(t, store), func(f pgsession.Finding) bool {
				return f.Code == pgsession.FindingHorizon && strings.Contains(f.Message, "the session") && strings.Contains(f.Message, "forgetful")
			})
		})
		noFinding(t, check(t, lenient), append(bugged(t, pool), pgsession.FindingOwner)...)
	})
	quiet()

	exec(t, conn, "begin")
	exec(t, conn, "create table prepared ()")
	exec(t, conn, "prepare transaction 'forgotten'")
	finding(t, check(t, store), pgsession.FindingHorizon, pgsession.SeverityWarning, "prepared transaction forgotten", "ROLLBACK PREPARED")
	exec(t, conn, "rollback prepared 'forgotten'")
	quiet()

	holdSlot(t, server.URL(), "abandoned", value[uint32](t, pool, "select (pg_current_xact_id()::text::int8 % 4294967296)::int8"))
	for range 3 {
		exec(t, pool, "select pg_current_xact_id()")
	}
	finding(t, check(t, store), pgsession.FindingHorizon, pgsession.SeverityWarning, "replication slot abandoned", "pg_drop_replication_slot")
	exec(t, pool, "select pg_drop_replication_slot('abandoned')")
	quiet()

	// One who listens and does not read: in a transaction.
	exec(t, conn, "listen noise")
	inTransaction(t, conn, func(tx pgx.Tx) {
		exec(t, tx, "select 1")
		for i := range 50 {
			exec(t, pool, "select pg_notify('noise', $1)", fmt.Sprint(i, strings.Repeat("x", 7900)))
		}
		finding(t, check(t, store), pgsession.FindingQueue, pgsession.SeverityWarning, "queue")
	})

	// Dead rows that nobody removes: autovacuum is off.
	exec(t, pool, `insert into pgsession.session (version, created_at, expires_at, prune_after, codec, id, data)
		select 1, now(), now() + interval '1 h', now() + interval '1 h', 0, i::text, repeat('x', 700)::bytea from generate_series(1, 12000) as i`)
	exec(t, pool, "delete from pgsession.session where id <> '1'")
	eventually(t, "the dead are counted", func() bool {
		return slices.ContainsFunc(check(t, store), func(f pgsession.Finding) bool {
			return f.Code == pgsession.FindingBloat && strings.Contains(f.Message, "are dead")
		})
	})
	exec(t, pool, "vacuum analyze pgsession.session")
	finding(t, check(t, store), pgsession.FindingBloat, pgsession.SeverityWarning, "most of it is empty")

	// And a server that is a standby.
	path := value[string](t, pool, "show data_directory")
	must(t, os.WriteFile(filepath.Join(path, "standby.signal"), nil, 0o644))
	must(t, server.Restart(t.Context()))
	standby := storeOf(t, pgtest.Connect(t, server.URL()).Query, fastListening(server.URL()))
	findings := check(t, standby)
	finding(t, findings, pgsession.FindingReplica, pgsession.SeverityError, "the server is a standby")
	finding(t, findings, pgsession.FindingReplica, pgsession.SeverityError, "listener 1")
}

// holdSlot makes a physical replication slot, and tells the server what a standby would that needs rows
// from a transaction on, and is gone.
func holdSlot(t *testing.T, address, slot string, xmin uint32) {
	t.Helper()
	u, err := url.Parse(address)
	must(t, err)
	query := u.Query()
	query.Set("replication", "true")
	u.RawQuery = query.Encode()
	conn, err := pgconn.Connect(t.Context(), u.String())
	must(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), "CREATE_REPLICATION_SLOT "+slot+" PHYSICAL RESERVE_WAL").ReadAll()
	must(t, err)
	position, err := conn.Exec(t.Context(), "IDENTIFY_SYSTEM").ReadAll()
	must(t, err)
	front := conn.Frontend()
	front.Send(&pgproto3.Query{String: fmt.Sprintf("START_REPLICATION SLOT %s PHYSICAL %s", slot, position[0].Rows[0][2])})
	must(t, front.Flush())
	for {
		message, err := conn.ReceiveMessage(t.Context())
		must(t, err)
		if _, ok := message.(*pgproto3.CopyBothResponse); ok {
			break
		}
		if e, ok := message.(*pgproto3.ErrorResponse); ok {
			t.Fatal(e.Message)
		}
	}
	feedback := binary.BigEndian.AppendUint64([]byte{'h'}, 0)
	for _, n := range []uint32{xmin, 0, 0, 0} { // xmin, its epoch, catalog_xmin, its epoch
		feedback = binary.BigEndian.AppendUint32(feedback, n)
	}
	front.Send(&pgproto3.CopyData{Data: feedback})
	must(t, front.Flush())
	see := dial(t, address, nil)
	eventually(t, "the slot holds rows", func() bool {
		return value[bool](t, see, "select xmin is not null from pg_replication_slots where slot_name = $1", slot)
	})
	_ = conn.Conn().Close() // without a word
	eventually(t, "the slot is left", func() bool {
		return value[bool](t, see, "select not active from pg_replication_slots where slot_name = $1", slot)
	})
}

func TestCheckFindsAClockThatIsWrong(t *testing.T) {
	t.Parallel()
	schema := pgtest.Schema(t)
	conn := dial(t, pgtest.URL(t), nil)
	setUp(t, pgtest.Pool(t).Query, pgsession.Config{Schema: schema})
	query := outside(t, conn.Query)
	synctest.Test(t, func(t *testing.T) { // where it is the year 2000
		store, err := pgsession.New(query, pgsession.Config{
			Schema: schema, Cleanup: withoutCleanup, Logger: slog.New(slog.DiscardHandler),
		})
		must(t, err)
		defer store.Close()
		finding(t, check(t, store), pgsession.FindingClock, pgsession.SeverityWarning, "the server's clock is", "NTP")
	})
}
