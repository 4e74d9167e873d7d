// Package pgsession keeps sessions in PostgreSQL, for applications that already run on it and want
// no other infrastructure. Sessions live in one table that only plpgsql functions touch; the
// statements travel over the caller's own pool, connection or transaction, or a pool of the store's.
//
//	store, err := pgsession.Open(ctx, os.Getenv("DATABASE_URL"), pgsession.Config{})
//	if err != nil {
//		return err
//	}
//	defer store.Close()
//	if err := store.Setup(ctx); err != nil {
//		return err
//	}
//	token, session, err := store.Create(ctx, pgsession.Session{Subject: "ada", Data: []byte("hello")})
//
// # Words
//
// The client holds a [Token], the secret; the database knows its hash, the [ID]. A [Session] belongs
// to a subject, or is anonymous. It ends when it was not used for its idle timeout, when it reaches
// its absolute timeout, or when it is destroyed or revoked; then nothing brings it back, not even the
// save of a request that began before.
//
// # Concurrency
//
// All methods may be called by many goroutines at once. Writes of one session take turns, by an
// advisory lock in the database; [Sessions.Update] is the atomic read-modify-write.
package pgsession

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession/internal/cache"
	"github.com/pgsession/pgsession/internal/keymutex"
)

// Sessions is what a [Store] and a [Tx] share; typed sessions and adapters take it. Every error is
// wrapped in an [*Error].
type Sessions interface {
	// Create stores a new session under a new token. It returns the token, which is the caller's only
	// chance to have it, and the session as stored.
	//
	// With nothing to store, which is no Subject, no Data and no column that is not NULL, it writes nothing and
	// asks no database: it returns a token and the session as it was given, with its ID, no times and
	// Version 0. There is no such session then, and every call but Set says so: ErrNotFound. Set stores it,
	// with its timeouts; a login is a Create with the Subject, under a token that nobody can have planted.
	Create(ctx context.Context, session Session) (Token, Session, error)

	// Get returns a live session, or ErrNotFound. The result is the caller's. It does not extend the
	// session's idle deadline: that is what Touch is for.
	Get(ctx context.Context, token Token) (Session, error)

	// View calls f with a live session, or returns ErrNotFound. It is Get without the copy: f must
	// not change or keep the session's Data and Columns, and what it keeps of the ID or the Subject keeps the
	// Data in memory. It returns f's error as it is.
	View(ctx context.Context, token Token, f func(Session) error) error

	// GetFresh is Get that always asks the database.
	GetFresh(ctx context.Context, token Token) (Session, error)

	// Set stores the session under the token and returns it as stored, with its new version. With
	// Version 0 it creates the session or replaces what is there; with the Version that a read
	// returned it replaces that very version, and otherwise returns ErrConflict with the session that
	// is there, or ErrNotFound. After the session was ended it returns ErrRevoked, and by a token that was
	// renewed ErrRenewed. A Set that changes nothing is a touch.
	//
	// Set never shortens a deadline that a touch has extended, unless a timeout is changed.
	Set(ctx context.Context, token Token, session Session) (Session, error)

	// Update reads the session, lets f change it, and writes it if nobody else did meanwhile, else
	// begins again with the newer one: f may be called several times. It never creates a session. An
	// error of f ends it, with nothing written. Inside f, do not write the same session.
	Update(ctx context.Context, token Token, f func(*Session) error) (Session, error)

	// Patch changes the session's data by a JSON merge patch, RFC 7396, in one call and atomically: an
	// object's members replace those of the same name, null removes them, and objects are merged in their
	// turn. Anything but an object replaces all. The data must be JSON, by Session.Codec, or empty; with
	// Config.Codec, or over other data, it is ErrCodec. It becomes CodecJSON and is stored as PostgreSQL's
	// jsonb writes it: spaces, the order of keys and the notation of numbers are not kept, their values
	// are. It never creates a session, and waits for a locked one in every LockMode. A patch that changes
	// nothing is a touch; one that is no JSON, that jsonb cannot hold, as with \u0000, or
	// that is nested deeper than 100 is ErrInvalid.
	Patch(ctx context.Context, token Token, mergePatch []byte) (Session, error)

	// Touch extends the session's idle deadline and returns its expiry. It changes nothing else,
	// creates nothing and revives nothing: ErrNotFound, or ErrRevoked after the session was ended.
	Touch(ctx context.Context, token Token) (expiresAt time.Time, err error)

	// Renew gives a session a new token, against the fixation of the old one: same content, same
	// CreatedAt and absolute deadline, and the idle deadline extended, since it is a use. With a
	// Renewal.Subject it is a login, in one call. It always notifies in its transaction.
	//
	// The old token goes on for Config.RenewGrace, so that requests that are under way succeed: Get,
	// View, Touch and Update reach the session by it, and Destroy ends it; Set returns ErrRenewed, or a
	// late save would overwrite what came since. At a login, and when the session's subject is changed
	// later, it ends at once, and for good: it does not come back with the subject. What is then done by it
	// is ErrNotFound, or ErrRenewed where it would write; its use after the grace is an [EventReused].
	//
	// Of several renewals of one token one wins. The others return ErrRenewed with no token and the
	// session that there is, if the old token stands for it, or if it is the Renewal's Subject's, whom
	// the winner logged in: else with none. A login by a token in its grace renews the session that it
	// stands for. Where a token comes with an error, it took the old one's place, or with ErrInDoubt it
	// may have: GetFresh tells. Where there is no session it is ErrNotFound, and a login is a Create.
	Renew(ctx context.Context, token Token, renewal Renewal) (Token, Session, error)

	// Destroy ends sessions, at most 1,000 at once divided by the number of Config.Peppers, and returns how
	// many of them were live. One that does not exist is no error. Either all are ended or, with an error, none.
	Destroy(ctx context.Context, tokens ...Token) (int, error)

	// Revoke ends sessions by id, by subject, or all, and returns how many were live. A Revocation that
	// names none is ErrInvalid. Ids that do not exist are no error, and one that was renewed stands for
	// its session; one that cannot exist, as an empty one, is ErrInvalid. Large numbers are ended in
	// batches; where an error comes after some were, the returned number says how many.
	Revoke(ctx context.Context, revocation Revocation) (int, error)

	// All iterates over the live sessions in the order of their ids, in pages that are each read whole
	// before their sessions are yielded: no connection is held meanwhile, and breaking off is free. A
	// session whose data cannot be decoded comes as a Session with nothing but its ID and an error;
	// the others follow. Any other error is the last that is yielded.
	All(ctx context.Context, filter Filter) iter.Seq2[Session, error]

	// Count counts the live sessions. Without a subject it reads the whole table.
	Count(ctx context.Context, filter Filter) (int64, error)
}

var (
	_ Sessions = (*Store)(nil)
	_ Sessions = (*Tx)(nil)
)

// Store is a store of sessions. Make one by [New] or [Open], call [Store.Setup] once, and share it.
type Store struct {
	sessions
	pool *pgxpool.Pool // Open's; nil with New

	setupMu sync.Mutex // one Setup at a time
	cleaner *cleaner   // nil until Setup started it; under setupMu
}

// Tx is the same sessions inside a transaction of the caller's: see [Store.WithQuery].
type Tx struct{ sessions }

// core is what a Store and its Txs share.
type core struct {
	cfg     *config
	sql     statements
	stats   counters
	updates keymutex.Mutex[ID]
	notify  *notifier
	cache   *cache.Cache[held] // nil: none
	reuses  reuses
	writes  sync.RWMutex // held by writes until they have published; Close takes it, for good
	awaited sync.Once
	closed  atomic.Bool
	untold  atomic.Bool // the QueryFunc was seen to lead into a transaction

	life    context.Context // ends with Close
	end     context.CancelFunc
	cleanup cleanupKnowledge
	sweeper sweeper
	hooking chan struct{} // held by who claims sessions and calls Cleanup.OnPrune; has room for one
	atOnce  int           // who holds it claims so many; 0: Cleanup.BatchSize
}

// sessions implements Sessions over one QueryFunc.
type sessions struct {
	store *core
	query QueryFunc
	// inTx: the statements are part of a transaction of the caller's, and can't be run again.
	inTx bool
}

// New makes a store on the caller's connections, which it never closes. It sends nothing and starts
// nothing; a bad Config is an error that names the field.
func New(query QueryFunc, cfg Config) (*Store, error) {
	if query == nil {
		return nil, &Error{Op: "new", Err: fmt.Errorf("%w: the QueryFunc is nil", ErrInvalid)}
	}
	resolved, err := cfg.resolve()
	if err != nil {
		return nil, &Error{Op: "new", Err: err}
	}
	s, err := newStore(query, resolved)
	if err != nil {
		return nil, &Error{Op: "new", Err: err}
	}
	return s, nil
}

// Open makes a store with a pool of its own, which Close closes. The connection string is
// [pgxpool.ParseConfig]'s. It connects once, so that a wrong address is found here; the pool heals
// itself afterwards.
func Open(ctx context.Context, connString string, cfg Config) (*Store, error) {
	var pool *pgxpool.Pool
	if len(cfg.listeners()) == 0 {
		cfg.Listen = func(ctx context.Context) (*pgx.Conn, error) { return ListenFrom(pool)(ctx) }
	}
	resolved, err := cfg.resolve()
	if err != nil {
		return nil, &Error{Op: "open", Err: err}
	}
	poolConfig, err := pgxpool.ParseConfig(connString)
	if err != nil {
		return nil, &Error{Op: "open", Err: err}
	}
	// What a caller has given up must not arrive much later: see doubtHorizon.
	poolConfig.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		setTCPOptions(conn.PgConn().Conn())
		return nil
	}
	pool, err = pgxpool.NewWithConfig(ctx, poolConfig)
	if err != nil {
		return nil, &Error{Op: "open", Err: err}
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, &Error{Op: "open", Err: classify(ctx, err, false, false)}
	}
	s, err := newStore(FromPool(pool), resolved)
	if err != nil {
		pool.Close()
		return nil, &Error{Op: "open", Err: err}
	}
	s.pool = pool
	return s, nil
}

func newStore(query QueryFunc, cfg *config) (*Store, error) {
	s := &Store{}
	s.query = query
	s.store = &core{cfg: cfg, sql: newStatements(cfg), hooking: make(chan struct{}, 1)}
	s.store.life, s.store.end = context.WithCancel(context.Background())
	s.store.cleanup.stats.Mode = CleanupOff // until Setup
	var err error
	if s.store.cache, err = newCache(cfg); err != nil {
		return nil, err
	}
	var coherence coherence
	if s.store.cache != nil {
		coherence = coherenceOf(s.store.cache)
	} else if coherence, err = noCache(cfg); err != nil {
		return nil, err
	}
	s.store.notify = newNotifier(cfg, s.store.sql, query, coherence)
	return s, nil
}

// WithQuery returns the same sessions over another QueryFunc: a transaction's, so that session
// writes are committed or rolled back with the caller's own. An error of the database ends the
// transaction, as everywhere in PostgreSQL; nothing is retried inside it. Under repeatable read and
// serializable it sees no session that was committed after its snapshot: Destroy does not end one.
//
//	tx, err := pool.Begin(ctx)
//	...
//	_, err = store.WithQuery(tx.Query).Set(ctx, token, session)
func (s *Store) WithQuery(query QueryFunc) *Tx {
	return &Tx{sessions{store: s.store, query: query, inTx: true}}
}

// ID returns the id that a token's session has, whether or not there is one. While Config.Peppers are
// rotated an older session has another one, which is in its [Session].
func (s *Store) ID(token Token) (ID, error) {
	id, err := s.store.id(token)
	if err != nil {
		return "", &Error{Op: "id", Err: err}
	}
	return id, nil
}

// Close publishes what is not yet published, for a few seconds at most, stops the goroutines that
// Setup started, waits for them, and closes the pool that Open made, after the calls that use it have
// ended. Later calls return ErrClosed. It is idempotent and always
// returns nil.
func (s *Store) Close() error {
	s.store.closed.Store(true)
	s.store.end()
	s.setupMu.Lock()
	c := s.cleaner
	s.setupMu.Unlock()
	c.stop()
	s.store.sweeper.close()
	s.store.awaitHook()
	if s.store.cache != nil {
		s.store.cache.Close()
	}
	if s.pool != nil {
		s.pool.Close()
	}
	s.store.awaitWrites()
	s.store.notify.close() // last: the calls that the pool waited for are published too
	return nil
}

// awaitHook waits for a hook that Prune has called, for a while at most.
func (c *core) awaitHook() {
	timer := time.NewTimer(closePatience)
	defer timer.Stop()
	select {
	case c.hooking <- struct{}{}:
		<-c.hooking
	case <-timer.C:
	}
}

// awaitWrites waits for the writes that are under way, for a while at most: they have yet to publish.
func (c *core) awaitWrites() {
	c.awaited.Do(func() {
		done := make(chan struct{})
		go func() {
			c.writes.Lock()
			close(done)
		}()
		timer := time.NewTimer(closePatience)
		defer timer.Stop()
		select {
		case <-done:
		case <-timer.C:
		}
	})
}
