package pgsession

import (
	"context"
	"fmt"
)

// Statuses of the patch function alone.
const (
	statusOpaque      = "opaque"
	statusUndecodable = "undecodable"
	statusTooLarge    = "too_large"
)

// Patch implements [Sessions].
func (s *sessions) Patch(ctx context.Context, token Token, mergePatch []byte) (Session, error) {
	var session Session
	err := s.byToken("patch", token, func(id ID) (err error) {
		session, err = s.patch(ctx, id, mergePatch)
		return err
	})
	return session, err
}

func (s *sessions) patch(ctx context.Context, id ID, mergePatch []byte) (Session, error) {
	if s.store.cfg.Codec != nil {
		return Session{}, fmt.Errorf("%w: Patch works on the server, which cannot read what Config.Codec codes; use Update",
			ErrCodec)
	}
	if err := validatePatch(mergePatch, s.store.cfg.MaxDataSize); err != nil {
		return Session{}, err
	}
	if !s.inTx {
		if !s.store.writes.TryRLock() {
			return Session{}, ErrClosed
		}
		defer s.store.writes.RUnlock()
	}
	target, old := id, any(nil)
	for range maxLinks {
		session, next, err := s.patchOne(ctx, target, old, string(mergePatch))
		if next == "" {
			return session, err
		}
		target, old = next, string(id) // what the old token stands for, if it still does
	}
	return Session{}, ErrBusy
}

// patchOne is one call of the function. With ErrRenewed it may return what to patch instead. old is the
// id by which this one was found, if that is an old one.
func (s *sessions) patchOne(ctx context.Context, id ID, old any, mergePatch string) (_ Session, next ID, err error) {
	cfg := s.store.cfg
	s.store.stats.sets.Add(1)
	w := s.beginWrite(id)
	defer w.end()
	st := s.store.sql.patch
	if w.notifies {
		st = s.store.sql.patchInTx
	}
	r := new(row)
	if err := s.one(ctx, st, []any{string(id), mergePatch, int64(cfg.MaxDataSize), old}, r.answer(cfg)...); err != nil {
		w.failed(err)
		return Session{}, "", err
	}
	if err := s.patchError(ctx, id, r); err != nil {
		switch r.status {
		case statusBusy, statusOpaque, statusUndecodable, statusTooLarge:
			w.skipped()
		default:
			w.refused(reply{Version: r.version.Int64})
		}
		return Session{}, ID(r.renewedTo.String), err
	}
	if r.status != statusUpdated {
		s.store.stats.unchanged.Add(1)
	}
	session, err := s.store.session(id, r)
	if err != nil {
		w.failed(ErrInDoubt) // it was written, but what we cannot tell
		return Session{}, "", err
	}
	return session, "", w.answered(ctx, r, session)
}

func (s *sessions) patchError(ctx context.Context, id ID, r *row) error {
	switch r.status {
	case statusOpaque:
		return fmt.Errorf("%w: what is stored is not JSON, but of codec %d: Patch cannot read it", ErrCodec, r.codec.Int16)
	case statusUndecodable:
		return fmt.Errorf(`%w: what is stored is no JSON that PostgreSQL can hold: it is invalid, or has \u0000`, ErrCodec)
	case statusTooLarge:
		return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, s.store.cfg.MaxDataSize)
	}
	return s.statusError(ctx, id, r.status)
}
