package pgsession_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/pgsession/pgsession"
)

// The README's pattern: bots bring no cookie, and leave neither a row nor a statement.
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
