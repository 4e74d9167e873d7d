package pgsession

import (
	"context"
	"fmt"
	"iter"
)

// Sizes of a page of All: whichever is reached first. A page holds one session at least.
const (
	pageRows  = 1000
	pageBytes = 4 << 20
)

// revokeBatch is how many sessions one statement ends; their rows stay locked until it is done.
const revokeBatch = 10_000

// Revoke implements [Sessions].
func (s *sessions) Revoke(ctx context.Context, revocation Revocation) (int, error) {
	n, err := s.revoke(ctx, revocation)
	if err != nil {
		return n, &Error{Op: "revoke", Err: err}
	}
	return n, nil
}

func (s *sessions) revoke(ctx context.Context, r Revocation) (n int, err error) {
	if len(r.IDs) == 0 && r.Subject == "" {
		// An empty list with no subject is the classical way to log out everyone by mistake.
		return 0, fmt.Errorf("%w: a Revocation without IDs and without a Subject", ErrInvalid)
	}
	if err := validateSubject(r.Subject); err != nil {
		return 0, err
	}
	for _, list := range [][]ID{r.IDs, r.Except} {
		for _, id := range list {
			if err := validateID(id); err != nil {
				return 0, err
			}
		}
	}
	var ids, subject any
	if r.IDs != nil {
		ids = idsArg(r.IDs)
	}
	if r.Subject != "" {
		subject = r.Subject
	}
	s.store.stats.revokes.Add(1)
	args := []any{ids, subject, idsArg(r.Except), s.store.cfg.tombstoneArg(), int64(revokeBatch)}
	for {
		ended, err := s.ended(ctx, s.store.sql.revoke, args, r.IDs)
		if err != nil {
			s.endedInDoubt(err, r.IDs, r.Subject)
		} else if r.Subject != "" && r.IDs == nil && s.store.cache != nil && !s.inTx {
			s.store.cache.Revoked(subjectHash(r.Subject))
		}
		n += ended
		if err != nil || ended == 0 {
			return n, err
		}
		if ended < revokeBatch && r.Subject == "" {
			return n, nil
		}
	}
}

// All implements [Sessions].
func (s *sessions) All(ctx context.Context, filter Filter) iter.Seq2[Session, error] {
	return func(yield func(Session, error) bool) {
		args, st, err := s.filterArgs(filter, s.store.sql.list, s.store.sql.listAll)
		if err != nil {
			yield(Session{}, &Error{Op: "all", Err: err})
			return
		}
		var after any
		for {
			page, err := s.page(ctx, st, append(args[:len(args):len(args)], after, int64(pageRows), int64(pageBytes)))
			if err != nil {
				yield(Session{}, &Error{Op: "all", Err: err})
				return
			}
			if len(page) == 0 {
				return
			}
			for i := range page {
				id := ID(page[i].id)
				session, err := s.store.session(id, &page[i])
				if err != nil {
					err = &Error{Op: "all", ID: id, Err: err}
				}
				if !yield(session, err) {
					return
				}
			}
			after = page[len(page)-1].id
		}
	}
}

// page reads one page whole, so that no connection is held while its sessions are yielded.
func (s *sessions) page(ctx context.Context, st statement, args []any) ([]row, error) {
	var page []row
	var r row
	err := s.each(ctx, st, args, r.dest(s.store.cfg, &r.id), func() { page = page[:0] }, func() {
		page = append(page, r)
		r.data = nil // the next row must not be scanned into the same array
	})
	return page, err
}

// Count implements [Sessions].
func (s *sessions) Count(ctx context.Context, filter Filter) (int64, error) {
	args, st, err := s.filterArgs(filter, s.store.sql.count, s.store.sql.countAll)
	var n int64
	if err == nil {
		err = s.one(ctx, st, args, &n)
	}
	if err != nil {
		return 0, &Error{Op: "count", Err: err}
	}
	return n, nil
}

// filterArgs chooses between the function for one subject, which Config.AppRole may call, and the
// one for all, and returns the arguments that say which sessions.
func (s *sessions) filterArgs(f Filter, bySubject, all statement) ([]any, statement, error) {
	columns, err := columnsArg(f.Columns)
	if err != nil {
		return nil, statement{}, err
	}
	if f.Subject == "" {
		return []any{columns}, all, nil
	}
	if err := validateSubject(f.Subject); err != nil {
		return nil, statement{}, err
	}
	return []any{f.Subject, columns}, bySubject, nil
}
