package pgsession_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

func TestAReplicaIsNeverLive(t *testing.T) {
	t.Parallel()
	primary := pgtest.PrivateServer(t, postgres.Options{})
	standby := pgtest.Standby(t, primary)
	pool := pgtest.Connect(t, primary.URL())
	var target atomic.Value // of the listener's connections
	target.Store(standby.URL())
	log := &logs{}
	cfg := fastListening()
	cfg.Logger = slog.New(log)
	cfg.Listen = func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, target.Load().(string)) }
	store := setUp(t, pool.Query, cfg)
	token, s, err := store.Create(t.Context(), pgsession.Session{Data: []byte("0")})
	must(t, err)
	log.says(t, "may not arrive", "25006") // LISTEN is an error there

	readsThrough := func() {
		t.Helper()
		before := store.Stats()
		for range 20 {
			s.Data = append(s.Data, '.')
			s, err = store.Set(t.Context(), token, s) // is published at the database that it was written to
			must(t, err)
			if got, err := store.Get(t.Context(), token); err != nil || got.Version != s.Version {
				t.Errorf("got version %d, %v; want %d", got.Version, err, s.Version)
			}
		}
		after := store.Stats()
		if hits, past := after.Cache.Hits-before.Cache.Hits, after.Cache.NotLive-before.Cache.NotLive; hits != 0 || past != 20 {
			t.Errorf("of 20 reads %d were served from memory, and %d went past it", hits, past)
		}
		if after.Notify.Live || after.Notify.Published-before.Notify.Published != 20 {
			t.Errorf("%+v", after.Notify)
		}
	}
	readsThrough()

	target.Store(primary.URL())
	awaitLive(t, store)
	eventually(t, "it is served from memory", func() bool {
		_, err := store.Get(t.Context(), token)
		return err == nil && store.Stats().Cache.Hits > 0
	})

	// And away from the primary again, as a failover may do.
	target.Store(standby.URL())
	terminate(t, pool, "pgsession listener")
	terminate(t, pool, "pgsession control")
	awaitNotLive(t, store)
	readsThrough()
}

func TestWhatAReplicaAnsweredIsNotKept(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	primary := pgtest.PrivateServer(t, postgres.Options{})
	standby := pgtest.Standby(t, primary)
	writes, reads := pgtest.Connect(t, primary.URL()), pgtest.Connect(t, standby.URL())
	route := func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
		if strings.HasPrefix(sql, "select") && strings.Contains(sql, `_get"(`) {
			return reads.Query(ctx, sql, args...)
		}
		return writes.Query(ctx, sql, args...)
	}
	cfg := fastListening(primary.URL())
	store := setUp(t, route, cfg)
	other := setUp(t, writes.Query, cfg)
	awaitLive(t, store)
	token, s, err := other.Create(ctx, pgsession.Session{Data: []byte("1")})
	must(t, err)
	eventually(t, "the replica has it", func() bool {
		_, err := store.Get(ctx, token)
		return err == nil
	})
	before := store.Stats().Cache
	for range 20 {
		_, err := store.Get(ctx, token)
		must(t, err)
		_, err = store.GetFresh(ctx, token)
		must(t, err)
	}
	if after := store.Stats().Cache; after.Hits != before.Hits || after.Misses-before.Misses != 20 || after.Sessions != 0 {
		t.Errorf("what a replica answered was kept: %+v, %+v", before, after)
	}
	awaitLive(t, store) // which is not why

	// The replica lags behind for good.
	exec(t, reads, "select pg_wal_replay_pause()")
	eventually(t, "it stands still", func() bool {
		return value[string](t, reads, "select pg_get_wal_replay_pause_state()") == "paused"
	})
	s.Data = []byte("2")
	s, err = other.Set(ctx, token, s)
	must(t, err)
	awaitLive(t, store)
	for range 3 {
		_, err := store.Get(ctx, token)
		must(t, err)
	}
	if n := store.Stats().Cache.Hits; n != before.Hits {
		t.Errorf("%d reads were served from memory", n-before.Hits)
	}
	// What the primary answered is kept, as long as it is live.
	n := 2
	eventually(t, "its own write is read", func() bool {
		n++
		s.Data = []byte(fmt.Sprint(n))
		s, err = store.Set(ctx, token, s)
		must(t, err)
		got, err := store.Get(ctx, token)
		must(t, err)
		return string(got.Data) == string(s.Data)
	})
	// It still shows what this instance ends.
	_, err = store.Destroy(ctx, token)
	must(t, err)
	if n := value[int](t, reads, "select count(*) from pgsession.session where revoked_at is null"); n != 1 {
		t.Fatalf("the replica shows %d sessions", n)
	}
	for range 3 {
		_, err = store.Get(ctx, token)
		wantError(t, "get", err, pgsession.ErrNotFound)
		_, err = store.GetFresh(ctx, token)
		wantError(t, "get", err, pgsession.ErrNotFound)
	}
	exec(t, reads, "select pg_wal_replay_resume()")
}
