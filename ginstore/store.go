// Package ginstore keeps the sessions of [gin-contrib/sessions] in a [pgsession.Store]. They are those of
// [gorillastore], whose documentation says what they do, with what gin adds.
//
//	store, err := ginstore.New(pg, gorillastore.Config{}, []byte(os.Getenv("SESSION_KEY")))
//	router.Use(sessions.Sessions("session", store))
//
// gin loads a session when a handler first asks for something in it, and where that fails it logs the
// error and goes on with an empty one. With other stores a handler that then saves logs the user out.
// Here Save returns the error of the load. [LoadError] tells a handler that only reads.
//
// Logging out is session.Clear and session.Save, as gin's own examples do, or a MaxAge below 0. gin's
// Options replace all of a session's: name the Path there too.
//
// [gin-contrib/sessions]: https://github.com/gin-contrib/sessions
package ginstore

import (
	"net/http"

	"github.com/gin-contrib/sessions"
	gorilla "github.com/gorilla/sessions"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/gorillastore"
)

// Store is a [sessions.Store]. Its methods may be called by many goroutines at once.
type Store struct{ *gorillastore.Store }

var _ sessions.Store = (*Store)(nil)

// New is [gorillastore.New].
func New(over pgsession.Sessions, config gorillastore.Config, keyPairs ...[]byte) (*Store, error) {
	store, err := gorillastore.New(over, config, keyPairs...)
	if err != nil {
		return nil, err
	}
	return &Store{store}, nil
}

// Options replaces what sessions that are loaded from now on begin with.
func (s *Store) Options(options sessions.Options) { s.SetOptions(*options.ToGorillaOptions()) }

// LoadError returns why a session could not be loaded, or nil. It loads the session, if nothing has yet.
//
//	if err := ginstore.LoadError(sessions.Default(c)); err != nil {
//		c.AbortWithStatus(http.StatusServiceUnavailable)
//	}
func LoadError(session sessions.Session) error {
	loaded := underlying(session)
	if loaded == nil {
		return nil
	}
	if store, ok := loaded.Store().(*gorillastore.Store); ok {
		return store.LoadError(loaded)
	}
	return nil
}

// Renew gives a session a new token with the next Save: at a login, so that a token from before it is
// worth nothing. What the session holds goes on.
func Renew(session sessions.Session) {
	if loaded := underlying(session); loaded != nil {
		loaded.ID = ""
		session.Delete(touched{}) // which is not there; gin's Save does nothing unless something was changed
	}
}

// touched is a key that no session has, except for one that could not be loaded. It is never stored.
type touched struct{}

// Get is [gorillastore.Store.Get]. gin's Clear of an empty session changes nothing, and its Save then
// does nothing: a logout would be reported that has not been. So one that could not be loaded is not
// empty, and Save returns the error of the load.
func (s *Store) Get(r *http.Request, name string) (*gorilla.Session, error) {
	session, err := s.Store.Get(r, name)
	if session != nil && s.LoadError(session) != nil {
		session.Values[touched{}] = true
	}
	return session, err
}

// underlying returns gorilla's session, which gin's type has a method for, though its interface does not.
func underlying(session sessions.Session) *gorilla.Session {
	s, ok := session.(interface{ Session() *gorilla.Session })
	if !ok {
		return nil
	}
	return s.Session()
}
