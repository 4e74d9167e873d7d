package gorillastore

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gorilla/securecookie"
	"github.com/gorilla/sessions"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/adapter"
	"github.com/pgsession/pgsession/internal/values"
)

// maxConflicts bounds the attempts of one Save to come after all the others.
const maxConflicts = 1000

// Save stores a session and sets its cookie. With Options.MaxAge below 0, or without values, it ends the
// session and deletes the cookie. With an error nothing was set, but for a renewal whose columns or timeouts could
// not be written: its cookie is set, since the token of before is dead.
func (s *Store) Save(r *http.Request, w http.ResponseWriter, session *sessions.Session) error {
	state := s.state(session)
	if state == nil { // made by sessions.NewSession
		state = s.remember(session)
	}
	options := session.Options
	if options == nil {
		options = s.options.Load()
	}
	if options.MaxAge < 0 || state.err == nil && len(session.Values) == 0 {
		return s.end(r, w, session, state, options)
	}
	if state.err != nil {
		return state.err
	}
	if session.ID != "" && session.ID != string(state.session.ID) {
		return fmt.Errorf("gorillastore: %w: Session.ID is not what the store has set", pgsession.ErrInvalid)
	}
	var err error
	before := state.token
	switch {
	case session.ID != "":
		err = s.update(r.Context(), session, state, options)
	case before != "":
		err = s.renew(r.Context(), session, state, options)
	default:
		err = s.create(r.Context(), session, state, options)
	}
	if err != nil && state.token == before {
		return err
	}
	// Where there is an error, it has a new token nevertheless: without it the user would be logged out.
	if cookieErr := s.setCookie(w, session, state, options); cookieErr != nil {
		return cookieErr
	}
	return err
}

func (s *Store) setCookie(
	w http.ResponseWriter, session *sessions.Session, state *state, options *sessions.Options,
) error {
	session.ID = string(state.session.ID)
	// By name and value, as every cookie of gorilla's: one session's is not taken for another's.
	cookie, err := securecookie.EncodeMulti(session.Name(), string(state.token), s.codecs...)
	if err != nil {
		return fmt.Errorf("gorillastore: the cookie %q: %w", session.Name(), err)
	}
	http.SetCookie(w, sessions.NewCookie(session.Name(), cookie, options))
	return nil
}

// end ends the session, where there is one, and deletes the cookie, where the browser has one.
func (s *Store) end(
	r *http.Request, w http.ResponseWriter, session *sessions.Session, state *state, options *sessions.Options,
) error {
	token := state.token
	if token == "" {
		token, _ = s.token(r, session.Name()) // one that cannot be verified ends nothing
	}
	if token != "" {
		if _, err := s.sessions.Destroy(r.Context(), token); err != nil && !errors.Is(err, pgsession.ErrInvalidToken) {
			return fmt.Errorf("gorillastore: %w", err)
		}
	} else if options.MaxAge >= 0 {
		return nil // a new session without values
	}
	state.token, state.session, state.err, session.ID = "", pgsession.Session{}, nil, ""
	gone := *options
	gone.MaxAge = -1
	http.SetCookie(w, sessions.NewCookie(session.Name(), "", &gone))
	return nil
}

// create stores a session that there was not.
func (s *Store) create(ctx context.Context, session *sessions.Session, state *state, options *sessions.Options) error {
	next, err := s.next(state.session, session)
	if err != nil {
		return err
	}
	next.IdleTimeout, next.AbsoluteTimeout = idleTimeout(options), 0
	token, stored, err := s.sessions.Create(ctx, next)
	if err != nil {
		return fmt.Errorf("gorillastore: %w", err)
	}
	state.token, state.session = token, stored
	return nil
}

// renew stores a session under a new token, in place of the one that it had before. Not by Create and Destroy: under
// Config.MaxPerSubject a renewal must not need room for two, and what one failed at would be lost.
func (s *Store) renew(ctx context.Context, session *sessions.Session, state *state, options *sessions.Options) error {
	next, err := s.next(state.session, session)
	if err != nil {
		return err
	}
	unchanged := values.Equal(state.session.Data, next.Data, decode)
	token, stored, err := adapter.Renew(ctx, s.sessions, string(state.token), state.session,
		func(current *pgsession.Session) error {
			if !unchanged || current.Version == state.session.Version {
				current.Data, current.Codec = next.Data, next.Codec
				if s.config.Subject != nil {
					current.Subject = next.Subject
				}
			}
			current.Columns, current.IdleTimeout = next.Columns, idleTimeout(options)
			return nil
		})
	renewed, _ := stored.(pgsession.Session)
	if errors.Is(err, pgsession.ErrInDoubt) && renewed.ID == "" && token != "" {
		if there, getErr := s.sessions.GetFresh(ctx, pgsession.Token(token)); getErr == nil {
			renewed, err = there, nil
		}
	}
	if token != "" && renewed.ID != "" {
		state.token, state.session = pgsession.Token(token), renewed
	}
	return settled(err)
}

// update stores a session over what is there.
func (s *Store) update(ctx context.Context, session *sessions.Session, state *state, options *sessions.Options) error {
	next, err := s.next(state.session, session)
	if err != nil {
		return err
	}
	unchanged := values.Equal(state.session.Data, next.Data, decode)
	next.AbsoluteTimeout = 0 // keep
	if next.IdleTimeout = idleTimeout(options); next.IdleTimeout == state.session.IdleTimeout {
		next.IdleTimeout = 0
	}
	if unchanged && next.IdleTimeout == 0 {
		_, err := s.sessions.Touch(ctx, state.token)
		return settled(err)
	}
	for attempt := 1; ; attempt++ {
		stored, err := s.sessions.Set(ctx, state.token, next)
		if !errors.Is(err, pgsession.ErrConflict) || stored.Version == 0 || attempt == maxConflicts {
			if err = settled(err); err == nil {
				state.session = stored
			}
			return err
		}
		next.Version = stored.Version
		if unchanged {
			next.Data, next.Codec, next.Subject = stored.Data, stored.Codec, stored.Subject
			next.Columns = nil // keep
		} else if s.config.Subject == nil {
			next.Subject = stored.Subject
		}
	}
}

// next is the session to write in place of what was loaded; its timeouts are left to the caller.
func (s *Store) next(loaded pgsession.Session, session *sessions.Session) (pgsession.Session, error) {
	data, err := values.Marshal(nil, session.Values)
	if err != nil {
		return pgsession.Session{}, fmt.Errorf("gorillastore: session %q: %w", session.Name(), err)
	}
	next := loaded
	next.Data, next.Codec, next.Columns = data, pgsession.CodecOpaque, nil
	if s.config.Subject != nil {
		next.Subject = s.config.Subject(session.Values)
	}
	if s.config.Columns != nil {
		next.Columns = s.config.Columns(session.Values)
	}
	return next, nil
}

// decode reads what Save wrote, or a gob of the values, which is what other stores' sessions are
// imported as.
func decode(data []byte) (map[any]any, error) {
	decoded := make(map[any]any)
	switch {
	case len(data) == 0:
	case !values.Is(data):
		if err := gob.NewDecoder(bytes.NewReader(data)).Decode(&decoded); err != nil {
			return nil, fmt.Errorf("the data is not a session of gorilla's: %w", err)
		}
	default:
		_, v, err := values.Unmarshal(data)
		if err != nil {
			return nil, err
		}
		m, ok := v.(map[any]any)
		if !ok {
			return nil, errors.New("the data is not a session of gorilla's")
		}
		if m != nil {
			decoded = m
		}
	}
	return decoded, nil
}

// idleTimeout is what MaxAge asks for; 0 leaves it to the store, or keeps it.
func idleTimeout(options *sessions.Options) time.Duration {
	const most = 99 * 365 * 24 * 60 * 60 // the store takes a hundred years
	return time.Duration(min(options.MaxAge, most)) * time.Second
}

// settled makes gorilla's of a write's error. A session that is not there any more was ended or has
// expired since it was loaded. One that was written and not yet published is written.
func settled(err error) error {
	switch {
	case err == nil, errors.Is(err, pgsession.ErrUnpublished):
		return nil
	case errors.Is(err, pgsession.ErrNotFound):
		return fmt.Errorf("gorillastore: %w: %w", pgsession.ErrRevoked, err)
	}
	return fmt.Errorf("gorillastore: %w", err)
}
