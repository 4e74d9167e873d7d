package pgsession

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"reflect"
)

// Typed is sessions whose data is a T, coded as JSON. It works over a [Store] and over a [Tx]. What has
// nothing to do with the data is theirs: Touch, Destroy, Revoke, Count.
type Typed[T any] struct{ Sessions }

// TypedSession is a [Session] with its data decoded: Value takes the place of Session.Data and
// Session.Codec, which reads may leave empty and writes ignore.
type TypedSession[T any] struct {
	Session
	Value T
}

// JSON returns typed sessions over s. Data is marked [CodecJSON], unless Config.Codec is set, so that
// the view shows it.
func JSON[T any](s Sessions) *Typed[T] { return &Typed[T]{s} }

// Create is [Sessions.Create]. A Value with nothing in it is nothing to store: the zero value, which is what
// reads give where there is no data, and what is coded as null, {} or []. With a Subject or Columns it is
// stored as it is.
func (t *Typed[T]) Create(ctx context.Context, session TypedSession[T]) (Token, TypedSession[T], error) {
	plain, err := t.encode("create", session)
	if err != nil {
		return "", TypedSession[T]{}, err
	}
	bare := plain
	bare.Data, bare.Codec = nil, CodecOpaque
	if bare.empty() && holdsNothing(&session.Value, plain.Data) {
		plain = bare
	}
	token, plain, err := t.Sessions.Create(ctx, plain)
	if err != nil {
		return "", TypedSession[T]{}, err
	}
	return token, TypedSession[T]{plain, session.Value}, nil
}

// Get is [Sessions.Get].
func (t *Typed[T]) Get(ctx context.Context, token Token) (TypedSession[T], error) {
	var typed TypedSession[T]
	err := t.View(ctx, token, func(lent TypedSession[T]) error {
		typed = lent
		typed.Data = nil
		typed.Columns = maps.Clone(lent.Columns)
		return nil
	})
	return typed, err
}

// View is [Sessions.View]; the Value is f's to keep.
func (t *Typed[T]) View(ctx context.Context, token Token, f func(TypedSession[T]) error) error {
	return t.Sessions.View(ctx, token, func(s Session) error {
		typed, err := t.decode("get", s)
		if err != nil {
			return err
		}
		return f(typed)
	})
}

// GetFresh is [Sessions.GetFresh].
func (t *Typed[T]) GetFresh(ctx context.Context, token Token) (TypedSession[T], error) {
	s, err := t.Sessions.GetFresh(ctx, token)
	if err != nil {
		return TypedSession[T]{}, err
	}
	return t.decode("get", s)
}

// Set is [Sessions.Set]. With ErrConflict it returns the session that is there.
func (t *Typed[T]) Set(ctx context.Context, token Token, session TypedSession[T]) (TypedSession[T], error) {
	plain, err := t.encode("set", session)
	if err != nil {
		return TypedSession[T]{}, err
	}
	stored, err := t.Sessions.Set(ctx, token, plain)
	if err != nil {
		if stored.Version == 0 {
			return TypedSession[T]{}, err
		}
		current, decodeErr := t.decode("set", stored)
		if decodeErr != nil {
			return TypedSession[T]{}, fmt.Errorf("%w; what is there: %w", err, decodeErr)
		}
		return current, err
	}
	return TypedSession[T]{stored, session.Value}, nil
}

// Update is [Sessions.Update]. Where that returns a session with an error, as with ErrUnpublished, so does this.
func (t *Typed[T]) Update(ctx context.Context, token Token, f func(*TypedSession[T]) error) (TypedSession[T], error) {
	if f == nil {
		return TypedSession[T]{}, &Error{Op: "update", Err: fmt.Errorf("%w: the function is nil", ErrInvalid)}
	}
	var typed TypedSession[T]
	stored, err := t.Sessions.Update(ctx, token, func(s *Session) (err error) {
		if typed, err = t.decode("update", *s); err != nil {
			return err
		}
		if err = f(&typed); err != nil {
			return err
		}
		*s, err = t.encode("update", typed)
		return err
	})
	if err == nil {
		return TypedSession[T]{stored, typed.Value}, nil
	}
	if stored.Version == 0 {
		return TypedSession[T]{}, err
	}
	typed, decodeErr := t.decode("update", stored)
	return typed, cmp.Or(err, decodeErr)
}

// Patch is [Sessions.Patch], of the JSON that T is coded as.
func (t *Typed[T]) Patch(ctx context.Context, token Token, mergePatch []byte) (TypedSession[T], error) {
	s, err := t.Sessions.Patch(ctx, token, mergePatch)
	if s.Version == 0 {
		return TypedSession[T]{}, err
	}
	typed, decodeErr := t.decode("patch", s)
	return typed, cmp.Or(err, decodeErr)
}

// Renew is [Sessions.Renew]. With ErrRenewed it may return the session that there is, as that does.
func (t *Typed[T]) Renew(ctx context.Context, token Token, renewal Renewal) (Token, TypedSession[T], error) {
	next, plain, err := t.Sessions.Renew(ctx, token, renewal)
	if plain.Version == 0 {
		return next, TypedSession[T]{}, err
	}
	typed, decodeErr := t.decode("renew", plain)
	return next, typed, cmp.Or(err, decodeErr)
}

// All is [Sessions.All]. A session whose data is no T comes with an error, as one that cannot be
// decoded does.
func (t *Typed[T]) All(ctx context.Context, filter Filter) iter.Seq2[TypedSession[T], error] {
	return func(yield func(TypedSession[T], error) bool) {
		for s, err := range t.Sessions.All(ctx, filter) {
			typed := TypedSession[T]{Session: s}
			if err == nil {
				typed, err = t.decode("all", s)
			}
			if !yield(typed, err) {
				return
			}
		}
	}
}

// holdsNothing says whether a value and what it is coded as tell no more than no data does.
func holdsNothing[T any](value *T, data []byte) bool {
	switch string(data) {
	case "null", "{}", "[]":
		return true
	}
	return reflect.ValueOf(value).Elem().IsZero()
}

func (t *Typed[T]) encode(op string, typed TypedSession[T]) (Session, error) {
	data, err := json.Marshal(typed.Value)
	if err != nil {
		return Session{}, &Error{Op: op, ID: typed.ID, Err: fmt.Errorf("%w: %w", ErrCodec, err)}
	}
	s := typed.Session
	s.Data, s.Codec = data, CodecJSON
	return s, nil
}

// decode takes empty data for the zero value: a session that holds nothing yet.
func (t *Typed[T]) decode(op string, s Session) (TypedSession[T], error) {
	typed := TypedSession[T]{Session: s}
	if len(s.Data) == 0 {
		return typed, nil
	}
	if err := json.Unmarshal(s.Data, &typed.Value); err != nil {
		return TypedSession[T]{Session: Session{ID: s.ID}}, &Error{
			Op: op, ID: s.ID, Err: fmt.Errorf("%w: %w", ErrCodec, err),
		}
	}
	return typed, nil
}
