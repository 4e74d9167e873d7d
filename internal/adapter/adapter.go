// Package adapter is what the adapters to frameworks may do with sessions and applications may not:
// their frameworks bring tokens and keys of their own. The root package sets the functions; the
// arguments and results that are any here have the root's types, which this package cannot import.
//
// The adapters are modules of their own, and released ones are built with this package of other versions of
// the root, older and younger: what is here keeps its meaning, and is only added to.
package adapter

import "context"

// Insert is Sessions.Create under a token that the framework made, also of a session with nothing to store:
// the framework knows why. Where there is a session already it
// writes nothing, and is ErrConflict with that session, or ErrRevoked if it was ended.
//
// sessions is a pgsession.Sessions; session and the result are a pgsession.Session.
var Insert func(ctx context.Context, sessions any, token string, session any) (any, error)

// UpdateID is Sessions.Update by the session's id, for a framework that lists sessions and writes one of
// them back. Like that it never creates a session.
//
// sessions is a pgsession.Sessions; change is a func(*pgsession.Session) error.
var UpdateID func(ctx context.Context, sessions any, id string, change any) error

// Renew is Sessions.Renew that changes the session in the same call, as Sessions.Update does: change is called with
// the session as it was loaded, and again with what is there, if that was changed meanwhile. The old token is dead
// at once, whatever Config.RenewGrace says: frameworks renew at logins, of which the store need not know. An idle
// timeout that change sets to 0 becomes Config.IdleTimeout; the absolute deadline stays.
//
// Subject and data change with the token, or not at all. The function in the database does not take the rest, columns
// and timeouts and that a session is nobody's from now on, which a second call writes where it differs. So a token may
// come with an error, as from Sessions.Renew: it took the old one's place, or with ErrInDoubt it may have.
//
// sessions is a pgsession.Sessions; loaded and the result are a pgsession.Session, and change is a
// func(*pgsession.Session) error.
var Renew func(ctx context.Context, sessions any, token string, loaded, change any) (next string, stored any, err error)

// Columns is the argument that the functions in the database take for Session.Columns: a JSON text, or nil where there
// are none. It is for package movein, which inserts sessions by a statement of its own.
var Columns func(values map[string]any) (any, error)
