package pgsession

import (
	"context"
	"iter"
)

// Sizes of a page of All: whichever is reached first. A page holds one session at least.
const (
	pageRows  = 1000
	pageBytes = 4 << 20
)

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
