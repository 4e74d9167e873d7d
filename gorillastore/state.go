package gorillastore

import (
	"runtime"
	"weak"

	"github.com/gorilla/sessions"

	"github.com/pgsession/pgsession"
)

// state is what the store knows about one of gorilla's sessions, whose type has no room for it: Values
// and Options are the application's to replace, and the store that a session names is the registry's to
// set. So states are kept beside, by the session's address, for as long as the session is in use.
type state struct {
	token   pgsession.Token
	session pgsession.Session // as it was loaded or saved last; Version 0: never
	err     error             // why it could not be loaded
}

// remember gives a session a state.
func (s *Store) remember(session *sessions.Session) *state {
	key, state := weak.Make(session), new(state)
	s.states.Store(key, state)
	runtime.AddCleanup(session, func(key weak.Pointer[sessions.Session]) { s.states.Delete(key) }, key)
	return state
}

// state returns a session's state; nil if the store did not make the session.
func (s *Store) state(session *sessions.Session) *state {
	if known, ok := s.states.Load(weak.Make(session)); ok {
		return known.(*state)
	}
	return nil
}
