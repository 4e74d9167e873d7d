package pgsession

import (
	"cmp"
	"context"
	"fmt"
	"math/bits"
	"slices"

	"github.com/jackc/pgx/v5/pgtype"
)

// handOverBatch claims a batch of expired sessions, calls the hook, and deletes them.
func (s *sessions) handOverBatch(ctx context.Context, r *run, wait bool) (more bool, err error) {
	if !s.store.takeTurn(ctx, wait) {
		r.busy = true
		return false, ctx.Err()
	}
	defer func() { <-s.store.hooking }()
	claimed, entries, more, err := s.claim(ctx, r, wait)
	if err != nil || len(claimed) == 0 {
		return more, err
	}
	return s.handOver(ctx, r, claimed, entries)
}

// claim also deletes old tombstones, and moves the living.
func (s *sessions) claim(
	ctx context.Context, r *run, wait bool,
) (claimed []PrunedSession, entries versions, more bool, err error) {
	cfg := s.store.cfg
	var got row
	var deleted pgtype.Int8
	var next pgtype.Timestamptz
	var busy pgtype.Bool
	dest := append(got.dest(cfg, &got.id), &deleted, &next, &busy)
	limit := cmp.Or(s.store.atOnce, cfg.Cleanup.BatchSize)
	args := []any{int64(limit), r.from, wait, r.deleted, secondsArg(cfg.Cleanup.Lease)}
	entries = make(versions)
	begin := func() { claimed = claimed[:0]; clear(entries) }
	err = s.each(ctx, s.store.sql.claim, args, dest, begin, func() {
		if got.id == "" {
			return // the last row: what else was done
		}
		id := ID(got.id)
		session, err := s.store.session(id, &got)
		got.data = nil // the next row must not be scanned into the same array
		claimed = append(claimed, PrunedSession{session, err})
		entries[id] = got.version.Int64
	})
	if err != nil {
		return nil, nil, false, err
	}
	r.busy = busy.Bool
	r.deleted += deleted.Int64
	s.store.stats.pruned.Add(deleted.Int64)
	if next.Valid {
		r.from = next.Time
	}
	return claimed, entries, next.Valid && !r.busy, nil
}

// handOver calls the hook with what was claimed, and where it fails with each half, and so on: a session
// that it fails for alone must not keep all others here. It says whether to go on with the next batch.
func (s *sessions) handOver(ctx context.Context, r *run, claimed []PrunedSession, entries versions) (more bool, err error) {
	lease, cancel := context.WithTimeout(ctx, s.store.cfg.Cleanup.Lease)
	defer cancel()
	defer context.AfterFunc(s.store.life, cancel)()
	left := [][]PrunedSession{claimed} // the last one is next
	var alone []PrunedSession          // those that it failed for alone
	succeeded := false
	failures := 0 // in a row
	// So many until the first session is alone, and one more to see that the hook works at all.
	most := bits.Len(uint(len(claimed)-1)) + 2
	for len(left) > 0 && failures < most && lease.Err() == nil {
		part := left[len(left)-1]
		left = left[:len(left)-1]
		failure := s.callHook(lease, part)
		if failure == nil {
			succeeded, failures = true, 0
			if err := s.confirm(ctx, r, entries.of(part)); err != nil {
				return false, err // they come again after the lease, and what is left too
			}
			continue
		}
		failures++
		r.failed = cmp.Or(r.failed, failure)
		switch half := len(part) / 2; {
		case s.calledOff(ctx):
			left = append(left, part) // the hook was cut off: that says nothing of them
		case half == 0:
			alone = append(alone, part...)
		default:
			left = append(left, part[half:], part[:half])
		}
	}
	if s.calledOff(ctx) {
		return false, cmp.Or(ctx.Err(), r.failed)
	}
	late := lease.Err() != nil && (failures > 0 || len(left) > 0)
	s.giveBack(ctx, entries.of(alone), true)
	if !late { // else they are due, or another's already
		s.giveBack(ctx, entries.of(slices.Concat(left...)), false)
	}
	switch {
	case late || !succeeded || failures == most:
		s.store.atOnce = 1
		return false, nil
	case s.store.atOnce > s.store.cfg.Cleanup.BatchSize/2:
		s.store.atOnce = 0
	case len(alone) == 0:
		s.store.atOnce *= 2
	}
	return true, nil
}

// calledOff says whether a prune was called off, rather than late.
func (s *sessions) calledOff(ctx context.Context) bool {
	return ctx.Err() != nil || s.store.life.Err() != nil
}

func (s *sessions) confirm(ctx context.Context, r *run, entries versions) error {
	var deleted int64
	if err := s.one(ctx, s.store.sql.confirm, []any{entries.json(), true, false}, &deleted); err != nil {
		return err
	}
	s.auditExpired(ctx, deleted)
	r.deleted += deleted
	s.store.stats.pruned.Add(deleted)
	return nil
}

// giveBack has sessions be due again, at once or later. What cannot be given back comes after the lease.
func (s *sessions) giveBack(ctx context.Context, entries versions, later bool) {
	if len(entries) > 0 {
		var given int64
		_ = s.one(ctx, s.store.sql.confirm, []any{entries.json(), false, later}, &given)
	}
}

// of are those of some sessions.
func (v versions) of(sessions []PrunedSession) versions {
	of := make(versions, len(sessions))
	for _, session := range sessions {
		of[session.ID] = v[session.ID]
	}
	return of
}

// takeTurn has one goroutine at a time claim sessions and call the hook.
func (c *core) takeTurn(ctx context.Context, wait bool) bool {
	select {
	case c.hooking <- struct{}{}:
		return true
	default:
	}
	if !wait {
		return false
	}
	select {
	case c.hooking <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// hookError is Cleanup.OnPrune's, whatever it says: it may be of another database.
type hookError struct{ error }

func (e hookError) Unwrap() error { return e.error }

// callHook calls Cleanup.OnPrune, with a slice of its own: it may be called with the sessions again.
func (s *sessions) callHook(ctx context.Context, part []PrunedSession) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = hookError{fmt.Errorf("Config.Cleanup.OnPrune panicked: %v", v)}
		}
	}()
	if err := s.store.cfg.Cleanup.OnPrune(ctx, slices.Clone(part)); err != nil {
		return hookError{fmt.Errorf("Config.Cleanup.OnPrune: %w", err)}
	}
	return nil
}
