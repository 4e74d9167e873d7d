package pgsession

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgxlisten"

	"github.com/pgsession/pgsession/internal/cache"
	"github.com/pgsession/pgsession/internal/pace"
)

// closePatience is what Close waits for, each: publications, handlers, connections.
const closePatience = 3 * time.Second

var (
	errSilent        = errors.New("no beat was heard in time")
	errCleared       = errors.New("a notification that anything may have changed")
	errOtherServer   = errors.New("Config.Listen reached two different servers")
	errUnknown       = errors.New("a notification that this version does not know")
	errOtherDatabase = errors.New("Config.Listen reaches another database than the QueryFunc")
)

// notifier publishes what this store changes and hears what others do. A nil one does neither.
type notifier struct {
	cfg       *config
	sql       statements
	channel   string
	coherence coherence
	// direct is the store's QueryFunc with a core of its own: publications go on while the store closes.
	direct      sessions
	links       []*link
	publisher   *publisher
	subscribers subscribers

	life    context.Context
	end     context.CancelFunc
	running sync.WaitGroup

	connects, hears, unknown atomic.Int64
	stray                    atomic.Pointer[sighting] // nil: none lately

	starting sync.Mutex
	started  bool

	changes sync.Mutex // held while a change of liveness is logged

	mu        sync.Mutex
	databases map[string]int64 // by cluster, the database that the QueryFunc reaches there; 0: none, when asked
	state     liveState
	since     time.Time
	reason    error     // why it is not live
	warned    time.Time // of a notification that is not known
}

// newNotifier makes a notifier that tells a cache what it hears. It starts nothing.
func newNotifier(cfg *config, sql statements, query QueryFunc, coherence coherence) *notifier {
	n := &notifier{cfg: cfg, sql: sql, channel: cfg.channel(), coherence: coherence, databases: make(map[string]int64)}
	n.direct = sessions{store: &core{cfg: cfg, sql: sql}, query: query}
	n.life, n.end = context.WithCancel(context.Background())
	n.publisher = newPublisher(cfg.Cache.MaxAge, cfg.doubtHorizon())
	n.publisher.send, n.publisher.ask = n.send, n.ask
	n.publisher.log, n.subscribers.log = n.log, n.log
	for _, listen := range cfg.listeners() {
		n.links = append(n.links, newLink(n, listen))
	}
	return n
}

// start begins to listen, once. The QueryFunc must work by then.
func (n *notifier) start(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.life, cancel)() // Close does not wait for an answer
	n.starting.Lock()
	defer n.starting.Unlock()
	if n.started || n.life.Err() != nil {
		return nil
	}
	if len(n.links) == 0 {
		n.started = true
		if n.cfg.Cache.Mode == CacheOn {
			n.log(ctx, slog.LevelInfo, "pgsession: there is no Config.Listen, and so no cache")
		}
		return nil
	}
	if err := n.identify(ctx); err != nil {
		return err
	}
	n.started = true
	for _, l := range n.links {
		n.running.Go(func() { l.listen(n.life) })
		n.running.Go(func() { l.beats(n.life) })
	}
	return nil
}

// close publishes what is pending, stops listening, and waits for all goroutines, each for a while.
func (n *notifier) close() {
	n.publisher.close(closePatience)
	n.end()
	n.starting.Lock() // one that is under way has counted its goroutines then
	defer n.starting.Unlock()
	for _, l := range n.links {
		l.control.disconnect()
	}
	n.running.Wait()
	n.subscribers.close(closePatience)
}

// attemptTimeout bounds one call on a control connection.
func (n *notifier) attemptTimeout() time.Duration { return max(n.cfg.Cache.Liveness, time.Second) }

func parseIDs(text string) (ids []ID) {
	_ = json.Unmarshal([]byte(text), &ids) // the function's own
	return ids
}

// heard takes one notification, and reports whether it is a beat, and whether it ended liveness: not
// because of what it says of the listener, but since the next beat is to show that all is well.
func (n *notifier) heard(from hearer, text string) (beat, ended bool) {
	n.hears.Add(1)
	p, err := parsePayload(text)
	if err != nil {
		n.unknown.Add(1)
		// It may say that anything has changed.
		from.HeardClear()
		n.warnUnknown(len(text))
		n.subscribers.emit(Event{Kind: EventMissed})
		n.checkLive(errUnknown) // not what it says: anyone may have sent it
		return false, true
	}
	if p.Beat != "" {
		if !n.astray() {
			from.HeardBeat(p.Beat)
		}
		n.checkLive(nil)
	}
	var events []Event
	for _, of := range []struct {
		kind     EventKind
		sessions versions
	}{
		{EventUpdated, p.Changed}, {EventDestroyed, p.Destroyed}, {EventRevoked, p.Revoked}, {EventRenewed, p.Renewed},
	} {
		for id, version := range of.sessions {
			if version == 0 {
				n.coherence.HeardUnknown(cacheKey(id))
			} else {
				n.coherence.Heard(cacheKey(id), version)
			}
			events = append(events, Event{Kind: of.kind, ID: id, Version: version})
		}
	}
	if p.Subject != "" {
		n.coherence.HeardSubject(cache.Subject(p.subject))
		events = append(events, Event{Kind: EventSubjectRevoked, SubjectHash: p.subject, Except: p.Except})
	}
	if p.Cleared {
		from.HeardClear()
		n.checkLive(errCleared)
		events = append(events, Event{Kind: EventCleared})
	}
	if len(events) > 0 {
		n.subscribers.emit(events...)
	}
	return p.Beat != "", p.Cleared
}

func (n *notifier) stats() NotifyStats {
	_, live := n.coherence.Live()
	stats := NotifyStats{
		Listeners:     len(n.links),
		Live:          live,
		Connects:      n.connects.Load(),
		Heard:         n.hears.Load(),
		Unknown:       n.unknown.Load(),
		Published:     n.publisher.published.Load(),
		PublishFailed: n.publisher.failed.Load(),
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if live {
		stats.LiveSince = n.since
	}
	return stats
}

func (n *notifier) log(ctx context.Context, level slog.Level, message string, attrs ...slog.Attr) {
	attrs = append(attrs, slog.String("schema", n.cfg.Schema), slog.String("table", n.cfg.Table))
	n.cfg.Logger.LogAttrs(ctx, level, message, attrs...) //nolint:sloglint // each caller's is a constant
}

// link is one database that is listened to: a connection that listens and one that beats.
type link struct {
	notifier *notifier
	connect  func(ctx context.Context) (*pgx.Conn, error)
	control  *control
	hearer   hearer
	pace     *pace.Beats   // beats' own
	kick     chan struct{} // a beat is wanted now; has room for one
	proved   chan struct{} // a beat was heard, so the next one may have time; has room for one

	where place // of the connection that listens; none while there is none. Under notifier.mu

	mu      sync.Mutex
	server  string // of the connection that listens; "" while there is none
	drop    context.CancelCauseFunc
	silence *time.Timer // ends the connection unless a beat is heard
}

func newLink(n *notifier, connect func(ctx context.Context) (*pgx.Conn, error)) *link {
	l := &link{
		notifier: n, connect: connect, hearer: n.coherence.listener(), pace: pace.NewBeats(n.cfg.Cache.Liveness),
		kick: make(chan struct{}, 1), proved: make(chan struct{}, 1),
	}
	l.control = newControl(func(ctx context.Context) (*pgx.Conn, error) {
		return openQuiet(ctx, connect, "pgsession control")
	}, l.cleanup)
	return l
}

// cleanup has Close wait for what is left of a connection.
func (l *link) cleanup(conn *pgx.Conn) {
	l.notifier.running.Go(func() { awaitCleanup(l.notifier.life, conn) })
}

// listen listens, and connects again whenever the connection was lost.
func (l *link) listen(ctx context.Context) {
	var backoff pace.Backoff
	for ctx.Err() == nil {
		if heard := l.listenOnce(ctx); heard {
			backoff.Reset()
		}
		sleep(ctx, backoff.Next())
	}
}

// listenOnce is one connection's life. It reports whether a beat was heard.
func (l *link) listenOnce(ctx context.Context) (heard bool) {
	ctx, drop := context.WithCancelCause(ctx)
	defer drop(nil)
	h := &hearing{link: l}
	var conn *pgx.Conn
	listener := pgxlisten.Listener{
		Connect: func(ctx context.Context) (c *pgx.Conn, err error) {
			conn, err = openQuiet(ctx, l.connect, "pgsession listener")
			return conn, err
		},
		// After any error this connection is over: pgxlisten's own waiting is not ours.
		LogError:       func(_ context.Context, err error) { drop(err) },
		ReconnectDelay: -1,
	}
	listener.Handle(l.notifier.channel, h)
	l.mu.Lock()
	l.drop = drop
	l.silence = time.AfterFunc(2*connectTimeout, func() { drop(errSilent) })
	l.mu.Unlock()

	_ = listener.Listen(ctx) // ctx's error, always; the cause tells why
	l.mu.Lock()
	l.silence.Stop()
	l.drop, l.server = nil, ""
	l.mu.Unlock()
	if h.listening {
		l.notifier.left(l)
		l.hearer.Lost()
		l.notifier.subscribers.emit(Event{Kind: EventMissed})
	}
	l.notifier.checkLive(context.Cause(ctx))
	if conn != nil {
		l.cleanup(conn)
	}
	return h.heard
}

// hearing handles the notifications of one connection. All its calls come from one goroutine.
type hearing struct {
	link      *link
	listening bool
	heard     bool // a beat
}

// HandleBacklog is called by pgxlisten when LISTEN has taken effect.
func (h *hearing) HandleBacklog(ctx context.Context, _ string, conn *pgx.Conn) error {
	l, n := h.link, h.link.notifier
	server, where, err := locate(func(sql string, dest ...any) error {
		return conn.QueryRow(ctx, sql, pgx.QueryExecModeExec).Scan(dest...)
	})
	if err == nil {
		err = n.arrived(ctx, l, where)
	}
	if err != nil {
		return err
	}
	h.listening = true
	l.mu.Lock()
	l.server = server
	l.silence.Reset(n.cfg.Cache.Liveness)
	l.mu.Unlock()
	n.connects.Add(1)
	l.hearer.Listening(server)
	n.subscribers.emit(Event{Kind: EventMissed})
	signal(l.kick)
	return nil
}

// HandleNotification is called by pgxlisten.
func (h *hearing) HandleNotification(_ context.Context, notification *pgconn.Notification, _ *pgx.Conn) error {
	l := h.link
	beat, ended := l.notifier.heard(l.hearer, notification.Payload)
	if ended {
		signal(l.kick)
	}
	if beat {
		h.heard = true
		l.mu.Lock()
		l.silence.Reset(l.notifier.cfg.Cache.Liveness)
		l.mu.Unlock()
		signal(l.proved)
	}
	return nil
}

// signal tells a goroutine that reads from ch, without waiting for it.
func signal(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// sleep waits, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
