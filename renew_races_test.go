package pgsession_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
)

// before is a QueryFunc that calls f, once, before the n-th call of a function of the store.
func before(next pgsession.QueryFunc, function string, n int, f func()) pgsession.QueryFunc {
	return func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
		if strings.Contains(sql, `."session_`+function+`"(`) {
			if n--; n == 0 {
				f()
			}
		}
		return next(ctx, sql, args...)
	}
}

func TestAnOldTokenDoesNotRideAlongWithALoginThatComesBetween(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	ctx := t.Context()
	for what, use := range map[string]struct {
		function string
		n        int
		call     func(store *pgsession.Store, old pgsession.Token) (pgsession.Session, error)
	}{
		"update": {"set", 1, func(store *pgsession.Store, old pgsession.Token) (pgsession.Session, error) {
			return store.Update(ctx, old, func(s *pgsession.Session) error {
				if s.Subject != "" {
					t.Errorf("update by the old token was given the session of %s", s.Subject)
				}
				s.Data = []byte(`{"planted":true}`)
				return nil
			})
		}},
		"patch": {"patch", 2, func(store *pgsession.Store, old pgsession.Token) (pgsession.Session, error) {
			return store.Patch(ctx, old, []byte(`{"planted":true}`))
		}},
		"renew": {"renew", 2, func(store *pgsession.Store, old pgsession.Token) (pgsession.Session, error) {
			token, s, err := store.Renew(ctx, old, pgsession.Renewal{Subject: "eve"})
			if token != "" {
				t.Error("renew by the old token returned a token")
			}
			return s, err
		}},
	} {
		old, _ := w.create(t, pgsession.Session{Data: []byte(`{}`), Codec: pgsession.CodecJSON})
		token, _ := w.renew(t, old, "")
		login := func() {
			_, err := w.Update(ctx, token, func(s *pgsession.Session) error {
				s.Subject, s.Data = "ada", []byte(`{"hers":true}`)
				return nil
			})
			must(t, err)
		}
		store, err := pgsession.New(before(w.query, use.function, use.n, login), pgsession.Config{Schema: w.schema})
		must(t, err)
		s, err := use.call(store, old)
		if !errors.Is(err, pgsession.ErrNotFound) && !errors.Is(err, pgsession.ErrRenewed) || s.Subject != "" || s.ID != "" {
			t.Errorf("%s by the old token: %+v, %v", what, s, err)
		}
		if s, err := w.Get(ctx, token); err != nil || s.Subject != "ada" || string(s.Data) != `{"hers":true}` {
			t.Errorf("%s: after it the session is %+v, %v", what, s, err)
		}
	}
}

func TestARevocationOfAllButOneSparesItThoughItIsBeingRenewed(t *testing.T) {
	t.Parallel()
	for what, revocation := range map[string]pgsession.Revocation{
		"everyone": {Everyone: true}, "a subject": {Subject: "ada"},
	} {
		w, other := onTwoPools(t, pgsession.Config{RenewGrace: -1})
		w.seed(t, 200, "others", "ada", 1)
		token, s := w.create(t, pgsession.Session{Subject: "ada"})
		revocation.Except = []pgsession.ID{s.ID}
		// So many and no more: each is one more link to follow for the revocation.
		renewed := make(chan struct{})
		go func() {
			defer close(renewed)
			for range 1000 {
				next, _, err := other.Renew(t.Context(), token, pgsession.Renewal{})
				if err != nil {
					t.Errorf("%s: renewing what was to stay: %v", what, err)
					return
				}
				token = next
			}
		}()
		defer func() { <-renewed }()
		for done := false; !done; {
			select {
			case <-renewed:
				done = true
			default:
			}
			_, err := w.Revoke(t.Context(), revocation)
			must(t, err)
		}
	}
}
