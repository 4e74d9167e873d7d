package main

import (
	"errors"
	"net/http"
	"time"

	"github.com/pgsession/pgsession"
)

const revokedNotice = "ErrRevoked: the session was ended meanwhile. Nothing was saved, and nothing comes back."

// visit counts a visit. The first makes the session: who only looks gets no cookie.
func (a *app) visit(w http.ResponseWriter, r *http.Request) error {
	_, err := a.sessions.Update(r.Context(), cookieToken(r), func(s *session) error {
		s.Value.Visits++
		return nil
	})
	if !gone(err) {
		return err
	}
	fresh := newSession(r)
	fresh.Value.Visits = 1
	token, _, err := a.sessions.Create(r.Context(), fresh)
	if err != nil {
		return err
	}
	setCookie(w, token)
	return nil
}

// visitSlowly counts a visit as handlers do that load the session when the request begins and save it
// when the request ends, and takes its time in between. What happens meanwhile must not be undone by
// the save: it carries the version that was loaded, so it never overwrites another one, and never
// brings back a session that was ended.
func (a *app) visitSlowly(w http.ResponseWriter, r *http.Request) error {
	s, err := a.load(r.Context(), r)
	if err != nil {
		return err
	}
	if s.ID == "" {
		return &refusal{http.StatusUnauthorized, "There is no session to save. Count a visit first."}
	}
	released := a.slow.wait()
	// An informational response, by which the tour knows that the session has been loaded.
	w.WriteHeader(http.StatusProcessing)
	impatience := time.NewTimer(slowest)
	defer impatience.Stop()
	select {
	case <-released:
	case <-impatience.C:
	case <-r.Context().Done():
		return r.Context().Err()
	}

	s.Value.Visits++
	_, err = a.sessions.Set(r.Context(), cookieToken(r), s)
	switch {
	case errors.Is(err, pgsession.ErrRevoked):
		return &refusal{http.StatusConflict, revokedNotice}
	case errors.Is(err, pgsession.ErrConflict):
		return &refusal{http.StatusConflict, "ErrConflict: the session was changed meanwhile. Nothing was saved."}
	case gone(err):
		return &refusal{http.StatusConflict, "ErrNotFound: the session expired meanwhile. Nothing was saved."}
	}
	return err
}

// release lets the slow requests of this server go.
func (a *app) release(w http.ResponseWriter, _ *http.Request) {
	a.slow.release()
	w.WriteHeader(http.StatusNoContent)
}

// newSession is the start of a session on the device that sent the request.
func newSession(r *http.Request) session {
	agent := userAgent(r)
	var s session
	s.Value.Device = deviceName(agent)
	s.Columns = map[string]any{userAgentColumn: agent}
	return s
}
