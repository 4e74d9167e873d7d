package gorillastore_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/securecookie"
	gorilla "github.com/gorilla/sessions"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/gorillastore"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/values"
	"github.com/pgsession/pgsession/internal/webtest"
)

// What the store adds to a Get and to a Set: go test -run '^$' -bench Overhead -benchtime 5000x. The
// session has 400 bytes. What the framework does whatever its store, with the cookie, the values and
// the session, is on both sides.
func BenchmarkOverhead(b *testing.B) {
	pg := open(b, pgtest.Database(b), pgsession.Config{})
	store := newStore(b, pg, gorillastore.Config{})
	codecs := securecookie.CodecsFromPairs(key)
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	// Two sessions of the same content, so that the writes of one do not meet those of the other.
	made := func() *http.Request {
		r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/", nil)
		session, err := store.New(r, "s")
		must(err)
		session.Values["user"], session.Values["text"] = "ada", strings.Repeat("0", 360)
		w := httptest.NewRecorder()
		must(session.Save(r, w))
		r.AddCookie(w.Result().Cookies()[0])
		return r
	}
	ours, own := made(), made()
	token := func(r *http.Request) (token pgsession.Token) {
		cookie, err := r.Cookie("s")
		must(err)
		var text string
		must(securecookie.DecodeMulti("s", cookie.Value, &text, codecs...))
		return pgsession.Token(text)
	}
	load := func(r *http.Request) (*gorilla.Session, pgsession.Session) {
		session := gorilla.NewSession(store, "s")
		loaded, err := pg.Get(r.Context(), token(r))
		must(err)
		_, v, err := values.Unmarshal(loaded.Data)
		must(err)
		session.Values = v.(map[any]any)
		session.Options = &gorilla.Options{Path: "/", MaxAge: 3600}
		return session, loaded
	}

	live(b, pg)
	b.Run("New/cached", func(b *testing.B) {
		webtest.Overhead(b, func() { load(own) }, func() {
			_, err := store.New(ours, "s")
			must(err)
		})
	})
	b.Run("Save/changed", func(b *testing.B) {
		n, m := 0, 0 // each side changes its session with every call
		mine, err := store.New(ours, "s")
		must(err)
		other, loaded := load(own)
		w, saved := discard{http.Header{}}, token(own)
		webtest.Overhead(b, func() {
			n++
			other.Values["n"] = n
			data, err := values.Marshal(nil, other.Values)
			must(err)
			loaded.Data = data
			loaded, err = pg.Set(own.Context(), saved, loaded)
			must(err)
			value, err := securecookie.EncodeMulti("s", string(saved), codecs...)
			must(err)
			http.SetCookie(w, gorilla.NewCookie("s", value, other.Options))
			clear(w.header)
		}, func() {
			m++
			mine.Values["n"] = m
			must(store.Save(ours, w, mine))
			clear(w.header)
		})
	})
}

type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

// live waits until the store's cache serves.
func live(b *testing.B, pg *pgsession.Store) {
	b.Helper()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(time.Minute); !pg.Stats().Cache.Live; <-poll.C {
		if time.Now().After(deadline) {
			b.Fatal("the cache does not become live")
		}
	}
}
