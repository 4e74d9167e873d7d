package pgsession

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pgsession/pgsession/internal/cache"
)

// This file is where reads and writes meet the cache: each tells it what internal/cache asks to be
// told, in the order that its package comment gives. Inside a transaction of the caller's the database
// alone is read and written, and what is written is fenced until its notification is heard.

const (
	// maxLoads is how many loads of the cache run at once: beyond, they would only wait for connections.
	maxLoads = 64
	// loadTimeout ends a load, which goes on when the request that began it has given up.
	loadTimeout = 30 * time.Second
)

// newCache makes the cache, or returns nil where there is to be none.
func newCache(cfg *config) (*cache.Cache[held], error) {
	if !cfg.caches() {
		return nil, nil
	}
	return cache.New[held](cache.Config{
		Capacity:    cfg.Cache.Size,
		MaxAge:      cfg.Cache.MaxAge,
		Liveness:    cfg.Cache.Liveness,
		WhenNotLive: cache.WhenNotLive(cfg.Cache.WhenNotLive),
		MaxLoads:    maxLoads,
		LoadTimeout: loadTimeout,
	})
}

// caches: reads are served from memory.
func (c *config) caches() bool { return c.Cache.Mode == CacheOn && c.listens() }

// listens: it matters which server answers.
func (c *config) listens() bool { return len(c.listeners()) > 0 }

// reply is what a statement answered about one session.
type reply = cache.Reply[held]

// tokenKey is the cache's key of a token by the i-th of Config.Peppers. What a token must be is checked
// where none is found.
func (c *core) tokenKey(i int, token Token) (key cache.Key) {
	switch {
	case len(token) > maxTokenLength:
		return key // nobody's: no client has us hash more
	case c.cfg.KeyFunc != nil:
		return cacheKey(ID(c.cfg.KeyFunc(string(token))))
	}
	c.cfg.pepper(i).hash(token, (*[sha256.Size]byte)(&key))
	return key
}

// reply makes the cache's reply of a session and the row that it came in.
func (r *row) reply(s Session) reply {
	s.Columns = maps.Clone(s.Columns)
	h := hold(&s)
	answer := r.touchReply()
	answer.Version, answer.Subject, answer.Value, answer.Size = s.Version, subjectHash(s.Subject), h, h.size()
	if r.renewedTo.Valid {
		answer.RenewedTo = cacheKey(s.ID)
	}
	return answer
}

// touchReply is the part of a reply that a touch brings.
func (r *row) touchReply() reply {
	return reply{
		Alive:     true,
		Cacheable: r.server.Valid && bool(r.committed),
		Server:    serverIdentity(r.server.Time),
		Version:   r.version.Int64,
		// A session without timeouts lives for longer than a Duration holds.
		Remaining: time.Duration(min(r.remaining.Float64, maxTimeout.Seconds()) * float64(time.Second)),
	}
}

// cache returns the cache that reads may use, or nil.
func (s *sessions) cache() *cache.Cache[held] {
	if s.inTx {
		return nil
	}
	return s.store.cache
}

// hit is the cached session of a token, or nil.
func (s *sessions) hit(ctx context.Context, c *cache.Cache[held], token Token) *held {
	if ctx.Err() != nil {
		return nil
	}
	for i := range s.store.cfg.hashes() {
		if h, ok := c.Get(s.store.tokenKey(i, token)); ok {
			return h
		}
	}
	return nil
}

// lend returns a session that was not hit. Its Data and Columns belong to the cache.
func (s *sessions) lend(ctx context.Context, c *cache.Cache[held], token Token) (session Session, err error) {
	err = s.byToken("get", token, func(id ID) (err error) {
		if err = ctx.Err(); err == nil {
			session, err = s.load(ctx, c, id)
		}
		return err
	})
	return session, err
}

// load reads the database, one load for all who ask meanwhile.
//
// Where the QueryFunc may find a transaction in the context, who asks reads for itself: what others wait for
// would be read inside it, and might go on when it has ended.
func (s *sessions) load(ctx context.Context, c *cache.Cache[held], id ID) (Session, error) {
	if s.store.untold.Load() {
		return s.get(ctx, id)
	}
	h, alive, err := c.Load(ctx, cacheKey(id), func(ctx context.Context) (reply, error) {
		_, answer, err := s.ask(ctx, id)
		return answer, err
	})
	switch {
	case errors.Is(err, cache.ErrPrivate):
		return s.get(ctx, id)
	case errors.Is(err, cache.ErrClosed):
		err = ErrClosed
	case err == nil && !alive:
		err = ErrNotFound
	}
	if err != nil {
		return Session{}, err
	}
	return h.session(), nil
}

// ask reads the database for the cache: that there is no such session is an answer, and no error.
func (s *sessions) ask(ctx context.Context, id ID) (session Session, answer reply, err error) {
	session, r, err := s.read(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		err = nil
	case err != nil:
		// What ails the transaction of one is nothing to the others.
		return Session{}, reply{Private: s.store.untold.Load()}, err
	default:
		answer = r.reply(session)
		answer.Cacheable = r.server.Valid // the server says so, of what only reads
	}
	// Neither is it known that nothing uncommitted was read, nor does the server say so.
	answer.Private = !bool(r.committed) && !r.server.Valid
	return session, answer, err
}

// touchUnneeded says whether a touch would write nothing, and then when the session expires.
func (s *sessions) touchUnneeded(ctx context.Context, token Token) (expiresAt time.Time, ok bool) {
	c := s.cache()
	if c == nil || ctx.Err() != nil {
		return time.Time{}, false
	}
	for i := range s.store.cfg.hashes() {
		if h, remaining, ok := c.GetRemaining(s.store.tokenKey(i, token)); ok {
			return h.expiresAt, h.touchUnneeded(s.store.cfg.TouchInterval, remaining)
		}
	}
	return time.Time{}, false
}

// write is a write of one session, as the cache has to follow it, and the notifier.
type write struct {
	s  *sessions
	id ID
	op *cache.Op[held]      // outside a transaction of the caller's
	tx *cache.TxWrite[held] // inside
	// notifies: the statement is to notify in its own transaction.
	notifies bool
}

// beginWrite is to be called before the statement is sent, and end in any case.
func (s *sessions) beginWrite(id ID) write {
	w := write{s: s, id: id, notifies: s.inTx || s.store.notify.astray()}
	switch c := s.store.cache; {
	case c == nil:
	case s.inTx:
		tx := c.BeginTx(cacheKey(id))
		w.tx = &tx
	default:
		w.op = c.Begin(cacheKey(id))
	}
	return w
}

func (w *write) end() {
	if w.op != nil {
		w.op.End()
	}
}

// failed takes the error of a set's statement. A write that may have been carried out is published,
// whatever becomes of the request; in a transaction of the caller's its notification is there.
func (w *write) failed(err error) {
	doubt := errors.Is(err, ErrInDoubt)
	if w.tx != nil && !doubt {
		w.tx.WroteNothing()
	}
	if w.op != nil && doubt {
		w.op.InDoubt()
	}
	if !w.notifies && doubt {
		w.s.store.notify.inDoubt(w.id)
	}
}

// skipped is for a write that did nothing, and learned nothing.
func (w *write) skipped() {
	if w.tx != nil {
		w.tx.WroteNothing()
	}
}

// refused takes the answer of a write that wrote nothing, with the session that it met, if any.
func (w *write) refused(met reply) {
	w.skipped()
	if w.op != nil {
		w.op.Wrote(met)
	}
}

// answered takes the answer of a set: the session that is there now. It returns when the other
// instances have been told, so far as Config.Notify asks for that.
func (w *write) answered(ctx context.Context, r *row, session Session) error {
	updated := r.status == statusUpdated
	switch {
	case w.tx != nil && updated:
		w.tx.Wrote(session.Version)
	case w.tx != nil:
		w.tx.WroteNothing() // a session that is created in a transaction is in nobody's cache
	case w.op != nil:
		w.op.Wrote(r.reply(session))
	}
	server := serverIdentity(r.server.Time)
	w.s.store.notify.saw(server)
	if !updated || w.s.inTx || w.notifies {
		return nil
	}
	return w.s.publish(ctx, w.id, session.Version, server, bool(r.committed))
}

// touched takes the answer of a touch.
func (w *write) touched(r *row) {
	if w.op == nil {
		return
	}
	expiresAt := r.expiresAt.Time.UTC()
	w.op.Touched(r.touchReply(), func(h held) held {
		h.expiresAt = expiresAt
		return h
	})
}

// tellEnded takes what a statement says that it has ended, of the sessions that it names, if any. The
// others are none any more either: they were ended by somebody of whom this instance has yet to hear.
//
// What may be rolled back is only fenced, until its notification is heard.
func (s *sessions) tellEnded(versions []cache.Version, named []ID, done committed) {
	c := s.store.cache
	if c == nil {
		return
	}
	if done {
		c.Ended(versions)
	} else {
		c.EndedInTx(versions)
	}
	if left := unended(named, versions); len(left) > 0 {
		c.NotAlive(left...)
	}
}

// unended returns the keys of the named sessions that are not among the ended: by an old id its
// successor is ended.
func unended(named []ID, ended []cache.Version) []cache.Key {
	if len(named) == 0 {
		return nil
	}
	keys := make(map[cache.Key]bool, len(ended))
	for _, one := range ended {
		keys[one.Key] = true
	}
	return slices.DeleteFunc(cacheKeys(named), func(key cache.Key) bool { return keys[key] })
}

// tellEvicted takes what a write says that it has ended, to make room.
func (s *sessions) tellEvicted(ctx context.Context, r *row, subject string) error {
	if !r.ended.Valid {
		return nil
	}
	var evicted versions
	if err := json.Unmarshal([]byte(r.ended.String), &evicted); err != nil {
		return fmt.Errorf("the sessions that were evicted: %w", err)
	}
	ended := make([]cache.Version, 0, len(evicted))
	for id, version := range evicted {
		ended = append(ended, cache.Version{Key: cacheKey(id), Version: version})
		s.audit(ctx, AuditEvent{Kind: AuditEvicted, ID: id, Subject: subject})
	}
	s.store.stats.evicted.Add(int64(len(evicted)))
	s.tellEnded(ended, nil, r.committed)
	return nil
}

// endedInDoubt takes the error of a statement that ends sessions. Its notification is in its own
// transaction, so that all hear of it if it was committed; until then none of them is served here.
func (s *sessions) endedInDoubt(err error, ids []ID, subject string) {
	c := s.store.cache
	if c == nil || !errors.Is(err, ErrInDoubt) {
		return
	}
	c.InDoubt(cacheKeys(ids)...)
	if subject != "" {
		c.Revoked(subjectHash(subject))
	}
}

// coherence is what the notifier tells the cache. [cache.Cache] has the methods.
type coherence interface {
	Heard(key cache.Key, version int64)
	HeardUnknown(key cache.Key)
	HeardSubject(subject cache.Subject)
	Live() (left time.Duration, live bool)
	listener() hearer
}

// hearer is one listener of a coherence. [cache.Listener] has the methods, but for beat.
type hearer interface {
	Listening(server string)
	Lost()
	HeardClear()
	HeardBeat(nonce string)
	// beat is to be called before the beat function is, and what it returns with the nonce.
	beat() (answered func(nonce string))
}

// coherenceOf makes a coherence of a cache.
func coherenceOf[V any](c *cache.Cache[V]) coherence { return cacheCoherence[V]{c} }

type cacheCoherence[V any] struct{ *cache.Cache[V] }

func (c cacheCoherence[V]) listener() hearer { return cacheHearer[V]{c.NewListener()} }

type cacheHearer[V any] struct{ *cache.Listener[V] }

func (l cacheHearer[V]) beat() func(nonce string) { return l.Beat().Answered }

// noCache is a coherence that only knows whether it is live: for stores without a cache, which
// still have subscribers.
func noCache(cfg *config) (coherence, error) {
	c, err := cache.New[struct{}](cache.Config{
		Capacity: 1 << 20, MaxAge: cfg.Cache.MaxAge, Liveness: cfg.Cache.Liveness, MaxLoads: 1, LoadTimeout: time.Second,
	})
	if err != nil {
		return nil, err
	}
	return coherenceOf(c), nil
}
