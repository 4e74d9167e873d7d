// Package gorillastore keeps the sessions of [gorilla/sessions] in a [pgsession.Store], and so those of
// what is built on it, as echo's session middleware.
//
//	store, err := gorillastore.New(pg, gorillastore.Config{}, []byte(os.Getenv("SESSION_KEY")))
//	session, err := store.Get(r, "session")
//	session.Values["user"] = "ada"
//	err = session.Save(r, w)
//
// The cookie holds the session's token, signed by [securecookie], whose limit of 4,096 bytes does not
// concern the data: [pgsession.Config].MaxDataSize does. Session.ID is the [pgsession.ID], which is safe
// to show and to log.
//
// # Saving
//
// Of saves that collide the last one wins, but one that changed nothing never overwrites one that did:
// it is a touch. A session that was ended meanwhile, or has expired, is not brought back: Save returns
// [pgsession.ErrRevoked] and sets no cookie. A handler may ignore that, the user has logged out. A save
// that changes nothing is answered from the store's cache, where that is live: of an end on another
// instance it knows a notification's way later.
//
// An empty session is not kept: saving a new one writes nothing and sets no cookie, and saving one that
// was emptied ends it, as Options.MaxAge below 0 does.
//
// To renew the token, at a login, empty Session.ID before Save: what the session holds goes on under a
// new token, and the one before is dead at once, whatever [pgsession.Config].RenewGrace says. It is the same session
// with the absolute deadline that it has, and so never one more of [pgsession.Config].MaxPerSubject; a login is, and where there
// is no room for it, the session of before stays. What comes by the old token afterwards, if only a request that was
// slow, is a [pgsession.EventReused], but for a while after a login that changes the Subject.
//
// # When it could not be loaded
//
// Get and New return a new session beside an error, as gorilla demands, and handlers that ignore errors
// would save that over the user's. So where the database did not answer, or the data could not be
// decoded, Save returns the error of the load, and nobody is logged out by an outage. A cookie that
// cannot be verified is an error of Get and New too, but no hindrance: Save replaces it.
//
// # When sessions end
//
// Options.MaxAge above 0 is the session's idle timeout, counted from the last Save, as the cookie's is.
// With 0, a cookie for as long as the browser runs, a new or renewed session has Config.IdleTimeout of the
// pgsession.Store, and any other the timeout that it has: renew it, at a login without "remember me", to be rid of a longer
// one. Config.AbsoluteTimeout, which gorilla does not know, ends sessions after 30 days, renewed ones as well; -1
// switches that off.
//
// [gorilla/sessions]: https://github.com/gorilla/sessions
package gorillastore

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/gorilla/securecookie"
	"github.com/gorilla/sessions"

	"github.com/pgsession/pgsession"
)

// Config configures a [Store]. The zero value works.
type Config struct {
	// Options are what new sessions begin with. Each session has a copy of its own. Set Secure where
	// the site is served over HTTPS.
	//
	// Defaults to Path "/", MaxAge 30 days, HttpOnly, and SameSite Lax.
	Options *sessions.Options

	// Subject returns whom a session belongs to, from its values: a user id, or "" for nobody. It is
	// called when a changed session is saved, by many goroutines at once, and must not keep or change
	// the map.
	//
	// Defaults to nil: new sessions are anonymous, others keep what they have.
	Subject func(values map[any]any) string

	// Columns returns the promoted columns of a session: see [pgsession.Session]. It is called as Subject
	// is.
	//
	// Defaults to nil: columns keep what they have.
	Columns func(values map[any]any) map[string]any
}

// Store is a [sessions.Store]. Its methods may be called by many goroutines at once; a session is one
// request's, as everywhere in gorilla/sessions.
type Store struct {
	sessions pgsession.Sessions
	config   Config
	codecs   []securecookie.Codec
	options  atomic.Pointer[sessions.Options]
	states   sync.Map // weak.Pointer[sessions.Session] -> *state
}

var _ sessions.Store = (*Store)(nil)

// New returns a store over sessions: a [pgsession.Store] or [pgsession.Tx], or what embeds one. The keys are gorilla's: pairs
// of one to sign the cookie, of 32 or 64 bytes, and one to encrypt it, of 16, 24 or 32 bytes, nil, or
// left out in the last pair. The first pair is for new cookies; the others are those of before, and
// are still accepted. A key that cannot be used is an error.
func New(over pgsession.Sessions, config Config, keyPairs ...[]byte) (*Store, error) {
	if over == nil {
		return nil, fmt.Errorf("gorillastore: %w: the sessions are nil", pgsession.ErrInvalid)
	}
	if len(keyPairs) == 0 {
		return nil, fmt.Errorf("gorillastore: %w: no key to sign cookies by", pgsession.ErrInvalid)
	}
	s := &Store{sessions: over, config: config, codecs: securecookie.CodecsFromPairs(keyPairs...)}
	for i, codec := range s.codecs {
		if cookie, ok := codec.(*securecookie.SecureCookie); ok {
			cookie.MaxAge(0) // the database knows when a session ends, whatever its Options
		}
		if _, err := codec.Encode("name", "value"); err != nil {
			return nil, fmt.Errorf("gorillastore: %w: key pair %d: %w", pgsession.ErrInvalid, i+1, err)
		}
	}
	options := sessions.Options{Path: "/", MaxAge: 30 * 86400, HttpOnly: true, SameSite: http.SameSiteLaxMode}
	if config.Options != nil {
		options = *config.Options
	}
	s.SetOptions(options)
	return s, nil
}

// SetOptions replaces what sessions that are loaded from now on begin with.
func (s *Store) SetOptions(options sessions.Options) { s.options.Store(&options) }

// MaxAge replaces the MaxAge of what sessions that are loaded from now on begin with, in seconds.
func (s *Store) MaxAge(age int) {
	for {
		before := s.options.Load()
		options := *before
		options.MaxAge = age
		if s.options.CompareAndSwap(before, &options) {
			return
		}
	}
}

// Get returns the session of a name, the same for all of a request. It is new where there is none, and
// never nil but for a name that no cookie can have. The error says that it could not be loaded; what
// that means for Save the package's documentation says.
func (s *Store) Get(r *http.Request, name string) (*sessions.Session, error) {
	return sessions.GetRegistry(r).Get(s, name)
}

// New is Get of a session that only the caller has. It is never nil.
func (s *Store) New(r *http.Request, name string) (*sessions.Session, error) {
	session := sessions.NewSession(s, name)
	options := *s.options.Load()
	session.Options = &options
	session.IsNew = true
	state := s.remember(session)
	token, err := s.token(r, name)
	if token == "" {
		return session, err
	}
	loaded, err := s.sessions.Get(r.Context(), token)
	if errors.Is(err, pgsession.ErrNotFound) {
		return session, nil
	}
	state.token = token
	if err == nil {
		session.Values, err = decode(loaded.Data)
	}
	if err != nil {
		session.Values = make(map[any]any)
		state.err = fmt.Errorf("gorillastore: the session could not be loaded: %w", err)
		return session, state.err
	}
	state.session = loaded
	session.ID = string(loaded.ID)
	session.IsNew = false
	return session, nil
}

// token returns the token of a request's cookie, and an error for a cookie that cannot be verified.
func (s *Store) token(r *http.Request, name string) (pgsession.Token, error) {
	cookie, err := r.Cookie(name)
	if err != nil {
		return "", nil //nolint:nilerr // there is none
	}
	var token string
	if err := securecookie.DecodeMulti(name, cookie.Value, &token, s.codecs...); err != nil {
		return "", fmt.Errorf("gorillastore: the cookie %q: %w", name, err)
	}
	return pgsession.Token(token), nil
}

// LoadError returns why a session could not be loaded, or nil. Get and New return it too; it is for
// frameworks that hide what they return.
func (s *Store) LoadError(session *sessions.Session) error {
	if state := s.state(session); state != nil {
		return state.err
	}
	return nil
}
