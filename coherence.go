package pgsession

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"maps"
	"time"

	"github.com/pgsession/pgsession/internal/cache"
)

// This file is where reads and writes meet the cache: each operation tells it what internal/cache
// asks to be told, in the order that its package comment gives. Inside a transaction of the caller's
// the database alone is read and written, and what is written is fenced until its notification is
// heard.

// held is a session as the cache holds it.
type held struct {
	Session
	expires time.Time // no later than ExpiresAt, by this machine's monotonic clock
}

// reply is what a statement answered about one session.
type reply = cache.Reply[held]

// tokenKey is the cache's key of a token. It is the hash alone: what the token must be is checked
// where one is not found.
func (c *core) tokenKey(token Token) cache.Key {
	if c.cfg.KeyFunc != nil {
		return sha256.Sum256([]byte(c.cfg.KeyFunc(string(token))))
	}
	var short [64]byte // on the stack, where a conversion would not be
	if len(token) <= len(short) {
		return sha256.Sum256(short[:copy(short[:], token)])
	}
	return sha256.Sum256([]byte(token))
}

// idKey is the key of the session that an id names.
func (c *core) idKey(id ID) (key cache.Key) {
	if c.cfg.KeyFunc == nil && len(id) == len(hashToken("")) {
		if n, err := base64.RawURLEncoding.Decode(key[:], []byte(id)); err == nil && n == len(key) {
			return key
		}
	}
	return sha256.Sum256([]byte(id))
}

// reply makes the cache's reply of a session and the row that it came in. The value is the cache's
// own.
func (r *row) reply(s Session) reply {
	s = s.clone()
	return reply{
		Alive:     true,
		Cacheable: r.server.Valid,
		Server:    serverIdentity(r.server.Time),
		Version:   s.Version,
		Subject:   subjectHash(s.Subject),
		Remaining: r.remainingTime(),
		Value:     held{Session: s, expires: r.sent.Add(r.remainingTime())},
		Size:      s.size(),
	}
}

func (r *row) remainingTime() time.Duration {
	return time.Duration(r.remaining.Float64 * float64(time.Second))
}

// size is about what a session holds beyond itself, in bytes.
func (s *Session) size() int {
	const entry = 64 // of a map
	size := len(s.Data) + len(s.Subject) + len(s.ID)
	for name, value := range s.Columns {
		text, _ := value.(string)
		size += len(name) + len(text) + entry
	}
	return size
}

// clone copies what the caller may change.
func (s Session) clone() Session {
	s.Data = bytes.Clone(s.Data)
	s.Columns = maps.Clone(s.Columns)
	return s
}

// lend returns a session that belongs to the cache, and is not to be changed.
func (s *sessions) lend(ctx context.Context, token Token) (*Session, error) {
	c := s.store.cache
	if h, ok := c.Get(s.store.tokenKey(token)); ok {
		return &h.Session, nil
	}
	id, err := s.store.id(token)
	if err != nil {
		return nil, &Error{Op: "get", Err: err}
	}
	h, alive, err := c.Load(ctx, s.store.idKey(id), func(ctx context.Context) (reply, error) {
		session, r, err := s.read(ctx, id)
		switch {
		case errors.Is(err, ErrNotFound):
			return reply{}, nil
		case err != nil:
			return reply{}, err
		}
		return r.reply(session), nil
	})
	switch {
	case err != nil && s.store.closed.Load():
		err = ErrClosed
	case err == nil && !alive:
		err = ErrNotFound
	}
	if err != nil {
		return nil, &Error{Op: "get", ID: id, Err: err}
	}
	return &h.Session, nil
}

// touchUnneeded says whether a touch of the session would write nothing, and then when it expires.
func (s *sessions) touchUnneeded(token Token) (expiresAt time.Time, ok bool) {
	if s.inTx || s.store.cache == nil {
		return time.Time{}, false
	}
	h, ok := s.store.cache.Get(s.store.tokenKey(token))
	if !ok {
		return time.Time{}, false
	}
	interval := cmp.Or(s.store.cfg.TouchInterval, h.IdleTimeout/20)
	atAbsolute := h.AbsoluteTimeout > 0 && !h.ExpiresAt.Before(h.CreatedAt.Add(h.AbsoluteTimeout))
	return h.ExpiresAt, h.IdleTimeout < 0 || interval < 0 || atAbsolute || h.IdleTimeout-time.Until(h.expires) < interval
}

// write is one write of one session, as the cache has to follow it. The zero value follows nothing.
type write struct {
	s  *sessions
	id ID
	op *cache.Op[held]     // outside a transaction of the caller's
	tx cache.TxWrite[held] // inside
}

// beginWrite is to be called before the statement is sent, and end in any case afterwards.
func (s *sessions) beginWrite(id ID) write {
	w := write{s: s, id: id}
	switch c := s.store.cache; {
	case c == nil:
	case s.inTx:
		w.tx = c.BeginTx(s.store.idKey(id))
	default:
		w.op = c.Begin(s.store.idKey(id))
	}
	return w
}

func (w *write) end() {
	if w.op != nil {
		w.op.End()
	}
}

// failed takes the error of the statement. A write that may have been carried out is published
// whatever becomes of the request; one in a transaction of the caller's has its notification there.
func (w *write) failed(err error) {
	switch doubt := errors.Is(err, ErrInDoubt); {
	case w.fences() && !doubt:
		w.tx.WroteNothing()
	case !w.s.inTx && doubt:
		if w.op != nil {
			w.op.InDoubt()
		}
		w.s.store.notify.inDoubt(w.id)
	}
}

// answered takes the answer of a set: the session that is there now. It returns when other instances
// have been told, so far as Config.Notify asks for that.
func (w *write) answered(ctx context.Context, r *row, session Session) error {
	updated := r.status == statusUpdated
	switch {
	case w.fences() && updated:
		w.tx.Wrote(session.Version)
	case w.fences():
		w.tx.WroteNothing() // a session that is created in a transaction is in nobody's cache
	case w.op != nil:
		w.op.Wrote(r.reply(session))
	}
	if updated && !w.s.inTx {
		return w.s.store.notify.publish(ctx, w.id, session.Version)
	}
	return nil
}

// touched takes the answer of a touch.
func (w *write) touched(r *row) {
	if w.op == nil {
		return
	}
	answer := reply{
		Alive: true, Cacheable: r.server.Valid, Server: serverIdentity(r.server.Time),
		Version: r.version.Int64, Remaining: r.remainingTime(),
	}
	if cached, ok := w.s.store.cache.Get(w.s.store.idKey(w.id)); ok && cached.Version == answer.Version {
		again := *cached
		again.ExpiresAt, again.expires = r.expiresAt.Time.UTC(), r.sent.Add(answer.Remaining)
		answer.Subject, answer.Value, answer.Size = subjectHash(again.Subject), again, again.size()
		w.op.Read(answer)
		return
	}
	w.op.Touched(answer)
}

// refused takes the answer of a write that wrote nothing, with the session that it met, if any.
func (w *write) refused(met reply) {
	switch {
	case w.op != nil:
		w.op.Wrote(met)
	case w.fences():
		w.tx.WroteNothing()
	}
}

// fences: it is in a transaction of the caller's, and there is a cache.
func (w *write) fences() bool { return w.s != nil && w.s.inTx && w.s.store.cache != nil }

// tellEnded takes what a statement says that it has ended.
func (s *sessions) tellEnded(versions []cache.Version) {
	c := s.store.cache
	switch {
	case c == nil:
	case s.inTx:
		c.EndedInTx(versions)
	default:
		c.Ended(versions)
	}
}

// endedInDoubt takes the error of a statement that ends sessions. Its notification is in its own
// transaction: if it was committed, all hear of it, but until then nothing of these is served here.
func (s *sessions) endedInDoubt(err error, ids []ID, subject string) {
	c := s.store.cache
	if c == nil || !errors.Is(err, ErrInDoubt) {
		return
	}
	keys := make([]cache.Key, len(ids))
	for i, id := range ids {
		keys[i] = s.store.idKey(id)
	}
	c.InDoubt(keys...)
	if subject != "" {
		c.Revoked(subjectHash(subject))
	}
}
