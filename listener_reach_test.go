package pgsession_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

// A pool's AfterConnect is where applications listen to channels of their own.
func TestWhatTheApplicationListensToIsNoneOfTheListeners(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	config, err := pgxpool.ParseConfig(address)
	must(t, err)
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		// What has come by the time that the store gets the connection, too.
		_, err := conn.Exec(ctx, "listen app_events; notify app_events")
		return err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	must(t, err)
	t.Cleanup(pool.Close)
	var conns connections
	cfg := fastListening()
	cfg.Listen = conns.of(pgsession.ListenFrom(pool))
	store := setUp(t, pool.Query, cfg)
	awaitLive(t, store)
	before := store.Stats()
	for range 3 {
		exec(t, pool, "notify app_events, 'hello'")
		heard := store.Stats().Notify.Heard
		eventually(t, "beats are heard", func() bool { return store.Stats().Notify.Heard > heard })
	}
	after := store.Stats()
	if after.Notify.Connects != before.Notify.Connects || after.Cache.Resets != before.Cache.Resets || after.Notify.Unknown > 0 {
		t.Errorf("a notification of the application's disturbed the listener: %+v, then %+v", before.Notify, after.Notify)
	}
	must(t, store.Close())
	for i, conn := range conns.all() {
		// Closed as they are, they give what they have taken in.
		if n, _ := conn.WaitForNotification(t.Context()); n != nil {
			t.Errorf("connection %d keeps %+v", i, n)
		}
	}
}

// connections are those that a Config.Listen has made.
type connections struct {
	mu   sync.Mutex
	list []*pgx.Conn
}

func (c *connections) of(listen func(context.Context) (*pgx.Conn, error)) func(context.Context) (*pgx.Conn, error) {
	return func(ctx context.Context) (*pgx.Conn, error) {
		conn, err := listen(ctx)
		if conn != nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.list = append(c.list, conn)
		}
		return conn, err
	}
}

func (c *connections) all() []*pgx.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*pgx.Conn(nil), c.list...)
}

// What another store of the same database publishes, beats included, says nothing of this one's channel.
func TestAnotherStoresBeatsProveNothing(t *testing.T) {
	t.Parallel()
	store, pool, log := listening(t, func(_ string, cfg *pgsession.Config) { cfg.Table = "one" })
	awaitLive(t, store)
	other := setUp(t, pool.Query, func() pgsession.Config {
		cfg := fastListening(pool.Config().ConnString())
		cfg.Table = "two"
		return cfg
	}())
	awaitLive(t, other)
	// The first one's functions notify elsewhere from now on: where the other one listens.
	definition := value[string](t, pool, "select pg_get_functiondef('pgsession.one_beat'::regproc)")
	elsewhere := strings.ReplaceAll(definition, "$pgsession.one$", "$pgsession.two$")
	if elsewhere == definition {
		t.Fatalf("the channel is not in\n%s", definition)
	}
	exec(t, pool, elsewhere)
	log.says(t, "may not arrive", "no beat was heard in time")
	awaitNotLive(t, store)
	connects := store.Stats().Notify.Connects
	eventually(t, "it listens again and again", func() bool { return store.Stats().Notify.Connects > connects+2 })
	if store.Stats().Notify.Live {
		t.Error("it is live without a beat on its channel")
	}
	awaitLive(t, other)
	exec(t, pool, definition)
	awaitLive(t, store)
}

// Live are all listeners or none: one of them at least must be where the QueryFunc is.
func TestSeveralListenersOfOtherDatabasesAreNeverLive(t *testing.T) {
	t.Parallel()
	store, _, log := listening(t, func(_ string, cfg *pgsession.Config) {
		cfg.Listeners = nil
		for range 2 {
			other := pgtest.Database(t)
			setUp(t, pgtest.Connect(t, other).Query, pgsession.Config{}) // where beats would be heard
			cfg.Listeners = append(cfg.Listeners, listenFor(other))
		}
	})
	log.says(t, "may not arrive", "another database")
	if store.Stats().Notify.Live {
		t.Error("it is live")
	}
}

// A pool that is saturated while the server comes back has nothing to do with listening.
func TestAListenerIsLiveAfterARestartThoughThePoolIsSaturated(t *testing.T) {
	t.Parallel()
	server := pgtest.PrivateServer(t, postgres.Options{})
	pool := pgtest.Connect(t, server.URL())
	var saturated atomic.Bool
	store := setUp(t, func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
		if saturated.Load() {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return pool.Query(ctx, sql, args...)
	}, fastListening(server.URL()))
	awaitLive(t, store)
	saturated.Store(true)
	connects := store.Stats().Notify.Connects
	must(t, server.Restart(t.Context()))
	eventually(t, "it listens again", func() bool { return store.Stats().Notify.Connects > connects })
	awaitLive(t, store)
}

// beatIntervals are the intervals that the beat function was called with.
type beatIntervals struct {
	mu   sync.Mutex
	list []float64
}

func (b *beatIntervals) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if strings.Contains(data.SQL, `_beat"(`) && len(data.Args) > 0 {
		b.mu.Lock()
		defer b.mu.Unlock()
		if interval, ok := data.Args[0].(float64); ok {
			b.list = append(b.list, interval)
		}
	}
	return ctx
}

func (b *beatIntervals) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// hurried counts the calls that had a beat published at once.
func (b *beatIntervals) hurried() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, interval := range b.list {
		if interval < 0.1 {
			n++
		}
	}
	return n
}

func TestAClearEndsLivenessForOneBeatThatIsPublishedAtOnce(t *testing.T) {
	t.Parallel()
	var intervals beatIntervals
	store, pool, log := listening(t, func(address string, cfg *pgsession.Config) {
		cfg.Cache.Liveness = pgsession.Config{}.Cache.Liveness // the default
		cfg.Listeners = []func(context.Context) (*pgx.Conn, error){func(ctx context.Context) (*pgx.Conn, error) {
			config, err := pgx.ParseConfig(address)
			if err != nil {
				return nil, err
			}
			config.Tracer = &intervals
			return pgx.ConnectConfig(ctx, config)
		}}
	})
	awaitLive(t, store)
	for _, end := range []struct {
		what, sql, reason string
	}{
		{"a clear", `select pg_notify('pgsession.session', '{"v":1,"cleared":true}')`, "anything may have changed"},
		{"a malformed notification", `select pg_notify('pgsession.session', '?')`, "does not know"},
	} {
		before := intervals.hurried()
		exec(t, pool, end.sql)
		log.says(t, "may not arrive", end.reason)
		eventually(t, fmt.Sprintf("%s: a beat is wanted at once", end.what), func() bool { return intervals.hurried() > before })
		awaitLive(t, store)
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	for _, r := range log.records {
		r.Attrs(func(a slog.Attr) bool {
			if strings.Contains(a.String(), "no beat was heard") {
				t.Errorf("%s: %s", r.Message, a)
			}
			return true
		})
	}
}

// statsHandler is a log whose handler looks at the store that it is of.
type statsHandler struct {
	slog.Handler
	store *atomic.Pointer[pgsession.Store]
	calls *atomic.Int64
}

func (h statsHandler) Handle(context.Context, slog.Record) error {
	if store := h.store.Load(); store != nil {
		store.Stats()
		h.calls.Add(1)
	}
	return nil
}

func (h statsHandler) Enabled(context.Context, slog.Level) bool { return true }

func TestALogMayAskForStats(t *testing.T) {
	t.Parallel()
	h := statsHandler{slog.DiscardHandler, new(atomic.Pointer[pgsession.Store]), new(atomic.Int64)}
	store, pool, _ := listening(t, func(_ string, cfg *pgsession.Config) { cfg.Logger = slog.New(h) })
	h.store.Store(store)
	awaitLive(t, store)
	terminate(t, pool, "pgsession listener")
	eventually(t, "the loss and what follows are logged", func() bool { return h.calls.Load() >= 2 })
	awaitLive(t, store)
}

func TestANotificationOfANegativeVersionIsMalformed(t *testing.T) {
	t.Parallel()
	store, pool, _ := listening(t, nil)
	awaitLive(t, store)
	for i, kind := range []string{"changed", "destroyed", "revoked", "renewed"} {
		exec(t, pool, "select pg_notify('pgsession.session', $1)", fmt.Sprintf(`{"v":1,%q:{"a":1,"b":-1}}`, kind))
		eventually(t, kind, func() bool { return store.Stats().Notify.Unknown == int64(i+1) })
	}
}
