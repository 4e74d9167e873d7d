package pgsession

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxPatchDepth is how deep a patch may be nested: the server goes down into it by recursion.
const maxPatchDepth = 100

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
	if s.inTx {
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

// validatePatch refuses what the server would, by its name.
func validatePatch(mergePatch []byte, maxSize int) error {
	if len(mergePatch) > maxSize {
		return fmt.Errorf("%w: the patch has %d bytes, at most %d", ErrTooLarge, len(mergePatch), maxSize)
	}
	switch {
	case !json.Valid(mergePatch):
		return fmt.Errorf("%w: the patch is not valid JSON", ErrInvalid)
	case !utf8.Valid(mergePatch): // which the former lets pass within strings
		return fmt.Errorf("%w: the patch is not valid UTF-8", ErrInvalid)
	}
	written := len(mergePatch) // as jsonb writes it, at most
	decoder := json.NewDecoder(bytes.NewReader(mergePatch))
	decoder.UseNumber()
	for depth := 0; ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("%w: the patch: %w", ErrInvalid, err)
		}
		switch token := token.(type) {
		case json.Number:
			// jsonb writes 1e100000 out: nine bytes here would be so many there, before it finds them too many.
			if written += exponent(token); written > maxSize {
				return fmt.Errorf("%w: the patch's numbers, written out, have more than %d bytes", ErrTooLarge, maxSize)
			}
		case json.Delim:
			if token == '{' || token == '[' {
				depth++
			} else {
				depth--
			}
			if depth > maxPatchDepth {
				return fmt.Errorf("%w: the patch is nested deeper than %d", ErrInvalid, maxPatchDepth)
			}
		case string:
			if strings.IndexByte(token, 0) >= 0 {
				return fmt.Errorf(`%w: the patch has \u0000, which PostgreSQL's jsonb cannot hold`, ErrInvalid)
			}
		}
	}
}

// exponent is the magnitude of a number's exponent; of one that is out of any range, more than any size.
func exponent(number json.Number) int {
	i := strings.IndexAny(string(number), "eE")
	if i < 0 {
		return 0
	}
	n, err := strconv.ParseInt(string(number[i+1:]), 10, 32)
	if err != nil {
		return 1 << 30
	}
	return int(max(n, -n))
}
