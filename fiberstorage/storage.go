// Package fiberstorage keeps what gofiber's middleware stores, version 2 and 3 alike, in pgsession:
// [Sessions] is for its session middleware, [KV] for its rate limiter, its cache, CSRF tokens.
//
//	storage, err := fiberstorage.Sessions(store, fiberstorage.Options{})
//	...
//	app.Use(session.New(session.Config{
//		Storage: storage, KeyGenerator: rand.Text,
//		CookieHTTPOnly: true, CookieSecure: true, CookiePath: "/",
//	}))
//
// Fiber's own defaults keep the cookie neither from the page's scripts nor from plain HTTP: CookieHTTPOnly does the one,
// and belongs there always, CookieSecure the other, wherever the site is served over HTTPS.
//
// # Two constructors
//
// A session that was ended must stay ended: fiber saves a session at the end of each request, and a
// slow one's save would bring back what a logout has deleted meanwhile. So under Sessions a deleted key
// leaves a tombstone for Config.Tombstone, and a Set that comes in that time is refused with
// [pgsession.ErrRevoked]. Under the keys of a rate limiter or a cache, on the other hand, which are
// addresses and paths, a value is deleted and set again as a matter of course. So KV has a table of its
// own, without tombstones. Neither is good for the other's work.
//
// # A save after the logout
//
// ErrRevoked says that the user has logged out while the request was under way. Fiber has put the dead
// session's id into a cookie by then, which would replace the cookie of a login that came after. So
// take the cookie back, and let the answer stand. In version 3:
//
//	session.Config{ErrorHandler: func(c fiber.Ctx, err error) {
//		if errors.Is(err, pgsession.ErrRevoked) {
//			c.Response().Header.DelCookie("session_id")
//			return
//		}
//		session.DefaultErrorHandler(c, err)
//	}}
//
// and in version 2:
//
//	err := sess.Save()
//	if errors.Is(err, pgsession.ErrRevoked) {
//		c.Response().Header.DelCookie("session_id")
//		return nil
//	}
//
// (There a session whose Save failed stays locked: do not use it afterwards.) A request that takes
// longer than Config.Tombstone is not held off: its save begins a session anew.
//
// # Sessions with nothing in them
//
// Fiber saves the session of every request, also of a bot's, in which nothing was put. Under Sessions such a
// save, unless Options.Describe adds something, makes no row: one lookup says whether there is a session that
// it empties. What fiber does not leave out is the cookie, whose id then finds nothing, and is replaced with the next
// request. Fiber's AbsoluteTimeout, in version 3, puts a deadline into every session, and so makes rows of
// all: use [pgsession.Config].AbsoluteTimeout.
//
// # Keys
//
// Session ids are what fiber's KeyGenerator makes, and whoever has one has the session: it must be
// random. Version 2 makes UUIDs of 122 random bits by default; rand.Text of crypto/rand makes 128.
// The database knows their hashes only.
package fiberstorage

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/adapter"
)

// Store is what [Sessions] needs of a [pgsession.Store], or of what embeds one.
type Store interface {
	Get(ctx context.Context, token pgsession.Token) (pgsession.Session, error)
	Set(ctx context.Context, token pgsession.Token, session pgsession.Session) (pgsession.Session, error)
	Touch(ctx context.Context, token pgsession.Token) (expiresAt time.Time, err error)
	Destroy(ctx context.Context, tokens ...pgsession.Token) (int, error)
	Clear(ctx context.Context) (int64, error)
	Close() error
}

// Options are what both constructors take. The zero value works.
type Options struct {
	// Timeout ends a call that came without a deadline, a sixteenth later at the latest: version 2 of
	// fiber knows none, and version 3 has one where the request's context does. -1: none.
	//
	// Defaults to 10 seconds.
	Timeout time.Duration

	// Describe is called with each session that is about to be written, its Data being what fiber
	// encoded, to fill in Subject and Columns: fiber knows neither, and without a Subject nobody can
	// list a user's sessions, or end them all. Its error is that of the Set. It is called by many
	// goroutines at once. The Subject becomes what it says in every Set, nobody's if it leaves it empty.
	//
	// Defaults to nil: new sessions are anonymous, and others keep the Subject and the Columns that they have, such as
	// the application gave them by [pgsession.Store.Update].
	Describe func(*pgsession.Session) error
}

const (
	defaultTimeout = 10 * time.Second
	// maxTimeout is pgsession's; what is to live longer lives for ever.
	maxTimeout = 100 * 365 * 24 * time.Hour
	// maxValue is the largest value of Config.MaxDataSize.
	maxValue = 512 << 20
	// maxConflicts bounds the attempts of one Set to come after all the others.
	maxConflicts = 1000
)

// Storage implements the interface Storage of gofiber, that of version 2 and that of version 3. Its
// methods may be called by many goroutines at once. Errors are [*pgsession.Error]s.
type Storage struct {
	store     Store
	deadlines deadlines
	describe  func(*pgsession.Session) error
	kv        bool
	known     known
}

// Sessions makes the storage of a session middleware. The session's idle timeout is what fiber hands
// over as its expiration; its absolute timeout is the store's, Config.AbsoluteTimeout. A save of
// the same bytes is a touch, and writes only where it moves the deadline by Config.TouchInterval; fiber's
// gob of several values seldom has the same bytes. The last save wins, and one that comes after the
// session has expired begins it anew.
func Sessions(store Store, options Options) (*Storage, error) {
	if store == nil {
		return nil, fmt.Errorf("fiberstorage: %w: the store is nil", pgsession.ErrInvalid)
	}
	if options.Timeout == 0 {
		options.Timeout = defaultTimeout
	}
	if options.Timeout < -1 {
		return nil, fmt.Errorf("fiberstorage: %w: Options.Timeout is %v", pgsession.ErrInvalid, options.Timeout)
	}
	return &Storage{store: store, deadlines: deadlines{timeout: options.Timeout}, describe: options.Describe}, nil
}

// KV makes a storage for everything but sessions, and the store that it works on, on which Setup is to
// be called. Its differences from a store of sessions: Config.Table defaults to "kv"; there are no
// tombstones; expirations are exact, to the microsecond, and nothing else ends a value; values may have
// 512 MiB; and unless there is a listener nobody is notified of anything.
func KV(query pgsession.QueryFunc, cfg pgsession.Config, options Options) (*Storage, *pgsession.Store, error) {
	if cfg.Tombstone != 0 && cfg.Tombstone != -1 {
		return nil, nil, fmt.Errorf("fiberstorage: %w: Config.Tombstone is %v; a KV has none",
			pgsession.ErrInvalid, cfg.Tombstone)
	}
	cfg.Tombstone = -1
	if cfg.Table == "" {
		cfg.Table = "kv"
	}
	if cfg.TouchInterval == 0 {
		cfg.TouchInterval = time.Microsecond
	}
	if cfg.MaxDataSize == 0 {
		cfg.MaxDataSize = maxValue
	}
	if cfg.Listen == nil && len(cfg.Listeners) == 0 {
		cfg.Notify = pgsession.NotifyOff
	}
	store, err := pgsession.New(query, cfg)
	if err != nil {
		return nil, nil, err
	}
	storage, err := Sessions(store, options)
	if err != nil {
		return nil, nil, err
	}
	storage.kv = true
	return storage, store, nil
}

// Get is [Storage.GetWithContext] without a context.
func (s *Storage) Get(key string) ([]byte, error) {
	return s.GetWithContext(context.Background(), key)
}

// GetWithContext returns the value of a key, or nil where there is none, or none any more.
func (s *Storage) GetWithContext(ctx context.Context, key string) ([]byte, error) {
	if key == "" {
		return nil, nil
	}
	ctx, cancel := s.deadlines.put(lasting(ctx))
	defer cancel()
	session, err := s.store.Get(ctx, s.token(key))
	if errors.Is(err, pgsession.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !s.kv && s.describe == nil {
		s.known.add(key, session)
	}
	if len(session.Data) == 0 {
		return nil, nil
	}
	return session.Data, nil
}

// Set is [Storage.SetWithContext] without a context.
func (s *Storage) Set(key string, val []byte, exp time.Duration) error {
	return s.SetWithContext(context.Background(), key, val, exp)
}

// SetWithContext stores a value, which will be gone after exp; 0: never. An empty key or value is
// ignored; with an exp below 0 the key is deleted. Under [Sessions] the error is
// [pgsession.ErrRevoked] after the session was ended, and one in which there is nothing is not created.
func (s *Storage) SetWithContext(ctx context.Context, key string, val []byte, exp time.Duration) error {
	if key == "" || len(val) == 0 {
		return nil
	}
	if exp < 0 {
		return s.DeleteWithContext(ctx, key)
	}
	session := pgsession.Session{Data: val, IdleTimeout: max(exp, time.Microsecond)}
	switch {
	case exp == 0 || exp > maxTimeout:
		session.IdleTimeout, session.AbsoluteTimeout = -1, -1
	case s.kv:
		session.AbsoluteTimeout = -1
	}
	if s.describe != nil {
		if err := s.describe(&session); err != nil {
			return err
		}
	}
	ctx, cancel := s.deadlines.put(lasting(ctx))
	defer cancel()
	if !s.kv && session.Subject == "" && len(session.Columns) == 0 && holdsNothing(val) {
		// A session that was ended is an error of the touch as well.
		if _, err := s.store.Touch(ctx, s.token(key)); err != nil {
			if errors.Is(err, pgsession.ErrNotFound) {
				return nil
			}
			return err
		}
	}
	var err error
	if s.kv || s.describe != nil {
		_, err = s.store.Set(ctx, s.token(key), session)
	} else {
		err = s.setOwned(ctx, key, session)
	}
	if errors.Is(err, pgsession.ErrUnpublished) {
		return nil // it was written; other instances will be told a little later
	}
	return err
}

// setOwned sets a session that stays whose it is, as the application may have said by the store's own methods. Set
// replaces the subject, so it must be of the version whose subject is known; another one comes with the conflict.
func (s *Storage) setOwned(ctx context.Context, key string, session pgsession.Session) error {
	owner := s.known.of(key)
	for attempt := 1; ; attempt++ {
		session.Version, session.Subject = owner.version, owner.subject
		stored, err := s.setVersion(ctx, key, session)
		switch {
		case err == nil, errors.Is(err, pgsession.ErrUnpublished):
			s.known.add(key, stored)
			return err
		case attempt == maxConflicts:
			return err
		case errors.Is(err, pgsession.ErrConflict) && stored.Version > 0:
			owner.version, owner.subject = stored.Version, stored.Subject
		case errors.Is(err, pgsession.ErrNotFound) && session.Version > 0:
			owner.version = 0 // it has expired, and begins anew
		default:
			return err
		}
	}
}

// setVersion sets that version of a session; 0: none, so that one that is there is a conflict.
func (s *Storage) setVersion(ctx context.Context, key string, session pgsession.Session) (pgsession.Session, error) {
	if session.Version > 0 {
		return s.store.Set(ctx, s.token(key), session)
	}
	inserted, err := adapter.Insert(ctx, s.store, string(s.token(key)), session)
	stored, _ := inserted.(pgsession.Session)
	return stored, err
}

// Delete is [Storage.DeleteWithContext] without a context.
func (s *Storage) Delete(key string) error {
	return s.DeleteWithContext(context.Background(), key)
}

// DeleteWithContext deletes a key. One that does not exist is no error.
func (s *Storage) DeleteWithContext(ctx context.Context, key string) error {
	if key == "" {
		return nil
	}
	ctx, cancel := s.deadlines.put(lasting(ctx))
	defer cancel()
	s.known.forget(key)
	_, err := s.store.Destroy(ctx, s.token(key))
	if errors.Is(err, pgsession.ErrInvalidToken) {
		return nil // too long to be there
	}
	return err
}

// Reset is [Storage.ResetWithContext] without a context.
func (s *Storage) Reset() error {
	return s.ResetWithContext(context.Background())
}

// ResetWithContext deletes all keys. It needs the rights of Config.AdminRole, and has no other deadline
// than the context's.
func (s *Storage) ResetWithContext(ctx context.Context) error {
	_, err := s.store.Clear(lasting(ctx))
	return err
}

// Close closes the store: see [pgsession.Store.Close]. It is idempotent.
func (s *Storage) Close() error {
	err := s.store.Close()
	s.deadlines.end()
	return err
}

// token is the token of a key. A key of a KV may be of any length, as a path is; those beyond what a
// token may have are hashed, and told from the others, so that nobody can name one by its hash.
func (s *Storage) token(key string) pgsession.Token {
	const longest = 1023
	switch {
	case !s.kv:
		return pgsession.Token(key)
	case len(key) > longest:
		sum := sha256.Sum256([]byte(key))
		return pgsession.Token("h" + string(sum[:]))
	}
	return pgsession.Token("k" + key)
}

// lasting returns a context that outlives the handler. Version 3 hands over its fiber.Ctx, which ends
// with nothing, knows no deadline, and is another request's as soon as this one is over, when what
// began in it, as the opening of a connection for the pool, may still be under way. The request's own
// context is inside.
func lasting(ctx context.Context) context.Context {
	if c, ok := ctx.(interface{ Context() context.Context }); ok {
		return c.Context()
	}
	return ctx
}
