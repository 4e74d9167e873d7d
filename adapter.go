package pgsession

import (
	"context"
	"fmt"

	"github.com/pgsession/pgsession/internal/adapter"
)

func init() {
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
}

// forAdapters is what [Store] and [Tx] have beside [Sessions]. A type that embeds one of them has it too.
type forAdapters interface {
	insert(ctx context.Context, token Token, session Session) (Session, error)
	updateID(ctx context.Context, id ID, f func(*Session) error) error
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
