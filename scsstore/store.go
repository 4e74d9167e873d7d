// Package scsstore keeps the sessions of [scs] in a [pgsession.Store].
//
//	manager := scs.New()
//	manager.Store, err = scsstore.New(store, scsstore.Options{})
//	manager.Codec = scsstore.Codec{}
//	manager.ErrorFunc = scsstore.ErrorFunc(nil)
//
// # What never comes back
//
// With scs's IdleTimeout every request saves the session that it loaded, a request that only read it as
// well. In other stores such a request, if it outlives the logout or the RenewToken of another one,
// brings the dead session back. Here its Commit is [pgsession.ErrRevoked], which [ErrorFunc] ignores:
// the response goes out as it is, and without a cookie, so that it does not overwrite the browser's.
//
// That has no time limit for what a request loads and commits under one context, as net/http's requests
// do. Under a context that never ends, such as [context.Background], it holds for as long as
// [pgsession.Config].Tombstone.
//
// A Commit that changes nothing is answered from the store's cache, where that is live: of an end on
// another instance it knows a notification's way later.
//
// # Who decides when a session ends
//
// scs does, by the expiry that it passes with each Commit; the server's clock measures it. The time
// from now to the deadline that scs keeps in the data is the session's absolute timeout, from when it is
// created on, and moves when SetDeadline moves it. Where scs's expiry is earlier than that deadline,
// the time from now to it is the idle timeout. The [pgsession.Config] has no say, but for its
// Timeouts. A change of the manager's IdleTimeout of less than a hundredth reaches only new sessions.
//
// # RenewToken
//
// scs renews a token by Delete and Commit, which a store cannot tell from a logout and a new session. So
// the old token is dead at once: requests that were sent with it before its successor came find no
// session, and what is theirs alone, such as a flash message, is lost. There can be no grace for them. For
// the same reason a RenewToken whose session was ended while its request was under way makes a new
// session with the old values: ask again who the user is, as at a login, before it. Under
// [pgsession.Config].MaxPerSubject the new session has the old one's room; but a login that finds none, with
// [pgsession.OverflowReject], is refused when the session of before has ended already.
//
// # Iterate
//
// scs lists sessions by their tokens, which are not in the database. [Store.All] gives keys instead
// that begin with "id:", which Delete and Commit take in a token's place and Find does not: what is in
// the database is not enough to log in. So Destroy, and Put with Commit, work inside Iterate, while
// MergeSession with such a key finds nothing. SessionManager.HashTokenInStore would hash the keys of
// Iterate too, and end nothing; leave it off, since tokens are hashed in any case.
//
// [scs]: https://github.com/alexedwards/scs
package scsstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/alexedwards/scs/v2"

	"github.com/pgsession/pgsession"
)

// Options configure a [Store]. The zero value works.
type Options struct {
	// Codec is the manager's, if it is neither [Codec] nor [scs.GobCodec]: the store reads deadlines, and
	// what Subject and Columns ask for, from the data.
	//
	// Defaults to Codec{}, which reads what either of them wrote.
	Codec scs.Codec

	// Subject returns whom a session belongs to, from its values: a user id, or "" for nobody. It is
	// called when a changed session is committed, by many goroutines at once, and must not keep or
	// change the map.
	//
	// Defaults to nil: new sessions are anonymous, others keep what they have.
	Subject func(values map[string]any) string

	// Columns returns the promoted columns of a session: see [pgsession.Session]. It is called as Subject
	// is.
	//
	// Defaults to nil: columns keep what they have.
	Columns func(values map[string]any) map[string]any
}

// Store is an [scs.Store], [scs.CtxStore], [scs.IterableStore] and [scs.IterableCtxStore]. Its methods
// may be called by many goroutines at once. Errors are a [*pgsession.Error]'s, wrapped.
type Store struct {
	sessions pgsession.Sessions
	options  Options
	loads    loads
}

var (
	_ scs.CtxStore         = (*Store)(nil)
	_ scs.IterableStore    = (*Store)(nil)
	_ scs.IterableCtxStore = (*Store)(nil)
)

// New returns a store over sessions: a [pgsession.Store] or [pgsession.Tx], or what embeds one.
func New(sessions pgsession.Sessions, options Options) (*Store, error) {
	if sessions == nil {
		return nil, fmt.Errorf("scsstore: %w: the sessions are nil", pgsession.ErrInvalid)
	}
	if options.Codec == nil {
		options.Codec = Codec{}
	}
	return &Store{sessions: sessions, options: options}, nil
}

// ErrorFunc returns an [scs.SessionManager]'s ErrorFunc that ignores [pgsession.ErrRevoked]: the session
// was ended while the request was under way, there is nothing left to save, and the cookie is that of
// whoever ended it. Everything else goes to next; nil does what scs does, log it and answer 500.
func ErrorFunc(next func(http.ResponseWriter, *http.Request, error)) func(http.ResponseWriter, *http.Request, error) {
	if next == nil {
		next = func(w http.ResponseWriter, r *http.Request, err error) {
			slog.ErrorContext(r.Context(), "session", slog.Any("error", err))
			http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		}
	}
	return func(w http.ResponseWriter, r *http.Request, err error) {
		if !errors.Is(err, pgsession.ErrRevoked) {
			next(w, r, err)
		}
	}
}

// idPrefix begins the keys that stand for a session's id. No token that scs makes has a colon.
const idPrefix = "id:"

// FindCtx returns the data of a live session. A key of [Store.AllCtx] finds nothing.
func (s *Store) FindCtx(ctx context.Context, token string) (b []byte, found bool, err error) {
	if strings.HasPrefix(token, idPrefix) {
		return nil, false, nil
	}
	session, err := s.sessions.Get(ctx, pgsession.Token(token))
	switch {
	case errors.Is(err, pgsession.ErrNotFound):
		return nil, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("scsstore: %w", err)
	}
	b = session.Data
	session.Data = unshared(b)
	s.loads.add(ctx, token, session)
	return b, true, nil
}

// DeleteCtx ends a session: by its token, or by a key of [Store.AllCtx]. That there is none is no error.
func (s *Store) DeleteCtx(ctx context.Context, token string) error {
	if err := s.end(ctx, token); err != nil {
		return fmt.Errorf("scsstore: %w", err)
	}
	return nil
}

func (s *Store) end(ctx context.Context, token string) error {
	if id, ok := strings.CutPrefix(token, idPrefix); ok {
		_, err := s.sessions.Revoke(ctx, pgsession.Revocation{IDs: []pgsession.ID{pgsession.ID(id)}})
		return err
	}
	_, err := s.sessions.Destroy(ctx, pgsession.Token(token))
	if errors.Is(err, pgsession.ErrInvalidToken) {
		return nil
	}
	return err
}

// AllCtx returns the data of all live sessions, in memory at once, as scs wants it. The keys are
// [pgsession.ID]s behind the prefix "id:". [pgsession.Config].AppRole may not list all sessions.
func (s *Store) AllCtx(ctx context.Context) (map[string][]byte, error) {
	all := make(map[string][]byte)
	for session, err := range s.sessions.All(ctx, pgsession.Filter{}) {
		if err != nil {
			return nil, fmt.Errorf("scsstore: %w", err)
		}
		all[idPrefix+string(session.ID)] = session.Data
	}
	return all, nil
}

// Find is [Store.FindCtx] without a context.
func (s *Store) Find(token string) (b []byte, found bool, err error) {
	return s.FindCtx(context.Background(), token)
}

// Delete is [Store.DeleteCtx] without a context.
func (s *Store) Delete(token string) error { return s.DeleteCtx(context.Background(), token) }

// All is [Store.AllCtx] without a context.
func (s *Store) All() (map[string][]byte, error) { return s.AllCtx(context.Background()) }
