package pgsession_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

// terminate ends the store's connections to a database whose names end so.
func terminate(t *testing.T, db executor, suffix string) int {
	t.Helper()
	return value[int](t, db, `
		select count(pg_terminate_backend(pid)) from pg_stat_activity
		 where datname = current_database() and application_name like '%' || $1`, suffix)
}

// says waits for a record whose message and attributes contain all of words.
func (l *logs) says(t *testing.T, words ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%q is logged", words), func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, r := range l.records {
			text := r.Message
			r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
			all := true
			for _, word := range words {
				all = all && strings.Contains(text, word)
			}
			if all {
				return true
			}
		}
		return false
	})
}

// listening is a store with a database of its own, that listens.
func listening(t *testing.T, change func(address string, cfg *pgsession.Config)) (store *pgsession.Store, pool *pgxpool.Pool, log *logs) {
	t.Helper()
	address := pgtest.Database(t)
	cfg := fastListening(address)
	log = &logs{}
	cfg.Logger = slog.New(log)
	if change != nil {
		change(address, &cfg)
	}
	pool = pgtest.Connect(t, address)
	return setUp(t, pool.Query, cfg), pool, log
}

func TestAListenerIsLiveSoonHoweverLongItsDeadline(t *testing.T) {
	t.Parallel()
	store, pool, _ := listening(t, func(_ string, cfg *pgsession.Config) { cfg.Cache.Liveness, cfg.Cache.MaxAge = time.Hour, time.Hour })
	awaitLive(t, store)
	connects := store.Stats().Notify.Connects
	terminate(t, pool, "pgsession listener")
	eventually(t, "it listens again", func() bool { return store.Stats().Notify.Connects > connects })
	awaitLive(t, store)
}

func TestAListenerThatIsKilledIsBackSoon(t *testing.T) {
	t.Parallel()
	store, pool, log := listening(t, nil)
	awaitLive(t, store)
	log.says(t, "notifications arrive")
	connects := store.Stats().Notify.Connects
	if n := terminate(t, pool, "pgsession listener"); n != 1 {
		t.Errorf("%d listeners were there", n)
	}
	log.says(t, "may not arrive", "57P01")
	eventually(t, "it listens again", func() bool { return store.Stats().Notify.Connects > connects })
	awaitLive(t, store)
	for range 3 {
		terminate(t, pool, "pgsession control")
	}
	// Whether it was noticed or not: beats go on.
	heard := store.Stats().Notify.Heard
	eventually(t, "beats are heard", func() bool { return store.Stats().Notify.Heard > heard+2 })
	awaitLive(t, store)
	must(t, store.Close())
	eventually(t, "nothing is left of it", func() bool {
		return terminate(t, pool, "pgsession listener")+terminate(t, pool, "pgsession control") == 0
	})
}

func TestAServerThatIsRestartedIsListenedToAgain(t *testing.T) {
	t.Parallel()
	server := pgtest.PrivateServer(t, postgres.Options{})
	pool := pgtest.Connect(t, server.URL())
	store := setUp(t, pool.Query, fastListening(server.URL()))
	awaitLive(t, store)
	for _, restart := range []func(context.Context) error{
		server.Restart,
		func(ctx context.Context) error { return errors.Join(server.Kill(ctx), server.Restart(ctx)) },
	} {
		connects := store.Stats().Notify.Connects
		must(t, restart(t.Context()))
		eventually(t, "it listens again", func() bool { return store.Stats().Notify.Connects > connects })
		awaitLive(t, store)
	}
	must(t, server.Pause())
	awaitNotLive(t, store)
	must(t, server.Resume())
	awaitLive(t, store)
}

// listenThroughProxy has a store hear by way of a proxy.
func listenThroughProxy(t *testing.T, address string, cfg *pgsession.Config) *postgres.Proxy {
	t.Helper()
	server, err := pgx.ParseConfig(address)
	must(t, err)
	proxy, err := postgres.NewProxy(net.JoinHostPort(server.Host, fmt.Sprint(server.Port)))
	must(t, err)
	t.Cleanup(func() { _ = proxy.Close() })
	through, err := postgres.WithAddress(address, proxy.Address())
	must(t, err)
	cfg.Listeners = nil
	cfg.Listen = listenFor(through)
	return proxy
}

func TestANetworkThatSwallowsIsNoticed(t *testing.T) {
	t.Parallel()
	var proxy *postgres.Proxy
	store, _, log := listening(t, func(address string, cfg *pgsession.Config) {
		proxy = listenThroughProxy(t, address, cfg)
	})
	awaitLive(t, store)
	token, s, err := store.Create(t.Context(), pgsession.Session{Data: []byte("0")})
	must(t, err)
	proxy.Swallow()
	awaitNotLive(t, store)
	log.says(t, "may not arrive", "no beat was heard in time")
	// The database itself can be reached, and so the write is published there.
	s.Data = []byte("1")
	_, err = store.Set(t.Context(), token, s)
	must(t, err)
	proxy.Forward()
	awaitLive(t, store)
	proxy.Reset()
	awaitNotLive(t, store)
	proxy.Forward()
	awaitLive(t, store)
}

func TestPgBouncerInTransactionModeIsNeverLive(t *testing.T) {
	t.Parallel()
	store, _, log := listening(t, func(address string, cfg *pgsession.Config) {
		through := withParameter(t, bouncerFor(t, address), "default_query_exec_mode", "exec")
		cfg.Listeners = nil
		cfg.Listen = listenFor(through)
	})
	eventually(t, "it has listened again and again", func() bool { return store.Stats().Notify.Connects > 2 })
	if stats := store.Stats().Notify; stats.Live || stats.Heard > 0 {
		t.Errorf("it heard through PgBouncer: %+v", stats)
	}
	log.says(t, "may not arrive", "no beat was heard in time")
	token, s, err := store.Create(t.Context(), pgsession.Session{Data: []byte("0")})
	must(t, err)
	s.Data = []byte("1")
	_, err = store.Set(t.Context(), token, s)
	must(t, err)
	if n := store.Stats().Notify.Published; n != 1 {
		t.Errorf("%d sessions were published", n)
	}
}

func TestAListenerOfAnotherDatabaseIsNeverLive(t *testing.T) {
	t.Parallel()
	store, _, log := listening(t, func(_ string, cfg *pgsession.Config) {
		other := pgtest.Database(t)
		setUp(t, pgtest.Connect(t, other).Query, pgsession.Config{}) // where beats would be heard
		cfg.Listeners = []func(context.Context) (*pgx.Conn, error){listenFor(other)}
	})
	log.says(t, "may not arrive", "another database")
	if store.Stats().Notify.Live {
		t.Error("it is live")
	}
}

// What it knew of the server is worth nothing then.
func TestAListenerOfAnotherDatabaseIsNotLiveAfterARestartEither(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	server := pgtest.PrivateServer(t, postgres.Options{})
	pool := pgtest.Connect(t, server.URL())
	exec(t, pool, "create database other")
	other, err := postgres.WithDatabase(server.URL(), "other")
	must(t, err)
	setUp(t, pgtest.Connect(t, other).Query, pgsession.Config{}) // where beats would be heard
	var connects atomic.Int64
	cfg, log := fastListening(), &logs{}
	cfg.Logger = slog.New(log)
	cfg.Listen = func(ctx context.Context) (*pgx.Conn, error) {
		connects.Add(1)
		return pgx.Connect(ctx, other)
	}
	store := setUp(t, pool.Query, cfg)
	log.says(t, "may not arrive", "another database")
	must(t, server.Restart(ctx))
	before := connects.Load()
	eventually(t, "it is refused again and again", func() bool { return connects.Load() >= before+4 })
	if store.Stats().Notify.Live {
		t.Error("it is live")
	}
}

func TestLiveIsWhenAllListenersAre(t *testing.T) {
	t.Parallel()
	var down atomic.Bool
	var second *pgxpool.Pool
	store, _, _ := listening(t, func(_ string, cfg *pgsession.Config) {
		address := pgtest.Database(t)
		second = pgtest.Connect(t, address)
		setUp(t, second.Query, pgsession.Config{})
		cfg.Listeners = append(cfg.Listeners, func(ctx context.Context) (*pgx.Conn, error) {
			if down.Load() {
				return nil, errors.New("down")
			}
			return pgx.Connect(ctx, address)
		})
	})
	awaitLive(t, store)
	down.Store(true)
	terminate(t, second, "pgsession listener")
	terminate(t, second, "pgsession control")
	awaitNotLive(t, store)
	down.Store(false)
	awaitLive(t, store)
	if n := store.Stats().Notify.Listeners; n != 2 {
		t.Errorf("%d listeners", n)
	}
}

func TestListenFromTakesNoConnectionOfThePool(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	config, err := pgxpool.ParseConfig(address)
	must(t, err)
	config.MaxConns = 1
	var before, after atomic.Int64
	config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
		before.Add(1)
		c.RuntimeParams["application_name"] = "app"
		return nil
	}
	config.AfterConnect = func(context.Context, *pgx.Conn) error {
		after.Add(1)
		return nil
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	must(t, err)
	t.Cleanup(pool.Close)
	cfg := fastListening()
	cfg.Listen = pgsession.ListenFrom(pool)
	store := setUp(t, pool.Query, cfg)
	held, err := pool.Acquire(t.Context())
	must(t, err)
	defer held.Release()
	awaitLive(t, store)
	for _, want := range []string{"app pgsession listener", "app pgsession control"} {
		if n := value[int](t, held, "select count(*) from pg_stat_activity where datname = current_database() and application_name = $1", want); n != 1 {
			t.Errorf("%d connections are named %q", n, want)
		}
	}
	if before.Load() < 3 || after.Load() < 3 {
		t.Errorf("hooks were called %d and %d times", before.Load(), after.Load())
	}
	heard := store.Stats().Notify.Heard
	eventually(t, "beats go on while the pool is saturated", func() bool { return store.Stats().Notify.Heard > heard+3 })
}

func TestAListenThatFailsIsLoggedAndTriedAgain(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	store, _, log := listening(t, func(address string, cfg *pgsession.Config) {
		cfg.Listeners = []func(context.Context) (*pgx.Conn, error){func(ctx context.Context) (*pgx.Conn, error) {
			switch calls.Add(1) {
			case 1:
				return nil, errors.New("no such server")
			case 2:
				return nil, nil //nolint:nilnil // what the store must survive
			}
			return pgx.Connect(ctx, address)
		}}
	})
	log.says(t, "may not arrive", "no such server")
	awaitLive(t, store)
}

func TestCloseWhileConnectingLeavesNothing(t *testing.T) {
	t.Parallel()
	for range 20 {
		store, _, _ := listening(t, nil)
		time.AfterFunc(time.Millisecond, func() { _ = store.Close() })
		must(t, store.Close())
	}
}

func TestAWriteIsSeenByAnotherInstancesCache(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	a, err := pgsession.Open(t.Context(), address, pgsession.Config{Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	defer a.Close()
	must(t, a.Setup(t.Context()))
	b := setUp(t, pgtest.Connect(t, address).Query, pgsession.Config{Listen: listenFor(address)})
	awaitLive(t, b)
	token, s, err := a.Create(t.Context(), pgsession.Session{Subject: "ada"})
	must(t, err)
	for i := range 50 {
		_, err = b.Get(t.Context(), token)
		must(t, err)
		s.Data = fmt.Append(nil, i)
		s, err = a.Set(t.Context(), token, s)
		must(t, err)
		eventually(t, "b sees it", func() bool {
			got, err := b.Get(t.Context(), token)
			return err == nil && got.Version == s.Version
		})
	}
	if stats := b.Stats().Cache; stats.Invalidations == 0 {
		t.Errorf("nothing was invalidated: %+v", stats)
	}
	_, err = a.Revoke(t.Context(), pgsession.Revocation{Subject: "ada"})
	must(t, err)
	eventually(t, "b sees the end", func() bool {
		_, err := b.Get(t.Context(), token)
		return errors.Is(err, pgsession.ErrNotFound)
	})
}
