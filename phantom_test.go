package pgsession_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
)

// Bots bring no cookie, and leave neither a row nor a statement.
func TestNothingIsWrittenUntilThereIsSomethingToStore(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	calls := &recorder{next: w.query}
	store := setUp(t, calls.query, pgsession.Config{Schema: w.schema})
	calls.calls = nil
	handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var token pgsession.Token
		if cookie, err := r.Cookie("session"); err == nil {
			token = pgsession.Token(cookie.Value)
		}
		session, _ := store.Get(r.Context(), token)
		before := bytes.Clone(session.Data)
		if add := r.URL.Query().Get("add"); add != "" {
			session.Data = append(session.Data, add...)
		}
		var err error
		switch {
		case bytes.Equal(session.Data, before):
			return
		case session.Version == 0:
			token, _, err = store.Create(r.Context(), session)
		default:
			_, err = store.Set(r.Context(), token, session)
		}
		if err != nil {
			t.Error(err)
		}
		http.SetCookie(rw, &http.Cookie{Name: "session", Value: string(token)})
	})
	request := func(target, token string) (cookie string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, http.NoBody)
		if token != "" {
			r.AddCookie(&http.Cookie{Name: "session", Value: token})
		}
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, r)
		for _, c := range rec.Result().Cookies() {
			cookie = c.Value
		}
		return cookie
	}
	for range 50 {
		if cookie := request("/", ""); cookie != "" {
			t.Errorf("a bot got the cookie %q", cookie)
		}
	}
	if n := len(calls.calls); n != 0 || w.rows(t) != 0 {
		t.Errorf("bots cost %d statements and %d rows", n, w.rows(t))
	}
	if cookie := request("/", "gone"); cookie != "" || w.rows(t) != 0 {
		t.Errorf("a session that is gone came back: %q", cookie)
	}
	cookie := request("/?add=a", "")
	request("/", cookie)
	request("/?add=b", cookie)
	got, err := store.Get(t.Context(), pgsession.Token(cookie))
	if err != nil || string(got.Data) != "ab" || w.rows(t) != 1 {
		t.Errorf("a visitor with something to remember has %q in %d rows, %v", got.Data, w.rows(t), err)
	}
}

// counted is a way whose statements are counted.
func counted(t *testing.T, cfg pgsession.Config) (*way, *recorder) {
	t.Helper()
	w := onPool(t, cfg)
	calls := &recorder{next: w.query}
	cfg.Schema = w.schema
	w.store = setUp(t, calls.query, cfg)
	w.Sessions, w.query = w.store, calls.query
	return w, calls
}

// nothingAsked fails the test if a call made a row or sent a statement.
func (w *way) nothingAsked(t *testing.T, calls *recorder, what string, call func()) {
	t.Helper()
	rows, before := w.rows(t), calls.count()
	call()
	if n := calls.count() - before; n != 0 || w.rows(t) != rows {
		t.Errorf("%s sends %d statements, and there are %d rows, before %d", what, n, w.rows(t), rows)
	}
}

func TestCreateWritesNothingWithNothingToStore(t *testing.T) {
	t.Parallel()
	key := pgsession.Key{ID: "a", Secret: pgsession.Secret(bytes.Repeat([]byte("k"), 32))}
	encrypt, err := pgsession.Encrypt(pgsession.Encryption{Keys: []pgsession.Key{key}})
	must(t, err)
	columns := []pgsession.Column{{Name: "ip", Type: "inet"}}
	for name, cfg := range map[string]pgsession.Config{
		"plain": {Columns: columns}, "encrypted": {Columns: columns, Codec: encrypt}, // whose empty data has bytes
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, calls := counted(t, cfg)
			ctx := t.Context()
			stats := w.store.Stats()
			given := pgsession.Session{
				IdleTimeout: time.Hour, AbsoluteTimeout: 2 * time.Hour, Columns: map[string]any{"ip": (*string)(nil)},
				Data: []byte{}, ID: "another's", Version: 7, CreatedAt: time.Now(), ExpiresAt: time.Now(),
			}
			var token pgsession.Token
			var s pgsession.Session
			w.nothingAsked(t, calls, "a create", func() {
				token, s, err = w.Create(ctx, given)
				must(t, err)
			})
			if s.ID != w.id(t, token) || s.Version != 0 || !s.CreatedAt.IsZero() || !s.ExpiresAt.IsZero() ||
				s.IdleTimeout != time.Hour || s.AbsoluteTimeout != 2*time.Hour {
				t.Errorf("it returns %+v", s)
			}
			if got := w.store.Stats(); got != stats {
				t.Errorf("it counts: %+v, before %+v", got, stats)
			}
			tx, err := w.admin.Begin(ctx)
			must(t, err)
			defer tx.Rollback(context.WithoutCancel(ctx))
			inside := &recorder{next: tx.Query}
			if _, s, err := w.store.WithQuery(inside.query).Create(ctx, pgsession.Session{}); err != nil || s.ID == "" || inside.count() != 0 {
				t.Errorf("inside a transaction it sends %d statements: %+v, %v", inside.count(), s, err)
			}

			s.Data = []byte("something")
			stored, err := w.Set(ctx, token, s)
			must(t, err)
			if stored.ID != s.ID || stored.Version == 0 || stored.IdleTimeout != time.Hour || stored.AbsoluteTimeout != 2*time.Hour || w.rows(t) != 1 {
				t.Errorf("the first Set stores %+v, in %d rows", stored, w.rows(t))
			}

			for what, session := range map[string]pgsession.Session{
				"data":      {Data: []byte("1")},
				"a subject": {Subject: "ada"},
				"a column":  {Columns: map[string]any{"ip": "10.0.0.1"}},
			} {
				before := w.rows(t)
				token, s, err := w.Create(ctx, session)
				must(t, err)
				if _, err := w.Get(ctx, token); err != nil || s.Version == 0 || w.rows(t) != before+1 {
					t.Errorf("with %s: %+v, %v", what, s, err)
				}
			}
		})
	}
}

func TestASessionThatWasNotWrittenIsNoneToEveryCall(t *testing.T) {
	t.Parallel()
	mainWays(t, pgsession.Config{}, func(t *testing.T, w *way) {
		ctx := t.Context()
		token, s, err := w.Create(ctx, pgsession.Session{})
		must(t, err)
		for what, call := range map[string]func() error{
			"Get":      func() error { _, err := w.Get(ctx, token); return err },
			"GetFresh": func() error { _, err := w.GetFresh(ctx, token); return err },
			"View":     func() error { return w.View(ctx, token, func(pgsession.Session) error { return nil }) },
			"Touch":    func() error { _, err := w.Touch(ctx, token); return err },
			"Update": func() error {
				_, err := w.Update(ctx, token, func(*pgsession.Session) error { return nil })
				return err
			},
			"Patch":   func() error { _, err := w.Patch(ctx, token, []byte(`{"a":1}`)); return err },
			"Renew":   func() error { _, _, err := w.Renew(ctx, token, pgsession.Renewal{}); return err },
			"a login": func() error { _, _, err := w.Renew(ctx, token, pgsession.Renewal{Subject: "ada"}); return err },
		} {
			wantError(t, what, call(), pgsession.ErrNotFound)
		}
		if n, err := w.Destroy(ctx, token); n != 0 || err != nil {
			t.Errorf("Destroy: %d, %v", n, err)
		}
		if n, err := w.Revoke(ctx, pgsession.Revocation{IDs: []pgsession.ID{s.ID}}); n != 0 || err != nil {
			t.Errorf("Revoke: %d, %v", n, err)
		}
		var rows int
		if w.scan(t, &rows, `select count(*) from {table}`); rows != 0 {
			t.Errorf("they left %d rows", rows)
		}

		// A visitor who has none is logged in by Create, under a token that nobody can have planted.
		next, _, err := w.Create(ctx, pgsession.Session{Subject: "ada"})
		must(t, err)
		if got, err := w.Get(ctx, next); err != nil || got.Subject != "ada" || next == token {
			t.Errorf("logged in: %+v, %v", got, err)
		}
		s.IdleTimeout = time.Hour
		stored, err := w.Set(ctx, token, s) // also with nothing but timeouts: what Set is given it stores
		must(t, err)
		if got, err := w.Get(ctx, token); err != nil || got.Version != stored.Version || got.IdleTimeout != time.Hour {
			t.Errorf("after a Set: %+v, %v", got, err)
		}
	})
}

func TestWhatCannotBeStoredIsRefusedWithNothingToStore(t *testing.T) {
	t.Parallel()
	w, calls := counted(t, pgsession.Config{Timeouts: func(s pgsession.Session) (idle, absolute time.Duration) {
		if s.Codec == pgsession.CodecOpaque {
			idle = s.IdleTimeout * 2
		}
		return idle, 0
	}})
	ctx := t.Context()
	const years = 365 * 24 * time.Hour
	w.nothingAsked(t, calls, "what is refused", func() {
		for what, c := range map[string]struct {
			session pgsession.Session
			want    error
		}{
			"a codec that is not known":          {pgsession.Session{Codec: 100}, pgsession.ErrCodec},
			"no data, marked JSON":               {pgsession.Session{Codec: pgsession.CodecJSON}, pgsession.ErrCodec},
			"a timeout of two centuries":         {pgsession.Session{AbsoluteTimeout: 200 * years}, pgsession.ErrInvalid},
			"a timeout that Timeouts makes long": {pgsession.Session{IdleTimeout: 60 * years}, pgsession.ErrInvalid},
			"a column's name of bytes":           {pgsession.Session{Columns: map[string]any{"\xff": nil}}, pgsession.ErrInvalid},
			"a column of a channel":              {pgsession.Session{Columns: map[string]any{"ip": make(chan int)}}, pgsession.ErrInvalid},
		} {
			token, _, err := w.Create(ctx, c.session)
			wantError(t, what, err, c.want)
			var e *pgsession.Error
			if !errors.As(err, &e) || e.Op != "create" || token != "" {
				t.Errorf("%s: the error is %#v, the token %t", what, err, token != "")
			}
		}
		_ = w.store.Close()
		_, _, err := w.Create(ctx, pgsession.Session{})
		wantError(t, "after Close", err, pgsession.ErrClosed)
	})
}

// To a typed session no data is the zero value.
func TestATypedSessionWithNothingInItIsNotWritten(t *testing.T) {
	t.Parallel()
	w, calls := counted(t, pgsession.Config{})
	ctx := t.Context()
	type cart struct {
		Items []string
		N     int
	}
	type quiet struct {
		Items map[string]int `json:",omitempty"`
	}
	carts := pgsession.JSON[cart](w)
	w.nothingAsked(t, calls, "a create", func() {
		_, s, err := carts.Create(ctx, pgsession.TypedSession[cart]{})
		if err != nil || s.ID == "" || s.Version != 0 {
			t.Errorf("a zero value: %+v, %v", s, err)
		}
		_, _, err = pgsession.JSON[*cart](w).Create(ctx, pgsession.TypedSession[*cart]{})
		must(t, err)
		_, _, err = pgsession.JSON[map[string]any](w).Create(ctx, pgsession.TypedSession[map[string]any]{Value: map[string]any{}})
		must(t, err)
		_, _, err = pgsession.JSON[[]int](w).Create(ctx, pgsession.TypedSession[[]int]{Value: []int{}})
		must(t, err)
		_, _, err = pgsession.JSON[quiet](w).Create(ctx, pgsession.TypedSession[quiet]{Value: quiet{map[string]int{}}})
		must(t, err)
	})
	token, s, err := carts.Create(ctx, pgsession.TypedSession[cart]{})
	must(t, err)
	s.Value.N = 3
	_, err = carts.Set(ctx, token, s)
	must(t, err)
	if got, err := carts.Get(ctx, token); err != nil || got.Value.N != 3 || got.Codec != pgsession.CodecJSON {
		t.Errorf("after a Set: %+v, %v", got, err)
	}
	withSubject := pgsession.TypedSession[cart]{Session: pgsession.Session{Subject: "ada"}}
	for what, create := range map[string]func() (pgsession.Token, error){
		"a zero value with a subject": func() (pgsession.Token, error) { token, _, err := carts.Create(ctx, withSubject); return token, err },
		"a pointer to a zero value": func() (pgsession.Token, error) {
			token, _, err := pgsession.JSON[*cart](w).Create(ctx, pgsession.TypedSession[*cart]{Value: &cart{}})
			return token, err
		},
	} {
		token, err := create()
		must(t, err)
		if got, err := w.Get(ctx, token); err != nil || string(got.Data) != `{"Items":null,"N":0}` || got.Codec != pgsession.CodecJSON {
			t.Errorf("%s: %q, codec %d, %v", what, got.Data, got.Codec, err)
		}
	}
}
