package pgsession_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

// A name has come to lead to a new server, say: one instance's pool and its listener are on two.
func TestAWriteIsPublishedOnTheServerThatTookIt(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	here, elsewhere := pgtest.PrivateServer(t, postgres.Options{}), pgtest.PrivateServer(t, postgres.Options{})
	pool, far := pgtest.Connect(t, here.URL()), pgtest.Connect(t, elsewhere.URL())
	setUp(t, far.Query, pgsession.Config{})
	var target atomic.Value // of the listener's connections
	target.Store(elsewhere.URL())
	log := &logs{}
	cfg := fastListening()
	cfg.Logger = slog.New(log)
	cfg.Listen = func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, target.Load().(string)) }
	store := setUp(t, pool.Query, cfg)
	other := setUp(t, pgtest.Connect(t, here.URL()).Query, pgsession.Config{Listen: listenFor(here.URL())})
	awaitLive(t, store)
	awaitLive(t, other)
	token, s, err := other.Create(ctx, pgsession.Session{Data: []byte("0")})
	must(t, err)
	for i, published := range []int64{1, 1, 1} { // it has learned after the first, and notifies in the transaction
		serves(t, other, token, fmt.Sprint(i))
		s.Data = fmt.Append(nil, i+1)
		if i < 2 {
			s, err = store.Set(ctx, token, s)
		} else {
			s, err = store.Update(ctx, token, func(s *pgsession.Session) error { s.Data = []byte("3"); return nil })
		}
		must(t, err)
		if n := store.Stats().Notify.Published; n != published {
			t.Errorf("after write %d: %d were published", i+1, n)
		}
	}
	serves(t, other, token, "3")
	if store.Stats().Cache.Live {
		t.Error("it takes itself for live")
	}
	log.says(t, "may not arrive", "another server than Config.Listen reaches")
	eventually(t, "Check says so", func() bool { // while beats are late on a busy machine it says that
		findings, err := store.Check(ctx)
		must(t, err)
		return strings.Contains(fmt.Sprint(findings), "another server than Config.Listen reaches")
	})

	target.Store(here.URL())
	terminate(t, far, "pgsession listener")
	terminate(t, far, "pgsession control")
	awaitLive(t, store)
	s.Data = []byte("4")
	_, err = store.Set(ctx, token, s)
	must(t, err)
	serves(t, other, token, "4")
	if n := store.Stats().Notify.Published; n != 2 {
		t.Errorf("after the listener has followed: %d were published", n)
	}
	eventually(t, "it is served from memory", func() bool {
		_, err := store.Get(ctx, token)
		return err == nil && store.Stats().Cache.Hits > 0
	})
}

// It writes nothing, as most do for long: what it reads tells it too.
func TestAReaderWhosePoolHasMovedIsNotLive(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	here, elsewhere := pgtest.PrivateServer(t, postgres.Options{}), pgtest.PrivateServer(t, postgres.Options{})
	pool, far := pgtest.Connect(t, here.URL()), pgtest.Connect(t, elsewhere.URL())
	there, _, err := setUp(t, far.Query, pgsession.Config{}).Create(ctx, pgsession.Session{Data: []byte("there")})
	must(t, err)
	for name, ask := range map[string]func(*pgsession.Store) error{
		"a read":  func(s *pgsession.Store) error { _, err := s.GetFresh(ctx, there); return err },
		"a load":  func(s *pgsession.Store) error { return s.View(ctx, there, look) },
		"a touch": func(s *pgsession.Store) error { _, err := s.Touch(ctx, there); return err },
		"a create": func(s *pgsession.Store) error {
			_, _, err := s.Create(ctx, pgsession.Session{Data: []byte("1")})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			var moved atomic.Bool
			reader := setUp(t, func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
				if moved.Load() {
					return far.Query(ctx, sql, args...)
				}
				return pool.Query(ctx, sql, args...)
			}, fastListening(here.URL()))
			awaitLive(t, reader)
			token, _, err := reader.Create(ctx, pgsession.Session{Data: []byte("here")})
			must(t, err)
			serves(t, reader, token, "here")
			moved.Store(true)
			must(t, ask(reader))
			if reader.Stats().Cache.Live {
				t.Error("it takes itself for live")
			}
			_, err = reader.Get(ctx, token) // of the server that it has left
			wantError(t, "get", err, pgsession.ErrNotFound)
		})
	}
}

// Everybody listens to both of them, so that it does not matter by which one something is heard.
func TestAStoreOfSeveralServersPublishesOnAnyOfThem(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	one, two := pgtest.PrivateServer(t, postgres.Options{}), pgtest.PrivateServer(t, postgres.Options{})
	pools := []*pgxpool.Pool{pgtest.Connect(t, one.URL()), pgtest.Connect(t, two.URL())}
	setUp(t, pools[1].Query, pgsession.Config{})
	sharded := func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
		if id, ok := first(args).(string); ok && len(id) == 43 { // an id's
			return pools[id[0]%2].Query(ctx, sql, args...)
		}
		return pools[0].Query(ctx, sql, args...)
	}
	cfg := pgsession.Config{Listeners: []func(context.Context) (*pgx.Conn, error){listenFor(one.URL()), listenFor(two.URL())}}
	store, other := setUp(t, sharded, cfg), setUp(t, sharded, cfg)
	awaitLive(t, store)
	awaitLive(t, other)
	const sessions = 8
	for i := range sessions {
		token, s, err := store.Create(ctx, pgsession.Session{Data: []byte("0")})
		must(t, err)
		serves(t, other, token, "0")
		s.Data = []byte("1")
		_, err = store.Set(ctx, token, s)
		must(t, err)
		serves(t, other, token, "1")
		if n := store.Stats().Notify.Published; n != int64(i+1) {
			t.Errorf("%d were published for %d writes", n, i+1)
		}
	}
	if !store.Stats().Cache.Live || !other.Stats().Cache.Live {
		t.Error("one of them is not live")
	}
	if n := other.Stats().Cache.Sessions; n != sessions {
		t.Errorf("%d sessions are cached, of %d", n, sessions)
	}
}

func first(args []any) any {
	if len(args) == 0 {
		return nil
	}
	return args[0]
}

func TestSetsDoNotEachWaitForAControlConnectionThatHangs(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	b := &breakable{next: pgtest.Connect(t, address).Query} // it counts the publications by the QueryFunc
	cfg := pgsession.Config{}
	proxy := listenThroughProxy(t, address, &cfg)
	cfg.Cache.Liveness = 14 * time.Second // so that no beat notices it
	store := setUp(t, b.query, cfg)
	awaitLive(t, store)
	token, s, err := store.Create(t.Context(), pgsession.Session{Data: []byte("here")})
	must(t, err)
	proxy.Swallow()
	// One of them waits.
	const sets = 20
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
	defer cancel()
	for i := range sets {
		s.Data = fmt.Append(nil, i)
		s, err = store.Set(ctx, token, s)
		must(t, err)
	}
	if n := b.calls.Load(); n != sets {
		t.Errorf("%d of %d publications went by the QueryFunc", n, sets)
	}
	proxy.Forward()
	eventually(t, "after a beat they go by the control connection again", func() bool {
		before := b.calls.Load()
		s.Data = append(s.Data, '.')
		s, err = store.Set(t.Context(), token, s)
		must(t, err)
		return b.calls.Load() == before
	})
}

// saturated is a store whose pool has one connection, which is taken, and another one on the same database.
func saturated(t *testing.T, query func(*pgxpool.Pool) pgsession.QueryFunc) (store, other *pgsession.Store) {
	t.Helper()
	address := pgtest.Database(t)
	config, err := pgxpool.ParseConfig(address)
	must(t, err)
	config.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	must(t, err)
	t.Cleanup(pool.Close)
	other = setUp(t, pgtest.Connect(t, address).Query, pgsession.Config{Listen: listenFor(address)})
	store = setUp(t, query(pool), pgsession.Config{Listen: listenFor(address)})
	awaitLive(t, store)
	awaitLive(t, other)
	held, err := pool.Acquire(t.Context())
	must(t, err)
	t.Cleanup(held.Release)
	return store, other
}

func TestAWriteThatWaitedInVainForAConnectionOfFromPoolIsNotInDoubt(t *testing.T) {
	t.Parallel()
	store, other := saturated(t, pgsession.FromPool)
	token, _, err := other.Create(t.Context(), pgsession.Session{Data: []byte("1")})
	must(t, err)
	serves(t, other, token, "1")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond) // must truly pass
	defer cancel()
	_, err = store.Set(ctx, token, pgsession.Session{Data: []byte("2")})
	wantError(t, "set", err, context.DeadlineExceeded)
	if errors.Is(err, pgsession.ErrInDoubt) {
		t.Errorf("in doubt, though nothing was sent: %v", err)
	}
	heard := other.Stats().Notify.Heard
	eventually(t, "two beats are heard, after which a publication would have been", func() bool {
		return other.Stats().Notify.Heard > heard+1
	})
	if n := store.Stats().Notify.Published; n != 0 {
		t.Errorf("%d were published", n)
	}
}

func TestAnInstanceWhosePoolIsExhaustedEmptiesNobodysCache(t *testing.T) {
	t.Parallel()
	store, other := saturated(t, func(pool *pgxpool.Pool) pgsession.QueryFunc { return pool.Query })
	token, _, err := other.Create(t.Context(), pgsession.Session{Data: []byte("1")})
	must(t, err)
	serves(t, other, token, "1")
	before := other.Stats().Cache
	ctx, cancel := context.WithCancel(t.Context())
	const writers = 10_100
	var group sync.WaitGroup
	var begun sync.WaitGroup
	begun.Add(writers)
	for i := range writers {
		group.Go(func() {
			begun.Done()
			_, err := store.Set(ctx, pgsession.Token(fmt.Sprint("a session", i)), pgsession.Session{Data: []byte("here")})
			if err == nil {
				t.Error("a write had a connection")
			}
		})
	}
	begun.Wait()
	time.AfterFunc(100*time.Millisecond, cancel) // most of them wait by then
	group.Wait()
	eventually(t, "thousands are published", func() bool { return store.Stats().Notify.Published > 5000 })
	must(t, store.Close()) // and the rest of them
	heard := other.Stats().Notify.Heard
	eventually(t, "all of that is heard", func() bool { return other.Stats().Notify.Heard > heard+1 })
	after := other.Stats().Cache
	if after.Resets > before.Resets || after.Sessions != 1 {
		t.Errorf("of writes that were never sent another instance's cache was emptied: %d resets, %d sessions",
			after.Resets-before.Resets, after.Sessions)
	}
}
