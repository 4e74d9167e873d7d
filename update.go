package pgsession

import (
	"context"
	"errors"
	"fmt"
)

// maxUpdates bounds the attempts of one Update. It is generous, since a process that is slower than its
// rivals loses more often than its turn, and each attempt is a round trip of the context's time.
const maxUpdates = 1000

// Update implements [Sessions].
//
// Writers of one process take turns before they go to the database: of a hundred that collide there
// ninety-nine would have to begin again. What is left are the collisions between processes, and for
// those the set function returns the row that won, so that an attempt costs one round trip.
func (s *sessions) Update(ctx context.Context, token Token, f func(*Session) error) (Session, error) {
	if f == nil {
		return Session{}, &Error{Op: "update", Err: fmt.Errorf("%w: the function is nil", ErrInvalid)}
	}
	var session Session
	err := s.byToken("update", token, func(id ID) (err error) {
		session, err = s.update(ctx, id, func(session *Session) error {
			if err := f(session); err != nil {
				return callersError{err}
			}
			return nil
		})
		return err
	})
	return session, err
}

func (s *sessions) update(ctx context.Context, id ID, f func(*Session) error) (Session, error) {
	if f == nil {
		return Session{}, fmt.Errorf("%w: the function is nil", ErrInvalid)
	}
	if !s.inTx { // there the transaction's own locks may be what another Update waits for
		unlock, err := s.store.updates.Lock(ctx, id)
		if err != nil {
			return Session{}, err
		}
		defer unlock()
	}

	session, err := s.get(ctx, id)
	if err != nil {
		return Session{}, err
	}
	for attempt := 1; ; attempt++ {
		version := session.Version
		if version <= 0 { // it would mean any version to set, or none
			return Session{}, fmt.Errorf("the row has the version %d", version)
		}
		target := session.ID // not id, where that is an old one's
		if err := f(&session); err != nil {
			return Session{}, err
		}
		session, err = s.set(ctx, target, session, version, LockWait)
		switch {
		case attempt == maxUpdates && target != id:
			return Session{}, err
		case attempt == maxUpdates:
			return session, err
		case errors.Is(err, ErrRenewed), errors.Is(err, ErrConflict) && target != id:
			// What won may be a login, at which the old token is worth nothing: it is asked anew what it
			// stands for.
			var getErr error
			session, getErr = s.get(ctx, id)
			if errors.Is(err, ErrRenewed) && errors.Is(getErr, ErrNotFound) {
				return Session{}, err
			} else if getErr != nil {
				return Session{}, getErr
			}
		case !errors.Is(err, ErrConflict) || session.Version == 0:
			return session, err // with a conflict and no version: what is there cannot be read
		}
	}
}
