package pgsession_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

// wantText fails the test unless the error says so.
func wantText(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("err = %v, want %q in it", err, text)
	}
}

// slowWAL is a server that writes its log for those who wait for that, and else after ten seconds.
func slowWAL(t *testing.T) *postgres.Server {
	t.Helper()
	return pgtest.PrivateServer(t, postgres.Options{Settings: map[string]string{
		"wal_writer_delay": "10s", "autovacuum": "off", "checkpoint_timeout": "1h", "bgwriter_lru_maxpages": "0",
	}})
}

func TestRelaxedWritesDoNotWaitForTheDiskAndMayBeLostButForWhatEndsASession(t *testing.T) {
	t.Parallel()
	server := slowWAL(t)
	for _, d := range []door{doors[0], doors[4], doors[7]} { // pgx's default mode, simple_protocol, lib/pq
		admin := pgtest.Connect(t, server.URL())
		w := enter(t, d, admin, server.URL(), pgsession.Config{
			Durability: pgsession.DurabilityRelaxed, Notify: pgsession.NotifyOff, // whose own commits wait for no disk
		})
		logged := setUp(t, w.query, pgsession.Config{Schema: w.schema, Notify: pgsession.NotifyOff})
		ctx := t.Context()
		// Behind: how much of what was inserted into the log was not written when call returned.
		waits := func(what string, want bool, call func() error) {
			t.Helper()
			for range 20 {
				must(t, call())
				if (value[int64](t, admin, "select (pg_current_wal_insert_lsn() - pg_current_wal_flush_lsn())::int8") == 0) != want {
					continue // somebody else's write may have had it written
				}
				return
			}
			t.Errorf("%s: %s waits for the disk: not %v", d.name, what, want)
		}
		var token pgsession.Token
		n := 0
		set := func(s pgsession.Sessions, subject string) func() error {
			return func() error {
				n++
				_, err := s.Set(ctx, token, pgsession.Session{Subject: subject, Data: []byte{byte(n), byte(n >> 8)}})
				return err
			}
		}
		create := func(s pgsession.Sessions) func() error {
			return func() (err error) { token, _, err = s.Create(ctx, pgsession.Session{Subject: "ada"}); return err }
		}
		touch := func(s pgsession.Sessions) func() error {
			return func() error {
				w.exec(t, `update {table} set expires_at = expires_at - interval '2 hours' where id = $1`, string(w.id(t, token)))
				_, err := s.Touch(ctx, token)
				return err
			}
		}
		waits("a logged create", true, create(logged))
		waits("a create", false, create(w))
		waits("a logged set", true, set(logged, "ada"))
		waits("a set", false, set(w, "ada"))
		waits("a logged touch", true, touch(logged))
		waits("a touch", false, touch(w))
		waits("a set that changes the subject", true, func() error { return set(w, string(rune('a'+n%2)))() })
		waits("an update", false, func() error {
			_, err := w.Update(ctx, token, func(s *pgsession.Session) error { s.Data = append(s.Data, 1); return nil })
			return err
		})
		var err error
		token, _, err = w.Create(ctx, pgsession.Session{Data: []byte(`{}`), Codec: pgsession.CodecJSON})
		must(t, err)
		waits("a patch", false, func() error {
			n++
			_, err := w.Patch(ctx, token, fmt.Appendf(nil, `{"n":%d}`, n))
			return err
		})
		waits("a renewal", true, func() error {
			must(t, create(w)())
			_, _, err := w.Renew(ctx, token, pgsession.Renewal{})
			return err
		})
		limited := setUp(t, w.query, pgsession.Config{
			Schema: w.schema, Durability: pgsession.DurabilityRelaxed, Notify: pgsession.NotifyOff,
			MaxPerSubject: 1, Overflow: pgsession.OverflowEvictOldest,
		})
		must(t, create(w)())
		waits("a create that evicts", true, create(limited))
		waits("a destroy", true, func() error {
			must(t, create(w)())
			_, err := w.Destroy(ctx, token)
			return err
		})
		waits("a revoke", true, func() error {
			must(t, create(w)())
			_, err := w.Revoke(ctx, pgsession.Revocation{Subject: "ada"})
			return err
		})
		must(t, create(w)())
		must(t, set(w, "ada")())
		waits("a transaction of the caller's", true, func() error {
			tx := w.begin(t)
			inside := w.store.WithQuery(tx.query)
			must(t, set(inside, "ada")())
			_, err := inside.Touch(ctx, token)
			must(t, err)
			return tx.commit()
		})
	}
	relaxedIsLost(t, server)
}

// relaxedIsLost crashes the server: a relaxed write is lost, and an end is not.
func relaxedIsLost(t *testing.T, server *postgres.Server) {
	t.Helper()
	pool := pgtest.Connect(t, server.URL())
	store := setUp(t, pool.Query, pgsession.Config{Durability: pgsession.DurabilityRelaxed})
	ended, _, err := store.Create(t.Context(), pgsession.Session{Data: []byte("1")})
	must(t, err)
	_, err = store.Destroy(t.Context(), ended)
	must(t, err)
	var lost pgsession.Token
	eventually(t, "a create was not written to the disk", func() bool { // the ten seconds may be over just now
		lost, _, err = store.Create(t.Context(), pgsession.Session{Data: []byte("1")})
		must(t, err)
		return value[bool](t, pool, "select pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()")
	})
	must(t, server.Kill(t.Context()))
	must(t, server.Restart(t.Context()))
	again := pgtest.Connect(t, server.URL())
	after := setUp(t, again.Query, pgsession.Config{})
	_, err = after.GetFresh(t.Context(), lost)
	wantError(t, "a relaxed create", err, pgsession.ErrNotFound)
	_, err = after.Set(t.Context(), ended, pgsession.Session{})
	wantError(t, "a write after an end", err, pgsession.ErrRevoked)
}

func persistence(t *testing.T, db executor) string {
	t.Helper()
	return value[string](t, db, `select relpersistence::text from pg_class where oid = 'pgsession.session'::regclass`)
}

func TestAnUnloggedTableIsAskedForAndSwitchedByACall(t *testing.T) {
	t.Parallel()
	server := pgtest.PrivateServer(t, postgres.Options{})
	pool := pgtest.Connect(t, server.URL())
	log := &logs{}
	unlogged := pgsession.Config{Durability: pgsession.DurabilityUnlogged, Logger: slog.New(log), Columns: []pgsession.Column{{Name: "ip", Type: "inet"}}}
	store := setUp(t, pool.Query, unlogged)
	log.says(t, "unlogged", "crash", "failover")
	if p := persistence(t, pool); p != "u" {
		t.Fatalf("the table's persistence is %s", p)
	}
	useAll(t, store, castColumns)
	token, _, err := store.Create(t.Context(), pgsession.Session{Data: []byte("kept")})
	must(t, err)

	log = &logs{}
	logged := unlogged
	logged.Durability, logged.Logger = pgsession.DurabilityLogged, slog.New(log)
	other := setUp(t, pool.Query, logged)
	log.says(t, "not what Config.Durability says", "SwitchDurability")
	if p := persistence(t, pool); p != "u" {
		t.Errorf("Setup has made it %s", p)
	}
	must(t, other.SwitchDurability(t.Context()))
	must(t, other.SwitchDurability(t.Context()))
	if p := persistence(t, pool); p != "p" {
		t.Errorf("the switch has made it %s", p)
	}
	setUp(t, pool.Query, unlogged)
	if p := persistence(t, pool); p != "p" {
		t.Errorf("Setup has made it %s", p)
	}
	must(t, server.Kill(t.Context()))
	must(t, server.Restart(t.Context()))
	pool = pgtest.Connect(t, server.URL())
	store = setUp(t, pool.Query, unlogged)
	if _, err := store.Get(t.Context(), token); err != nil {
		t.Errorf("logged, after a crash: %v", err)
	}
	must(t, store.SwitchDurability(t.Context()))
	_, err = store.Get(t.Context(), token)
	must(t, err)
	must(t, server.Kill(t.Context()))
	must(t, server.Restart(t.Context()))
	pool = pgtest.Connect(t, server.URL())
	store = setUp(t, pool.Query, unlogged)
	_, err = store.Get(t.Context(), token)
	wantError(t, "unlogged, after a crash", err, pgsession.ErrNotFound)
	useAll(t, store, castColumns)
}

func TestASwitchWaitsForOthersInTurns(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	owner := setUp(t, pgtest.Connect(t, c.ownerAddress).Query, c.cfg)
	cfg := c.cfg
	cfg.Durability = pgsession.DurabilityUnlogged
	app := storeOf(t, dial(t, c.appAddress, nil).Query, cfg)
	wantSQLState(t, "a switch by the app", app.SwitchDurability(t.Context()), "42501")
	reader := dial(t, c.address, nil)
	store := storeOf(t, pgtest.Connect(t, c.ownerAddress).Query, cfg)
	done := make(chan error, 1)
	inTransaction(t, reader, func(tx pgx.Tx) {
		exec(t, tx, "select from pgsession.session")
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		wantError(t, "a switch that is cut short", store.SwitchDurability(ctx), context.DeadlineExceeded)
		go func() { done <- store.SwitchDurability(t.Context()) }()
		eventually(t, "it waits", func() bool {
			return value[int](t, c.superuser, `select count(*) from pg_stat_activity where `+pgtest.Waits+` and position('set unlogged' in query) > 0`) > 0
		})
	})
	must(t, <-done)
	if p := persistence(t, c.superuser); p != "u" {
		t.Errorf("it is %s", p)
	}
	useAll(t, owner, castColumns)
}
