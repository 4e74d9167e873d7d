// Package adapter is what the adapters to frameworks may do with sessions and applications may not:
// their frameworks bring tokens and keys of their own. The root package sets the functions; the
// arguments and results that are any here have the root's types, which this package cannot import.
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
