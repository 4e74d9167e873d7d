package pgsession

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgsession/pgsession/internal/adapter"
)

func init() {
	adapter.Columns = columnsArg
	adapter.Insert = func(ctx context.Context, s any, token string, session any) (any, error) {
		of, ok := s.(forAdapters)
		if !ok {
			return Session{}, &Error{Op: "create", Err: notForAdapters(s)}
		}
		return of.insert(ctx, Token(token), session.(Session))
	}
	adapter.UpdateID = func(ctx context.Context, s any, id string, change any) error {
		of, ok := s.(forAdapters)
		if !ok {
			return &Error{Op: "update", Err: notForAdapters(s)}
		}
		return of.updateID(ctx, ID(id), change.(func(*Session) error))
	}
	adapter.Renew = func(ctx context.Context, s any, token string, loaded, change any) (string, any, error) {
		of, ok := s.(forAdapters)
		if !ok {
			return "", Session{}, &Error{Op: "renew", Err: notForAdapters(s)}
		}
		next, stored, err := of.renewChanged(ctx, Token(token), loaded.(Session), change.(func(*Session) error))
		return string(next), stored, err
	}
}

// forAdapters is what [Store] and [Tx] have beside [Sessions]. A type that embeds one of them has it too.
type forAdapters interface {
	insert(ctx context.Context, token Token, session Session) (Session, error)
	updateID(ctx context.Context, id ID, f func(*Session) error) error
	renewChanged(ctx context.Context, token Token, loaded Session, change func(*Session) error) (Token, Session, error)
}

var (
	_ forAdapters = (*Store)(nil)
	_ forAdapters = (*Tx)(nil)
)

func notForAdapters(s any) error {
	return fmt.Errorf("%w: %T is neither a Store nor a Tx, nor embeds one", ErrInvalid, s)
}

// insert is Create with a token that the caller made.
func (s *sessions) insert(ctx context.Context, token Token, session Session) (Session, error) {
	id, err := s.locate(ctx, token)
	if err != nil {
		return Session{}, &Error{Op: "create", ID: id, Err: err}
	}
	session, err = s.set(ctx, id, session, noVersion, LockWait)
	if err != nil {
		return session, &Error{Op: "create", ID: id, Err: err}
	}
	s.store.stats.creates.Add(1)
	return session, nil
}

// updateID is Update of the session with an id.
func (s *sessions) updateID(ctx context.Context, id ID, f func(*Session) error) error {
	err := validateID(id)
	if err == nil {
		_, err = s.update(ctx, id, f)
	}
	if err != nil {
		return &Error{Op: "update", ID: id, Err: err}
	}
	return nil
}

// renewChanged is Renew and Update of a session that was read.
func (s *sessions) renewChanged(
	ctx context.Context, token Token, loaded Session, change func(*Session) error,
) (Token, Session, error) {
	var next Token
	var stored Session
	err := s.byToken("renew", token, func(id ID) (err error) {
		next, stored, err = s.renewChangedID(ctx, id, loaded, change)
		return err
	})
	if next != "" && !stored.CreatedAt.IsZero() {
		s.store.stats.renews.Add(1)
	}
	return next, stored, err
}

func (s *sessions) renewChangedID(
	ctx context.Context, id ID, current Session, change func(*Session) error,
) (Token, Session, error) {
	token := newToken()
	next, err := s.store.id(token)
	if err != nil {
		return "", Session{}, err
	}
	if current.Version <= 0 { // it would mean that there is no new data
		return "", Session{}, fmt.Errorf("%w: Session.Version is %d", ErrInvalid, current.Version)
	}
	for range maxUpdates {
		changed := current
		if err := change(&changed); err != nil {
			return "", Session{}, callersError{err}
		}
		if changed.IdleTimeout == 0 {
			changed.IdleTimeout = s.store.cfg.IdleTimeout
		}
		r, stored, err := s.renewChangedOnce(ctx, id, next, current, changed)
		switch {
		case r == nil && errors.Is(err, ErrInDoubt):
			return token, Session{}, err
		case r == nil:
			return "", Session{}, err
		case r.status == statusUpdated:
			if err == nil {
				stored, err = s.setRest(ctx, stored, changed)
			}
			return token, stored, err
		case r.status != statusOpaque:
			return "", Session{}, s.statusError(ctx, id, r.status)
		case err != nil:
			return "", Session{}, err // it cannot be read, and stays what it was
		}
		current = stored
	}
	return "", Session{}, ErrBusy
}

// renewChangedOnce is one call of the function. What is to be renewed is the version that was read; if another
// is there, the status is opaque and this is the session.
func (s *sessions) renewChangedOnce(
	ctx context.Context, id, next ID, current, changed Session,
) (*row, Session, error) {
	if !s.inTx {
		if !s.store.writes.TryRLock() {
			return nil, Session{}, ErrClosed
		}
		defer s.store.writes.RUnlock()
	}
	c, err := s.store.cfg.content(next, changed)
	if err != nil {
		return nil, Session{}, err
	}
	// At a login a grace is none, but for what comes by the old token in it: that is late, and not stolen.
	grace := -1.0
	if changed.Subject != "" && changed.Subject != current.Subject {
		grace = secondsArg(s.store.cfg.RenewGrace)
	}
	var old any // the id by which the session was found, if that is an old one
	if id != current.ID {
		old = string(id)
	}
	return s.renewOnce(ctx, s.store.sql.renewChanged, current.ID, next, changed.Subject, []any{
		string(current.ID), string(next), textArg(changed.Subject), grace, old, c.data, int64(c.codec), current.Version,
	})
}

// setRest writes what the function that renews does not take. Nobody else has the session yet.
func (s *sessions) setRest(ctx context.Context, stored, changed Session) (Session, error) {
	idle, absolute, err := s.store.cfg.sessionTimeouts(changed)
	if err != nil {
		return stored, err
	}
	if changed.Subject == stored.Subject && len(changed.Columns) == 0 &&
		(idle == 0 || idle == stored.IdleTimeout) && (absolute == 0 || absolute == stored.AbsoluteTimeout) {
		return stored, nil
	}
	again, err := s.set(ctx, stored.ID, changed, stored.Version, LockWait)
	if err != nil && !errors.Is(err, ErrUnpublished) {
		return stored, err
	}
	return again, err
}
