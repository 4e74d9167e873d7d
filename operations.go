package pgsession

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/pgsession/pgsession/internal/cache"
)

// maxDestroy is how many ids a call of the destroy function takes: each takes an advisory lock.
const maxDestroy = 1000

// muchData is beside how many bytes of data a copy of the id costs little.
const muchData = 1 << 10

// Statuses that the functions return; the headers in sql/ say what each means.
const (
	statusFound     = "found"
	statusMissing   = "missing"
	statusRevoked   = "revoked"
	statusRenewed   = "renewed"
	statusReused    = "reused"
	statusCreated   = "created"
	statusUpdated   = "updated"
	statusTouched   = "touched"
	statusUnchanged = "unchanged"
	statusConflict  = "conflict"
	statusBusy      = "busy"
	statusSkipped   = "skipped"
	statusFull      = "full"
)

// Versions that the set function takes beside a session's own.
const (
	anyVersion int64 = 0
	noVersion  int64 = -1 // only where there is no session
)

// statusError is the error that a status stands for; nil for success.
func statusError(status string) error {
	switch status {
	case statusFound, statusCreated, statusUpdated, statusTouched, statusUnchanged, statusSkipped:
		return nil
	case statusMissing:
		return ErrNotFound
	case statusRevoked:
		return ErrRevoked
	case statusRenewed, statusReused:
		return ErrRenewed
	case statusConflict:
		return ErrConflict
	case statusBusy:
		return ErrBusy
	case statusFull:
		return ErrTooManySessions
	}
	return fmt.Errorf("the function answered %q, which this version does not know", status)
}

// Create implements [Sessions].
func (s *sessions) Create(ctx context.Context, session Session) (Token, Session, error) {
	token := newToken()
	id, err := s.store.id(token)
	switch {
	case err != nil:
	case session.empty():
		session, err = s.unwritten(id, session)
	default:
		if session, err = s.set(ctx, id, session, noVersion, LockWait); err == nil {
			s.store.stats.creates.Add(1)
		}
	}
	if err != nil {
		return "", Session{}, &Error{Op: "create", ID: id, Err: err}
	}
	return token, session, nil
}

// unwritten is a new session with nothing to store: as it was given, so that a Set of it stores its timeouts.
// What a write would refuse is refused, though nothing is written.
func (s *sessions) unwritten(id ID, session Session) (Session, error) {
	if s.store.closed.Load() {
		return Session{}, ErrClosed
	}
	if _, err := s.store.cfg.content(id, session); err != nil {
		return Session{}, err
	}
	session.ID, session.Version = id, anyVersion
	session.CreatedAt, session.ExpiresAt = time.Time{}, time.Time{}
	return session, nil
}

// Get implements [Sessions].
func (s *sessions) Get(ctx context.Context, token Token) (session Session, err error) {
	c := s.cache()
	if c == nil {
		return s.GetFresh(ctx, token)
	}
	if h := s.hit(ctx, c, token); h != nil {
		session = h.session()
	} else if session, err = s.lend(ctx, c, token); err != nil {
		return Session{}, err
	}
	// What was lent becomes the caller's. The id and the subject are parts of one text with the data: who
	// keeps them shall not keep much else.
	session.Data = bytes.Clone(session.Data)
	session.Columns = maps.Clone(session.Columns)
	if len(session.Data) > muchData {
		session.ID = ID(strings.Clone(string(session.ID)))
		session.Subject = strings.Clone(session.Subject)
	}
	return session, nil
}

// View implements [Sessions].
func (s *sessions) View(ctx context.Context, token Token, f func(Session) error) error {
	c := s.cache()
	if c == nil {
		session, err := s.GetFresh(ctx, token)
		if err != nil {
			return err
		}
		return f(session)
	}
	if h := s.hit(ctx, c, token); h != nil {
		return f(h.session())
	}
	session, err := s.lend(ctx, c, token)
	if err != nil {
		return err
	}
	return f(session)
}

// GetFresh implements [Sessions].
func (s *sessions) GetFresh(ctx context.Context, token Token) (Session, error) {
	var session Session
	err := s.byToken("get", token, func(id ID) (err error) {
		session, err = s.get(ctx, id)
		return err
	})
	return session, err
}

// get reads the database, and tells the cache.
func (s *sessions) get(ctx context.Context, id ID) (Session, error) {
	c := s.cache()
	if c == nil {
		session, _, err := s.read(ctx, id)
		return session, err
	}
	op := c.Begin(cacheKey(id))
	defer op.End()
	session, answer, err := s.ask(ctx, id)
	if err == nil && !op.Read(answer) {
		err = ErrNotFound // or ended by this process, and the answer is a lagging replica's
	}
	if err != nil {
		return Session{}, err
	}
	return session, nil
}

// read reads the database.
func (s *sessions) read(ctx context.Context, id ID) (Session, *row, error) {
	s.store.stats.gets.Add(1)
	r := new(row)
	if err := s.one(ctx, s.store.sql.get, []any{string(id)}, r.answer(s.store.cfg)...); err != nil {
		return Session{}, r, err
	}
	s.store.notify.saw(serverIdentity(r.server.Time))
	if err := s.statusError(ctx, id, r.status); errors.Is(err, ErrRevoked) {
		// To a reader an ended session is none; ErrRevoked is for the write that comes too late.
		return Session{}, r, ErrNotFound
	} else if err != nil {
		return Session{}, r, err
	}
	if r.renewedTo.Valid { // it was asked for by an old token
		id = ID(r.renewedTo.String)
	}
	session, err := s.store.session(id, r)
	return session, r, err
}

// Set implements [Sessions].
func (s *sessions) Set(ctx context.Context, token Token, session Session) (Session, error) {
	var stored Session
	err := s.byToken("set", token, func(id ID) (err error) {
		switch {
		case session.Version < 0:
			return fmt.Errorf("%w: Session.Version is %d", ErrInvalid, session.Version)
		case session.Version == anyVersion:
			if id, err = s.locate(ctx, token); err != nil {
				return err
			}
		}
		stored, err = s.set(ctx, id, session, session.Version, s.store.cfg.Lock)
		return err
	})
	return stored, err
}

// locate returns the id that a token's session has, or its tombstone; where there is neither, that of a
// new one. A write that may create one has to ask first, while peppers are rotated: of a session that has
// another id there would be two.
func (s *sessions) locate(ctx context.Context, token Token) (ID, error) {
	ids, err := s.store.ids(token)
	if err != nil {
		return "", err
	}
	if len(ids) == 1 {
		return ids[0], nil
	}
	for _, id := range ids {
		r := new(row)
		s.store.stats.gets.Add(1)
		if err := s.one(ctx, s.store.sql.get, []any{string(id)}, r.answer(s.store.cfg)...); err != nil {
			return id, err
		}
		if r.status != statusMissing {
			return id, nil
		}
	}
	return ids[0], nil
}

// set writes a session. On ErrConflict it returns the one that is there.
func (s *sessions) set(ctx context.Context, id ID, session Session, version int64, lock LockMode) (Session, error) {
	cfg := s.store.cfg
	s.store.stats.sets.Add(1)
	c, err := cfg.content(id, session)
	if err != nil {
		return Session{}, err
	}
	if !s.inTx {
		if !s.store.writes.TryRLock() {
			return Session{}, ErrClosed
		}
		defer s.store.writes.RUnlock()
	}
	w := s.beginWrite(id)
	defer w.end()
	r := new(row)
	st := s.store.sql.set[lock]
	if w.notifies {
		st = s.store.sql.setInTx[lock]
	}
	err = s.one(ctx, st,
		[]any{string(id), c.data, int64(c.codec), textArg(session.Subject), c.columns, c.idle, c.absolute, version},
		r.written(cfg)...)
	if err != nil {
		w.failed(err)
		return Session{}, err
	}
	if err := s.tellEvicted(ctx, r, session.Subject); err != nil {
		return Session{}, err
	}
	switch err := s.statusError(ctx, id, r.status); {
	case r.status == statusConflict:
		s.store.stats.conflicts.Add(1)
		current, decodeErr := s.store.session(id, r)
		if decodeErr != nil {
			w.refused(reply{Version: r.version.Int64})
			return Session{}, fmt.Errorf("%w; what is there: %w", err, decodeErr)
		}
		w.refused(r.reply(current))
		return current, err
	case r.status == statusBusy:
		w.skipped()
		return Session{}, err
	case err != nil:
		w.refused(reply{Version: r.version.Int64})
		return Session{}, err
	case r.status == statusSkipped:
		w.skipped()
		session.ID = id
		return session, nil
	}
	if r.status == statusTouched || r.status == statusUnchanged {
		s.store.stats.unchanged.Add(1)
	}
	if r.status == statusCreated {
		s.audit(ctx, AuditEvent{Kind: AuditCreated, ID: id, Subject: session.Subject})
	}
	r.subject.String = session.Subject
	stored, err := s.store.undecoded(id, r)
	if err != nil {
		w.failed(ErrInDoubt) // it was written, but by what we cannot tell
		return Session{}, err
	}
	stored.Data, stored.Codec = session.Data, c.codec
	s.sweep()
	return stored, w.answered(ctx, r, stored)
}

// Touch implements [Sessions].
func (s *sessions) Touch(ctx context.Context, token Token) (expiresAt time.Time, err error) {
	if err := validateToken(token); err != nil {
		return time.Time{}, &Error{Op: "touch", Err: err}
	}
	s.store.stats.touches.Add(1)
	if expiresAt, ok := s.touchUnneeded(ctx, token); ok {
		return expiresAt, nil
	}
	err = s.byToken("touch", token, func(id ID) (err error) {
		for range maxLinks {
			var next ID
			if expiresAt, next, err = s.touch(ctx, id); next == "" {
				break
			}
			id = next
		}
		return err
	})
	if err != nil {
		return time.Time{}, err
	}
	return expiresAt, nil
}

// touch extends one session's deadline. With ErrRenewed it may return what to touch instead.
func (s *sessions) touch(ctx context.Context, id ID) (expiresAt time.Time, next ID, err error) {
	var w write
	if !s.inTx { // there it changes nothing that others may have cached
		w = s.beginWrite(id)
	}
	defer w.end()
	r, st := new(row), s.store.sql.touch
	if s.inTx {
		st = s.store.sql.touchInTx
	}
	err = s.one(ctx, st, []any{string(id)}, r.touchDest(s.store.cfg)...)
	if err == nil {
		if err = s.statusError(ctx, id, r.status); err != nil && r.status != statusBusy {
			w.refused(reply{Version: r.version.Int64})
		}
	}
	if err != nil {
		return time.Time{}, ID(r.renewedTo.String), err
	}
	s.store.notify.saw(serverIdentity(r.server.Time))
	w.touched(r)
	return r.expiresAt.Time.UTC(), "", nil
}

// Destroy implements [Sessions].
func (s *sessions) Destroy(ctx context.Context, tokens ...Token) (int, error) {
	if len(tokens) == 0 {
		return 0, nil
	}
	if most := maxDestroy / s.store.cfg.hashes(); len(tokens) > most {
		err := fmt.Errorf("%w: %d tokens, at most %d", ErrInvalid, len(tokens), most)
		return 0, &Error{Op: "destroy", Err: err}
	}
	ids := make([]ID, 0, len(tokens))
	for _, token := range tokens {
		of, err := s.store.ids(token)
		if err != nil {
			return 0, &Error{Op: "destroy", Err: err}
		}
		ids = append(ids, of...)
	}
	var one ID
	if len(tokens) == 1 {
		one = ids[0]
	}
	s.store.stats.destroys.Add(1)
	var successors []ID
	for range maxLinks {
		ended, more, err := s.ended(ctx, s.store.sql.destroy, []any{idsArg(ids), idsArg(successors)}, ids,
			AuditEvent{Kind: AuditDestroyed})
		if err != nil {
			s.endedInDoubt(err, append(successors, ids...), "")
			return 0, &Error{Op: "destroy", ID: one, Err: err}
		}
		if len(more) == 0 {
			return len(ended), nil
		}
		// Nothing was ended: old tokens stand for these, whose locks must be taken in order with the rest.
		successors = append(successors, more...)
	}
	return 0, &Error{Op: "destroy", ID: one, Err: ErrBusy}
}

// ended runs a statement that returns the sessions it ended, of those that it names, if any, tells the
// cache and, of each, the log, and returns them. more are successors of sessions that it names: then it ended nothing.
func (s *sessions) ended(
	ctx context.Context, st statement, args []any, named []ID, event AuditEvent,
) (ids, more []ID, err error) {
	var id string
	var version pgtype.Int8
	var successor pgtype.Text
	var versions []cache.Version
	var done committed
	begin := func() { versions, ids, more = versions[:0], ids[:0], more[:0] }
	err = s.each(ctx, st, args, []any{&id, &version, &successor, &done}, begin, func() {
		if successor.Valid {
			more = append(more, ID(successor.String))
		} else {
			ids = append(ids, ID(id))
			versions = append(versions, cache.Version{Key: cacheKey(ID(id)), Version: version.Int64})
		}
	})
	if err != nil {
		return nil, nil, err
	}
	if len(more) == 0 {
		s.tellEnded(versions, named, done)
	}
	for _, event.ID = range ids {
		s.audit(ctx, event)
	}
	return ids, more, nil
}

// idsArg is a list of ids as an argument: lists travel as one JSON text, in every driver alike.
func idsArg(ids []ID) string {
	if ids == nil {
		ids = []ID{}
	}
	b, _ := json.Marshal(ids) // strings: cannot fail
	return string(b)
}

func (c *config) tombstoneArg() float64 { return secondsArg(c.Tombstone) }

// lockTimeoutArg: 0 is "no limit" to the functions.
func (c *config) lockTimeoutArg() float64 { return max(0, secondsArg(c.LockTimeout)) }
