package pgsession_test

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/adapter"
)

func TestAnAdapterInsertsUnderATokenOfItsOwnOnlyWhereThereIsNone(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		insert := func(token string, s pgsession.Session) (pgsession.Session, error) {
			stored, err := adapter.Insert(t.Context(), w.Sessions, token, s)
			return stored.(pgsession.Session), err
		}
		first, err := insert("own", pgsession.Session{Subject: "ada", Data: []byte("1"), AbsoluteTimeout: time.Hour})
		must(t, err)
		there, err := insert("own", pgsession.Session{Data: []byte("2")})
		wantError(t, "a second insert", err, pgsession.ErrConflict)
		if !reflect.DeepEqual(there, first) {
			t.Errorf("the conflict shows %+v, want %+v", there, first)
		}
		_, err = w.Destroy(t.Context(), "own")
		must(t, err)
		_, err = insert("own", pgsession.Session{})
		wantError(t, "an insert after the end", err, pgsession.ErrRevoked)
		_, err = insert("", pgsession.Session{})
		wantError(t, "an empty token", err, pgsession.ErrInvalidToken)
	})
}

func TestAnAdapterUpdatesByTheIDAndCreatesNothing(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		token, session := w.create(t, pgsession.Session{Data: []byte("1")})
		update := func(id pgsession.ID) error {
			return adapter.UpdateID(t.Context(), w.Sessions, string(id), func(s *pgsession.Session) error {
				s.Data = append(s.Data, '2')
				return nil
			})
		}
		must(t, update(session.ID))
		if got, err := w.Get(t.Context(), token); err != nil || string(got.Data) != "12" {
			t.Errorf("got %+v, %v", got, err)
		}
		wantError(t, "a token in the id's place", update(pgsession.ID(token)), pgsession.ErrNotFound)
		wantError(t, "no id", update(""), pgsession.ErrInvalid)
		_, err := w.Destroy(t.Context(), token)
		must(t, err)
		wantError(t, "an update after the end", update(session.ID), pgsession.ErrNotFound)
	})
}

func TestAnAdapterRenewsAndChangesInOneCall(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{IdleTimeout: 3 * time.Hour}, func(t *testing.T, w *way) {
		renew := func(token pgsession.Token, loaded pgsession.Session, subject string) (pgsession.Token, pgsession.Session, error) {
			change := func(s *pgsession.Session) error {
				s.Subject, s.IdleTimeout = subject, 0
				s.Data = append(s.Data, '2')
				return nil
			}
			next, stored, err := adapter.Renew(t.Context(), w.Sessions, string(token), loaded, change)
			return pgsession.Token(next), stored.(pgsession.Session), err
		}
		token, loaded := w.create(t, pgsession.Session{Data: []byte("1"), IdleTimeout: time.Hour})
		_, err := w.Update(t.Context(), token, func(s *pgsession.Session) error { s.Data = []byte("a"); return nil })
		must(t, err)
		for _, subject := range []string{"ada", "ada", ""} { // a login, a renewal, nobody's from now on
			next, stored, err := renew(token, loaded, subject)
			must(t, err)
			got, err := w.GetFresh(t.Context(), next)
			must(t, err)
			if !reflect.DeepEqual(got, stored) {
				t.Errorf("got %+v, it returned %+v", got, stored)
			}
			if got.Subject != subject || got.IdleTimeout != 3*time.Hour || !got.CreatedAt.Equal(loaded.CreatedAt) {
				t.Errorf("as %q it is %+v", subject, got)
			}
			_, err = w.Get(t.Context(), token)
			wantError(t, "the old token", err, pgsession.ErrNotFound)
			_, _, err = renew(token, loaded, subject)
			wantError(t, "a second renewal of the old token", err, pgsession.ErrRevoked)
			token, loaded = next, got
		}
		if string(loaded.Data) != "a222" {
			t.Errorf("the data is %q", loaded.Data)
		}
		_, err = w.Destroy(t.Context(), token)
		must(t, err)
		_, _, err = renew(token, loaded, "ada")
		wantError(t, "a renewal after the end", err, pgsession.ErrRevoked)
		_, _, err = renew("another", loaded, "ada")
		wantError(t, "a renewal by a token that is not the session's", err, pgsession.ErrNotFound)
	})
}

func TestAnAdapterTakesWhatEmbedsAStoreAndNothingElse(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	_, err := adapter.Insert(t.Context(), struct{ *pgsession.Store }{w.store}, "own", pgsession.Session{})
	must(t, err)
	other := struct{ pgsession.Sessions }{w.store}
	_, err = adapter.Insert(t.Context(), other, "another", pgsession.Session{})
	wantError(t, "an insert", err, pgsession.ErrInvalid)
	err = adapter.UpdateID(context.Background(), other, "id", func(*pgsession.Session) error { return nil })
	wantError(t, "an update", err, pgsession.ErrInvalid)
	_, _, err = adapter.Renew(t.Context(), other, "another", pgsession.Session{}, func(*pgsession.Session) error { return nil })
	wantError(t, "a renewal", err, pgsession.ErrInvalid)
}
