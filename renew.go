package pgsession

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/pgsession/pgsession/internal/cache"
)

// Renewal is what [Sessions.Renew] changes beside the token. The zero value is nothing.
type Renewal struct {
	// Subject is whom the session belongs to from now on: a login. Empty: as it was.
	Subject string
}

// maxLinks is how many renewals of one session are followed. There are no more in one grace, but by a
// loop that does nothing else.
const maxLinks = 100

// Renew implements [Sessions].
func (s *sessions) Renew(ctx context.Context, token Token, renewal Renewal) (Token, Session, error) {
	var next Token
	var session Session
	err := s.byToken("renew", token, func(id ID) (err error) {
		next, session, err = s.renew(ctx, id, renewal)
		return err
	})
	if err == nil {
		s.store.stats.renews.Add(1)
	}
	return next, session, err
}

func (s *sessions) renew(ctx context.Context, id ID, renewal Renewal) (Token, Session, error) {
	if err := validateSubject(renewal.Subject); err != nil {
		return "", Session{}, err
	}
	if !s.inTx {
		if !s.store.writes.TryRLock() {
			return "", Session{}, ErrClosed
		}
		defer s.store.writes.RUnlock()
	}
	target, old := id, any(nil)
	for range maxLinks {
		token := newToken()
		next, err := s.store.id(token)
		if err != nil {
			return "", Session{}, err
		}
		r, session, err := s.renewTo(ctx, target, next, renewal.Subject, old)
		switch {
		case r == nil && errors.Is(err, ErrInDoubt):
			return token, Session{}, err
		case r == nil:
			return "", Session{}, err
		case r.status == statusUpdated:
			return token, session, err
		}
		statusErr := s.statusError(ctx, id, r.status)
		switch {
		case !r.renewedTo.Valid:
			return "", Session{}, statusErr
		case err != nil: // what there is cannot be decoded
			return "", Session{}, fmt.Errorf("%w; what is there: %w", statusErr, err)
		case renewal.Subject == "" || session.Subject == renewal.Subject:
			return "", session, statusErr
		}
		// A renewal that was faster must not cost this one its login; another login does.
		target, old = session.ID, string(id)
	}
	return "", Session{}, ErrBusy
}

// renewTo calls the function, once more where a codec has coded the data, since that may depend on the
// id, or where Config.Codec is to code it: with the data coded anew, as long as nobody changes it meanwhile.
// old is the id by which this one was found, if that is an old one. It returns no row if that failed. The
// error may be that the session cannot be decoded.
func (s *sessions) renewTo(ctx context.Context, id, next ID, subject string, old any) (*row, Session, error) {
	var data, codec any
	var version int64
	for range maxUpdates {
		args := []any{string(id), string(next), textArg(subject), old, data, codec, version}
		r, session, err := s.renewOnce(ctx, s.store.sql.renew, id, next, subject, args)
		if r == nil || r.status != statusOpaque {
			return r, session, err
		}
		if err != nil {
			return nil, Session{}, err // it stays what it was
		}
		stored, number, err := s.store.cfg.encodeAgain(next, session.Codec, session.Data)
		if err != nil {
			return nil, Session{}, err
		}
		data, codec, version = stored, int64(number), session.Version
	}
	return nil, Session{}, ErrBusy
}

// renewOnce is one call of the function.
func (s *sessions) renewOnce(
	ctx context.Context, st statement, id, next ID, subject string, args []any,
) (*row, Session, error) {
	// Nobody can have the new id, but for whoever gets it from here: it needs neither a notification
	// nor, in a transaction of the caller's, a fence.
	w := write{s: s, id: next}
	if c := s.cache(); c != nil {
		w.op = c.Begin(cacheKey(next))
	}
	defer w.end()
	r := new(row)
	if err := s.one(ctx, st, args, r.written(s.store.cfg)...); err != nil {
		s.endedInDoubt(err, []ID{id}, "")
		return nil, Session{}, err
	}
	if err := s.tellEvicted(ctx, r, subject); err != nil {
		return nil, Session{}, err
	}
	switch r.status {
	case statusUpdated:
		s.audit(ctx, AuditEvent{Kind: AuditRenewed, ID: id, Successor: next, Subject: r.subject.String})
		s.tellEnded([]cache.Version{{Key: cacheKey(id), Version: r.version.Int64}}, nil, r.committed)
	case statusBusy, statusFull:
		return r, Session{}, nil
	case statusOpaque:
		next = id
	default:
		s.tellEnded(nil, []ID{id}, r.committed) // somebody was faster, who may not have been heard yet
		if !r.renewedTo.Valid {
			return r, Session{}, nil
		}
		next = ID(r.renewedTo.String)
	}
	session, err := s.store.session(next, r)
	if err == nil && r.status == statusUpdated && w.op != nil {
		w.op.Wrote(r.reply(session))
	}
	return r, session, err
}

const (
	// A token that was renewed and is used after its grace is reported once in this time.
	reuseInterval = time.Minute
	// maxReuses is how many such tokens are remembered.
	maxReuses = 1024
)

// reuses are the ids whose use after their grace was reported, and when.
type reuses struct {
	mu   sync.Mutex
	seen map[ID]time.Time
}

// first reports whether a use is to be reported.
func (r *reuses) first(id ID, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, ok := r.seen[id]; ok && now.Sub(at) < reuseInterval {
		return false
	}
	if r.seen == nil || len(r.seen) >= maxReuses {
		r.seen = make(map[ID]time.Time)
	}
	r.seen[id] = now
	return true
}

// statusError is the error that a status stands for. A token that was used after its grace is reported.
func (s *sessions) statusError(ctx context.Context, id ID, status string) error {
	if status == statusReused {
		s.store.stats.reused.Add(1)
		if s.store.reuses.first(id, time.Now()) {
			s.store.notify.log(ctx, slog.LevelWarn,
				"pgsession: a token that was renewed was used after its grace; it may have been stolen",
				slog.String("event", string(AuditReused)), slog.String("id", string(id)))
			s.store.notify.subscribers.emit(Event{Kind: EventReused, ID: id})
			s.recordReused(ctx, id)
		}
	}
	return statusError(status)
}
