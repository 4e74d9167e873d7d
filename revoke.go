package pgsession

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// revokeBatch is how many sessions one statement ends; their rows stay locked until it is done, and a
// cache takes as many one by one. Smaller ones meet the index entries of those before again and again: with
// 250 the 99th percentile of reads meanwhile was ten times what it is when idle, with these twice.
const revokeBatch = 10_000

// revokePause is how long a revocation rests between two batches, in proportion to the time that one
// took: a large one leaves room for those who read meanwhile.
const revokePause = 2.4

// clearBatch is the same of all sessions; each batch empties every cache.
const clearBatch = 10_000

// Revoke implements [Sessions].
func (s *sessions) Revoke(ctx context.Context, revocation Revocation) (int, error) {
	n, err := s.revoke(ctx, revocation)
	if err != nil {
		return n, &Error{Op: "revoke", Err: err}
	}
	return n, nil
}

// RevokeAndWait is [Sessions.Revoke] that returns when no instance can serve the sessions any more: a
// read that begins after it, anywhere, does not find them. It waits for Config.Cache.Liveness after the
// sessions have ended; by then each instance has heard of it, or goes to the database since it cannot
// prove that it hears. That needs no list of instances, and no answer from them; but none may have a
// longer Liveness than this one, or serve while not live. Config.Cache.WhenNotLive of
// [ServeUntilMaxAge] is refused with [ErrInvalid], and so is a QueryFunc whose statements are seen to be in a
// transaction, which is not committed while this waits; then nothing is revoked.
//
// It waits also where nothing was left to revoke: another one's revocation may be a moment old. With
// an error after some were ended the number says how many; where ctx ends while it waits all were.
func (s *Store) RevokeAndWait(ctx context.Context, revocation Revocation) (int, error) {
	n, err := s.revokeAndWait(ctx, revocation)
	if err != nil {
		return n, &Error{Op: "revoke and wait", Err: err}
	}
	return n, nil
}

func (s *Store) revokeAndWait(ctx context.Context, revocation Revocation) (int, error) {
	if s.store.cfg.Cache.WhenNotLive == ServeUntilMaxAge {
		return 0, fmt.Errorf("%w: Config.Cache.WhenNotLive is ServeUntilMaxAge: one that hears nothing serves what it has",
			ErrInvalid)
	}
	if in, err := s.inTransaction(ctx); err != nil {
		return 0, err
	} else if in {
		return 0, fmt.Errorf("%w: the store's QueryFunc is a transaction: this would wait for a commit that has not come",
			ErrInvalid)
	}
	n, err := s.revoke(ctx, revocation)
	if err != nil {
		return n, err
	}
	// Liveness counts from the sending of a beat, and hearing its nonce proves that all that was
	// committed before was heard. An instance that has not heard of this is live by a beat that it sent
	// before the commit: it ends within Liveness of that. Flights are joined for no longer either.
	timer := time.NewTimer(s.store.cfg.Cache.Liveness)
	defer timer.Stop()
	select {
	case <-timer.C:
		return n, nil
	case <-ctx.Done():
		return n, ctx.Err()
	case <-s.store.life.Done():
		return n, ErrClosed
	}
}

func (s *sessions) revoke(ctx context.Context, r Revocation) (n int, err error) {
	if err := validateActor(r.Actor, r.Reason); err != nil {
		return 0, err
	}
	if r.Columns != nil && len(r.Columns) == 0 {
		return 0, fmt.Errorf("%w: a Revocation whose Columns are empty, and not nil", ErrInvalid)
	}
	if r.Everyone {
		return s.revokeEveryone(ctx, r)
	}
	if len(r.IDs) == 0 && r.Subject == "" {
		// An empty list with no subject is the classical way to log out everyone by mistake.
		return 0, fmt.Errorf("%w: a Revocation without IDs and without a Subject", ErrInvalid)
	}
	if err := validateSubject(r.Subject); err != nil {
		return 0, err
	}
	if err := validateIDs(r.IDs, r.Except); err != nil {
		return 0, err
	}
	columns, err := columnsArg(r.Columns)
	if err != nil {
		return 0, err
	}
	s.store.stats.revokes.Add(1)
	if r.IDs == nil {
		return s.revokeBatches(ctx, nil, r, columns)
	}
	for ids := range slices.Chunk(r.IDs, revokeBatch) {
		ended, err := s.revokeBatches(ctx, ids, r, columns)
		n += ended
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// revokeBatches ends these sessions, or with nil all of the subject's.
func (s *sessions) revokeBatches(ctx context.Context, some []ID, r Revocation, columns any) (n int, err error) {
	var ids any
	if some != nil {
		ids = idsArg(some)
	}
	args := []any{
		ids, textArg(r.Subject), idsArg(r.Except), s.store.cfg.tombstoneArg(), int64(revokeBatch),
		textArg(r.Actor), textArg(r.Reason), columns,
	}
	for {
		start := time.Now()
		all, _, err := s.ended(ctx, s.store.sql.revoke, args, some, revokedEvent(r))
		ended := len(all)
		if err != nil {
			s.endedInDoubt(err, some, r.Subject)
		} else if some == nil && columns == nil && s.store.cache != nil && !s.inTx {
			s.store.cache.Revoked(subjectHash(r.Subject))
		}
		n += ended
		// A short batch is the last one: none of the subject's can come while it has the subject's lock.
		if err != nil || ended < revokeBatch {
			return n, err
		}
		if !s.inTx { // there the locks stay, and rest would only prolong it
			sleep(ctx, time.Duration(revokePause*float64(time.Since(start))))
		}
	}
}

func (s *sessions) revokeEveryone(ctx context.Context, r Revocation) (int, error) {
	switch {
	case r.IDs != nil || r.Subject != "":
		return 0, fmt.Errorf("%w: a Revocation of Everyone that names IDs or a Subject", ErrInvalid)
	case s.inTx:
		return 0, fmt.Errorf("%w: a Revocation of Everyone in a transaction", ErrInvalid)
	}
	if err := validateIDs(r.Except); err != nil {
		return 0, err
	}
	columns, err := columnsArg(r.Columns)
	if err != nil {
		return 0, err
	}
	s.store.stats.revokes.Add(1)
	if columns != nil {
		return s.revokeAll(ctx, columns, r)
	}
	n, err := s.endAll(ctx, r)
	return int(n), err
}

func revokedEvent(r Revocation) AuditEvent {
	return AuditEvent{Kind: AuditRevoked, Subject: r.Subject, Actor: r.Actor, Reason: r.Reason}
}

// revokeAll ends everyone's sessions that have these columns, as endAll does all.
func (s *sessions) revokeAll(ctx context.Context, columns any, r Revocation) (total int, err error) {
	for range maxPasses {
		n, err := s.revokeAllOnce(ctx, columns, r)
		total += n
		if n == 0 || err != nil {
			return total, err
		}
	}
	return total, nil
}

func (s *sessions) revokeAllOnce(ctx context.Context, columns any, r Revocation) (total int, err error) {
	var after any
	for {
		start := time.Now()
		args := []any{
			columns, after, idsArg(r.Except), s.store.cfg.tombstoneArg(), int64(revokeBatch), textArg(r.Actor), textArg(r.Reason),
		}
		ids, _, err := s.ended(ctx, s.store.sql.revokeAll, args, nil, revokedEvent(r))
		if err != nil {
			if errors.Is(err, ErrInDoubt) && s.store.cache != nil {
				s.store.cache.Cleared() // which they were is not known
			}
			return total, err
		}
		total += len(ids)
		if len(ids) < revokeBatch {
			return total, nil
		}
		after = string(slices.Max(ids)) // as PostgreSQL's collation C has it
		sleep(ctx, time.Duration(revokePause*float64(time.Since(start))))
	}
}

func validateIDs(lists ...[]ID) error {
	for _, list := range lists {
		for _, id := range list {
			if err := validateID(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxPasses bounds how often endAll goes through the table.
const maxPasses = 10

// endAll ends all live sessions but some, in batches, and returns how many there were. A session that
// is renewed meanwhile may get an id that is passed already: hence another pass, until there is none.
func (s *sessions) endAll(ctx context.Context, r Revocation) (total int64, err error) {
	for range maxPasses {
		n, err := s.endAllOnce(ctx, r)
		total += n
		if n == 0 || err != nil {
			return total, err
		}
	}
	return total, nil // those that log in faster than they can be ended may stay
}

func (s *sessions) endAllOnce(ctx context.Context, r Revocation) (total int64, err error) {
	var after any
	for {
		var n int64
		var last string
		args := []any{
			s.store.cfg.tombstoneArg(), after, int64(clearBatch), idsArg(r.Except), textArg(r.Actor), textArg(r.Reason),
		}
		err := s.one(ctx, s.store.sql.clear, args, &n, &last)
		if s.store.cache != nil && (err == nil || errors.Is(err, ErrInDoubt)) {
			s.store.cache.Cleared()
		}
		if err != nil {
			return total, err
		}
		if n > 0 {
			s.audit(ctx, AuditEvent{Kind: AuditCleared, Sessions: n, Actor: r.Actor, Reason: r.Reason})
		}
		total += n
		if last == "" {
			return total, nil
		}
		after = last
	}
}
