package scsstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/adapter"
)

// maxConflicts bounds the attempts of one Commit to come after all the others.
const maxConflicts = 1000

// CommitCtx stores a session's data. Of commits that collide the last one wins, as scs wants it, but
// one that changed nothing never overwrites one that did: it is a touch. After the session was ended, or
// has expired, it is [pgsession.ErrRevoked]: see [ErrorFunc].
//
// With a key of [Store.AllCtx] it writes a session that is there, and never creates one.
func (s *Store) CommitCtx(ctx context.Context, token string, b []byte, expiry time.Time) error {
	if err := s.commit(ctx, token, b, expiry); err != nil {
		return fmt.Errorf("scsstore: %w", err)
	}
	return nil
}

// Commit is [Store.CommitCtx] without a context.
func (s *Store) Commit(token string, b []byte, expiry time.Time) error {
	return s.CommitCtx(context.Background(), token, b, expiry)
}

func (s *Store) commit(ctx context.Context, token string, b []byte, expiry time.Time) error {
	deadline, err := s.deadline(b)
	if err != nil {
		return err
	}
	c := &commit{store: s, data: b, timing: timing{now: time.Now(), expiry: expiry, deadline: deadline}}
	if !expiry.After(c.now) {
		return s.end(ctx, token) // it would be one that has expired
	}
	if id, ok := strings.CutPrefix(token, idPrefix); ok {
		return settled(adapter.UpdateID(ctx, s.sessions, id, func(current *pgsession.Session) error {
			c.unchanged = s.same(current.Data, b)
			next, err := c.over(*current)
			*current = next
			return err
		}))
	}

	loaded, own, ok := s.loads.find(ctx, token)
	if !ok {
		session, err := c.created()
		if err != nil {
			return err
		}
		stored, err := adapter.Insert(ctx, s.sessions, token, session)
		loaded, _ = stored.(pgsession.Session)
		if !errors.Is(err, pgsession.ErrConflict) || loaded.Version == 0 {
			return s.stored(ctx, token, loaded, b, err)
		}
		// Loaded under another context, or by none that ends.
	}
	c.unchanged = own && s.same(loaded.Data, b)
	if c.unchanged && c.idleTimeout(loaded.IdleTimeout) == 0 {
		_, err := s.sessions.Touch(ctx, pgsession.Token(token))
		return settled(err)
	}
	for attempt := 1; ; attempt++ {
		session, err := c.over(loaded)
		if err != nil {
			return err
		}
		stored, err := s.sessions.Set(ctx, pgsession.Token(token), session)
		if !errors.Is(err, pgsession.ErrConflict) || stored.Version == 0 || attempt == maxConflicts {
			return s.stored(ctx, token, stored, b, err)
		}
		loaded = stored
	}
}

// stored remembers what a write has stored, so that a second one of the same request finds it.
func (s *Store) stored(ctx context.Context, token string, session pgsession.Session, b []byte, err error) error {
	if err = settled(err); err == nil {
		session.Data = unshared(b)
		s.loads.add(ctx, token, session)
	}
	return err
}

// settled makes scs's of a write's error. A session that is not there any more was ended or has expired
// since it was loaded, which is one thing to scs. One that was written and not yet published is written.
func settled(err error) error {
	switch {
	case errors.Is(err, pgsession.ErrInvalidToken):
		return err
	case errors.Is(err, pgsession.ErrNotFound):
		return fmt.Errorf("%w: %w", pgsession.ErrRevoked, err)
	case errors.Is(err, pgsession.ErrUnpublished):
		return nil
	}
	return err
}

// commit is one call of Commit.
type commit struct {
	timing
	store     *Store
	data      []byte
	unchanged bool // the data says what was loaded
}

// created is the session to insert.
func (c *commit) created() (pgsession.Session, error) {
	session := pgsession.Session{
		Data:            c.data,
		IdleTimeout:     -1,
		AbsoluteTimeout: within(c.deadline.Sub(c.now)),
	}
	if c.expiry.Before(c.deadline) {
		session.IdleTimeout = c.idleTimeout(0)
	}
	return session, c.promote(&session)
}

// over is the session to write over another version of it.
func (c *commit) over(there pgsession.Session) (pgsession.Session, error) {
	session := there
	session.Columns = nil // keep
	session.IdleTimeout = c.idleTimeout(there.IdleTimeout)
	session.AbsoluteTimeout = 0
	if c.unchanged {
		return session, nil
	}
	before, err := c.store.deadline(there.Data)
	if err != nil || !before.Equal(c.deadline) {
		session.AbsoluteTimeout = c.absoluteTimeout(there, before)
	}
	session.Data, session.Codec = c.data, pgsession.CodecOpaque
	return session, c.promote(&session)
}

// promote sets what Options take from the values.
func (c *commit) promote(session *pgsession.Session) error {
	options := c.store.options
	if options.Subject == nil && options.Columns == nil {
		return nil
	}
	_, values, err := options.Codec.Decode(c.data)
	if err != nil {
		return fmt.Errorf("set Options.Codec to SessionManager.Codec: %w", err)
	}
	if options.Subject != nil {
		session.Subject = options.Subject(values)
	}
	if options.Columns != nil {
		session.Columns = options.Columns(values)
	}
	return nil
}
