package pgsession_test

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
)

func TestDataComesBackByteForByte(t *testing.T) {
	t.Parallel()
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		for name, data := range map[string][]byte{
			"nil": nil, "empty": {}, "one byte": {'x'}, "NUL": {0}, "1 MiB": bytes.Repeat(every, 1<<12),
			"every byte": every, "invalid UTF-8": []byte("a\xff\xfeb\xc3"), "a backslash": []byte(`\x41\`),
			"Japanese": []byte("セッション"), "Hindi": []byte("सत्र"), "Hebrew": []byte("הפעלה"),
		} {
			token, created := w.create(t, pgsession.Session{Data: data})
			created.Data = []byte("something else")
			set, err := w.Set(t.Context(), token, created)
			must(t, err)
			set.Data = data
			_, err = w.Set(t.Context(), token, set)
			must(t, err)
			got, err := w.Get(t.Context(), token)
			if err != nil || !bytes.Equal(got.Data, data) {
				t.Errorf("%s: %d bytes came back as %d, %v", name, len(data), len(got.Data), err)
			}
		}
	})
}

func TestSetReplacesAndMindsTheVersion(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		ctx, token := t.Context(), pgsession.Token("brought along \x00\xff")
		_, err := w.Get(ctx, token)
		wantError(t, "get of a missing session", err, pgsession.ErrNotFound)
		_, err = w.Set(ctx, token, pgsession.Session{Version: 1})
		wantError(t, "set of a loaded session that is missing", err, pgsession.ErrNotFound)
		_, err = w.Update(ctx, token, func(*pgsession.Session) error { return nil })
		wantError(t, "update of a missing session", err, pgsession.ErrNotFound)
		if row := w.row(t, token); row != "" {
			t.Fatalf("a session was made of nothing: %s", row)
		}

		first, err := w.Set(ctx, token, pgsession.Session{Subject: "ada", Data: []byte("1")})
		must(t, err)
		second, err := w.Set(ctx, token, pgsession.Session{Subject: "bob", Data: []byte("2")})
		must(t, err)
		if second.Version <= first.Version || !second.CreatedAt.Equal(first.CreatedAt) {
			t.Errorf("replaced %+v by %+v", first, second)
		}
		same, err := w.Set(ctx, token, pgsession.Session{Subject: "bob", Data: []byte("2")})
		if err != nil || same.Version != second.Version {
			t.Errorf("a set that changes nothing: version %d, %v; want %d", same.Version, err, second.Version)
		}

		first.Data = []byte("3")
		there, err := w.Set(ctx, token, first)
		wantError(t, "set of an old version", err, pgsession.ErrConflict)
		if !reflect.DeepEqual(there, second) {
			t.Errorf("the conflict shows %+v, want %+v", there, second)
		}
		_, err = w.Set(ctx, token, pgsession.Session{Version: -1})
		wantError(t, "a negative version", err, pgsession.ErrInvalid)
		if got, err := w.Get(ctx, token); err != nil || !reflect.DeepEqual(got, second) {
			t.Errorf("got %+v, %v; want %+v", got, err, second)
		}
	})
}

func TestUpdateWritesWhatItsFunctionLeaves(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		token, _ := w.create(t, pgsession.Session{Data: []byte("1")})
		updated, err := w.Update(t.Context(), token, func(s *pgsession.Session) error {
			s.Subject, s.Data = "ada", append(s.Data, '2')
			return nil
		})
		must(t, err)
		before, refused := w.row(t, token), errors.New("refused")
		_, err = w.Update(t.Context(), token, func(s *pgsession.Session) error {
			s.Data = nil
			return refused
		})
		wantError(t, "an update whose function fails", err, refused)
		_, err = w.Update(t.Context(), token, nil)
		wantError(t, "a nil function", err, pgsession.ErrInvalid)
		if after := w.row(t, token); after != before {
			t.Errorf("a failed update changed %s to %s", before, after)
		}
		got, err := w.Get(t.Context(), token)
		if err != nil || got.Subject != "ada" || string(got.Data) != "12" || !reflect.DeepEqual(got, updated) {
			t.Errorf("got %+v, %v; want %+v", got, err, updated)
		}
	})
}

func TestViewLendsTheSessionAndReturnsItsFunctionsError(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	token, _ := w.create(t, pgsession.Session{Data: []byte("1")})
	own := errors.New("the function's own")
	err := w.View(t.Context(), token, func(s pgsession.Session) error {
		if string(s.Data) != "1" {
			t.Errorf("lent %+v", s)
		}
		return own
	})
	if err != own { //nolint:errorlint // as it is, not wrapped
		t.Errorf("the error is %v, want the function's as it is", err)
	}
	err = w.View(t.Context(), "missing", func(pgsession.Session) error { panic("called") })
	wantError(t, "view of a missing session", err, pgsession.ErrNotFound)
}

func TestDestroyEndsWhatIsThere(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		w.seed(t, 999, "many", "", 0)
		many := make([]pgsession.Token, 1000)
		for i := range many {
			many[i] = seeded("many", i+1) // the last one is missing
		}
		for _, destroy := range []struct {
			name   string
			tokens []pgsession.Token
			want   int
			err    error
		}{
			{"none", nil, 0, nil},
			{"a missing one", []pgsession.Token{"missing"}, 0, nil},
			{"one with an invalid one", []pgsession.Token{many[0], ""}, 0, pgsession.ErrInvalidToken},
			{"one twice", []pgsession.Token{many[0], many[0]}, 1, nil},
			{"it again", many[:1], 0, nil},
			{"many", many, 998, nil},
			{"many again", many, 0, nil},
			{"too many", slices.Concat(many, many[:1]), 0, pgsession.ErrInvalid},
		} {
			n, err := w.Destroy(t.Context(), destroy.tokens...)
			if n != destroy.want || !errors.Is(err, destroy.err) {
				t.Errorf("%s: %d, %v; want %d, %v", destroy.name, n, err, destroy.want, destroy.err)
			}
		}
		if row := w.row(t, "missing"); row != "" {
			t.Errorf("the destruction of a session that never was left %s", row)
		}
		if n, err := w.Count(t.Context(), pgsession.Filter{}); err != nil || n != 0 {
			t.Errorf("%d sessions are left, %v", n, err)
		}
	})
}

func TestWhatCannotBeStoredIsRefused(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{MaxDataSize: 10, KeyFunc: func(token string) string {
		return strings.TrimPrefix(token, "key:") // not one-way, but any result can be had of it
	}})
	ctx := t.Context()
	for _, text := range []string{"a\x00b", "a\xffb", strings.Repeat("x", 1025)} {
		_, _, err := w.Create(ctx, pgsession.Session{Subject: text})
		wantError(t, "subject", err, pgsession.ErrInvalid)
		_, err = w.Count(ctx, pgsession.Filter{Subject: text})
		wantError(t, "filter", err, pgsession.ErrInvalid)
		_, err = w.Revoke(ctx, pgsession.Revocation{Subject: text})
		wantError(t, "revocation", err, pgsession.ErrInvalid)
		_, err = w.Revoke(ctx, pgsession.Revocation{IDs: []pgsession.ID{pgsession.ID(text)}})
		wantError(t, "id", err, pgsession.ErrInvalid)
		_, err = w.Revoke(ctx, pgsession.Revocation{Subject: "ada", Except: []pgsession.ID{pgsession.ID(text)}})
		wantError(t, "except", err, pgsession.ErrInvalid)
		if len(text) < 1000 {
			_, err = w.Get(ctx, "key:"+pgsession.Token(text))
			wantError(t, "a KeyFunc's result", err, pgsession.ErrInvalid)
		}
	}
	for _, token := range []pgsession.Token{"key:", "the token itself", pgsession.Token("key:" + strings.Repeat("x", 257))} {
		_, err := w.Get(ctx, token)
		wantError(t, "a KeyFunc's result", err, pgsession.ErrInvalid)
	}
	for _, op := range operations {
		if !op.token {
			continue
		}
		wantError(t, op.name+" of no token", op.call(ctx, w.store, ""), pgsession.ErrInvalidToken)
		long := pgsession.Token("key:" + strings.Repeat("x", 1021))
		wantError(t, op.name+" of a long token", op.call(ctx, w.store, long), pgsession.ErrInvalidToken)
	}

	const token = pgsession.Token("key:1")
	_, err := w.Set(ctx, token, pgsession.Session{Data: make([]byte, 10)})
	must(t, err)
	before := w.row(t, token)
	_, err = w.Set(ctx, token, pgsession.Session{Data: make([]byte, 11)})
	wantError(t, "set of a byte too many", err, pgsession.ErrTooLarge)
	_, err = w.Update(ctx, token, func(s *pgsession.Session) error { s.Data = make([]byte, 11); return nil })
	wantError(t, "update to a byte too many", err, pgsession.ErrTooLarge)
	_, err = w.Set(ctx, token, pgsession.Session{IdleTimeout: 101 * 365 * 24 * time.Hour})
	wantError(t, "a timeout of more than a century", err, pgsession.ErrInvalid)
	_, err = w.Set(ctx, token, pgsession.Session{AbsoluteTimeout: time.Nanosecond})
	wantError(t, "a timeout of less than a microsecond", err, pgsession.ErrInvalid)
	if after := w.row(t, token); after != before {
		t.Errorf("a refused write changed %s to %s", before, after)
	}
}
