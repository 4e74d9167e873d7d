package pgsession_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/adapter"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// peppered returns peppers by their names; "" is NoPepper.
func peppered(names ...string) (peppers []pgsession.Secret) {
	for _, name := range names {
		if name == "" {
			peppers = append(peppers, pgsession.NoPepper)
		} else {
			peppers = append(peppers, secretOf(name))
		}
	}
	return peppers
}

// idUnder is a token's id by a pepper.
func idUnder(pepper string, token pgsession.Token) pgsession.ID {
	sum := sha256.Sum256([]byte(token))
	if pepper != "" {
		mac := hmac.New(sha256.New, secretOf(pepper))
		mac.Write([]byte(token))
		sum = [32]byte(mac.Sum(nil))
	}
	return pgsession.ID(base64.RawURLEncoding.EncodeToString(sum[:]))
}

func TestATokenIsHashedUnderThePepper(t *testing.T) {
	t.Parallel()
	for _, pepper := range []string{"", "p1", "p2"} {
		store, err := pgsession.New(pgtest.Pool(t).Query, pgsession.Config{Peppers: peppered(pepper)})
		must(t, err)
		for _, n := range []int{1, 43, 63, 64, 65, 200, 1024} {
			token := pgsession.Token(strings.Repeat("x", n-1) + "y")
			if id, err := store.ID(token); err != nil || id != idUnder(pepper, token) {
				t.Errorf("a token of %d bytes under %q: %s, %v; want %s", n, pepper, id, err, idUnder(pepper, token))
			}
		}
		for _, token := range []pgsession.Token{"", pgsession.Token(strings.Repeat("x", 1025))} {
			_, err := store.ID(token)
			wantError(t, "a bad token", err, pgsession.ErrInvalidToken)
		}
	}
}

func TestBadPeppersAreRefused(t *testing.T) {
	t.Parallel()
	nine := make([]pgsession.Secret, 9)
	for i := range nine {
		nine[i] = secretOf(fmt.Sprint("p", i))
	}
	for want, cfg := range map[string]pgsession.Config{
		"number 0 has 0 bytes":     {Peppers: []pgsession.Secret{nil}}, // a variable that was not set
		"number 1 has 31 bytes":    {Peppers: []pgsession.Secret{secretOf("p"), secretOf("q")[:31]}},
		"number 2 is number 0":     {Peppers: peppered("p", "", "p")},
		"number 1 is number 0":     {Peppers: peppered("", "")},
		"has 9":                    {Peppers: nine},
		"beside Config.KeyFunc, w": {Peppers: peppered("p"), KeyFunc: func(string) string { return "id" }},
	} {
		_, err := pgsession.New(pgtest.Pool(t).Query, cfg)
		wantError(t, want, err, pgsession.ErrInvalid)
		if text := fmt.Sprint(err); !strings.Contains(text, "Config.Peppers") || !strings.Contains(text, want) || strings.Contains(text, "s3cr3t") {
			t.Errorf("%s: %s", want, text)
		}
	}
}

// Whatever is done by a token, it reaches the session from before the rotation, and no other one begins.
func TestPeppersAreRotated(t *testing.T) {
	t.Parallel()
	for before, ways := range map[string]func(*testing.T, pgsession.Config, func(*testing.T, *way)){
		"old": everyWay, "": func(t *testing.T, cfg pgsession.Config, f func(*testing.T, *way)) { f(t, onPool(t, cfg)) },
	} {
		ways(t, pgsession.Config{Peppers: peppered("new", before)}, func(t *testing.T, w *way) {
			ctx := t.Context()
			oldStore := setUp(t, w.query, pgsession.Config{Schema: w.schema, Peppers: peppered(before)})
			old := pgsession.Sessions(oldStore)
			if w.inTx {
				old = oldStore.WithQuery(w.see)
			}
			token, created, err := old.Create(ctx, pgsession.Session{Subject: "ada", Data: []byte("{}"), Codec: pgsession.CodecJSON})
			must(t, err)
			check := func(what string, s pgsession.Session, err error) {
				t.Helper()
				if err != nil || s.ID != created.ID {
					t.Errorf("%s: %s, %v; want %s", what, s.ID, err, created.ID)
				}
			}
			got, err := w.Get(ctx, token)
			check("get", got, err)
			check("view", got, w.View(ctx, token, func(s pgsession.Session) error { got = s; return nil }))
			got, err = w.GetFresh(ctx, token)
			check("get fresh", got, err)
			got.Data = []byte(`{"n":1}`)
			s, err := w.Set(ctx, token, got)
			check("set", s, err)
			s, err = w.Set(ctx, token, got)
			wantError(t, "set of an old version", err, pgsession.ErrConflict)
			check("its conflict", s, nil)
			s, err = w.Set(ctx, token, pgsession.Session{Subject: "ada", Data: []byte(`{"n":2}`), Codec: pgsession.CodecJSON})
			check("set of any version", s, err)
			s, err = w.Update(ctx, token, func(s *pgsession.Session) error { s.Data = []byte(`{"n":3}`); return nil })
			check("update", s, err)
			s, err = w.Patch(ctx, token, []byte(`{"m":4}`))
			check("patch", s, err)
			_, err = w.Touch(ctx, token)
			must(t, err)
			if s, err = w.Get(ctx, token); err != nil || !strings.Contains(string(s.Data), `"m": 4`) || !strings.Contains(string(s.Data), `"n": 3`) {
				t.Errorf("at the end it is %q, %v", s.Data, err)
			}
			if n, err := w.Count(ctx, pgsession.Filter{}); n != 1 || err != nil {
				t.Errorf("%d sessions, %v", n, err)
			}

			// A new token is hashed under the first.
			next, renewed, err := w.Renew(ctx, token, pgsession.Renewal{})
			if err != nil || renewed.ID != idUnder("new", next) || renewed.ID != w.id(t, next) {
				t.Errorf("renewed to %s, %v", renewed.ID, err)
			}
			if s, err = w.Get(ctx, token); err != nil || s.ID != renewed.ID {
				t.Errorf("by the old token in its grace: %s, %v", s.ID, err)
			}
			_, err = w.Set(ctx, token, pgsession.Session{})
			wantError(t, "set by it", err, pgsession.ErrRenewed)

			// What has ended stays ended under both.
			ended, _, err := old.Create(ctx, pgsession.Session{Data: []byte("1")})
			must(t, err)
			if n, err := w.Destroy(ctx, ended, next); n != 2 || err != nil {
				t.Errorf("destroyed %d, %v", n, err)
			}
			for _, token := range []pgsession.Token{ended, next} {
				_, err = w.Get(ctx, token)
				wantError(t, "get of what has ended", err, pgsession.ErrNotFound)
				_, err = w.Set(ctx, token, pgsession.Session{})
				wantError(t, "set of what has ended", err, pgsession.ErrRevoked)
				_, err = w.Touch(ctx, token)
				wantError(t, "touch of what has ended", err, pgsession.ErrRevoked)
			}
			for what, call := range map[string]func(pgsession.Token) error{
				"get":   func(token pgsession.Token) error { return errorOf(w.Get(ctx, token)) },
				"touch": func(token pgsession.Token) error { return errorOf(w.Touch(ctx, token)) },
				"renew": func(token pgsession.Token) error { return errorOf2(w.Renew(ctx, token, pgsession.Renewal{})) },
				"patch": func(token pgsession.Token) error { return errorOf(w.Patch(ctx, token, []byte(`{}`))) },
				"set":   func(token pgsession.Token) error { return errorOf(w.Set(ctx, token, pgsession.Session{Version: 1})) },
				"update": func(token pgsession.Token) error {
					return errorOf(w.Update(ctx, token, func(*pgsession.Session) error { return nil }))
				},
			} {
				err := call("nobody's")
				wantError(t, what, err, pgsession.ErrNotFound)
				if !strings.Contains(fmt.Sprint(err), string(idUnder("new", "nobody's"))) {
					t.Errorf("%s: %v", what, err)
				}
			}
			s, err = w.Set(ctx, "brought along", pgsession.Session{})
			if err != nil || s.ID != idUnder("new", "brought along") {
				t.Errorf("a new session: %s, %v", s.ID, err)
			}
		})
	}
}

func TestWhatAFrameworksTokenHasUnderAnOlderPepperIsFound(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{Peppers: peppered("old")})
	store := setUp(t, w.query, pgsession.Config{Schema: w.schema, Peppers: peppered("new", "old")})
	ctx := t.Context()
	token, s := w.create(t, pgsession.Session{Data: []byte("data")})
	there, err := adapter.Insert(ctx, store, string(token), pgsession.Session{})
	wantError(t, "insert", err, pgsession.ErrConflict)
	if got, _ := there.(pgsession.Session); got.ID != s.ID || string(got.Data) != "data" {
		t.Errorf("there is %+v", got)
	}
	_, err = w.Destroy(ctx, token)
	must(t, err)
	_, err = adapter.Insert(ctx, store, string(token), pgsession.Session{})
	wantError(t, "insert after the end", err, pgsession.ErrRevoked)
	there, err = adapter.Insert(ctx, store, "another", pgsession.Session{})
	if got, _ := there.(pgsession.Session); err != nil || got.ID != idUnder("new", "another") {
		t.Errorf("inserted %+v, %v", got, err)
	}
}

// What a function of the caller's has not found is not the session, which would be looked for on.
func TestAnUpdatesOwnErrorIsReturnedWhateverPeppersThereAre(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{Peppers: peppered("new", "old")})
	token, s := w.create(t, pgsession.Session{})
	own := fmt.Errorf("the other session: %w", pgsession.ErrNotFound)
	_, err := w.Update(t.Context(), token, func(*pgsession.Session) error { return own })
	wantError(t, "an update", err, own)
	if got := (*pgsession.Error)(nil); !errors.As(err, &got) || !errors.Is(got.Err, own) || got.ID != s.ID {
		t.Errorf("%#v", err)
	}
}

func TestAPepperLeftOutEndsItsSessions(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{Peppers: peppered("old")})
	token, _ := w.create(t, pgsession.Session{})
	store := setUp(t, w.query, pgsession.Config{Schema: w.schema, Peppers: peppered("new")})
	_, err := store.Get(t.Context(), token)
	wantError(t, "get", err, pgsession.ErrNotFound)
	plain := setUp(t, w.query, pgsession.Config{Schema: w.schema})
	_, err = plain.Get(t.Context(), token)
	wantError(t, "get without a pepper", err, pgsession.ErrNotFound)
	// An id of a stolen copy is nobody's token, under whatever pepper.
	for s, err := range w.All(t.Context(), pgsession.Filter{}) {
		must(t, err)
		_, err = w.Get(t.Context(), pgsession.Token(s.ID))
		wantError(t, "get by an id", err, pgsession.ErrNotFound)
	}
}

func TestOnlyAMissCostsALookupMore(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{Peppers: peppered("old")})
	old, _ := w.create(t, pgsession.Session{})
	sent := &recorder{next: w.query}
	store := setUp(t, sent.query, pgsession.Config{Schema: w.schema, Peppers: peppered("new", "old")})
	token, _, err := store.Create(t.Context(), pgsession.Session{Data: []byte("1")})
	must(t, err)
	for token, want := range map[pgsession.Token]int{token: 1, old: 2} {
		before := len(sent.calls)
		_, err = store.GetFresh(t.Context(), token)
		must(t, err)
		if n := len(sent.calls) - before; n != want {
			t.Errorf("%d statements, want %d", n, want)
		}
		before = len(sent.calls)
		_, err = store.Destroy(t.Context(), token)
		must(t, err)
		if n := len(sent.calls) - before; n != 1 {
			t.Errorf("%d statements to destroy, want 1", n)
		}
	}
	_, err = store.Destroy(t.Context(), make([]pgsession.Token, 501)...)
	wantError(t, "destroy of 501", err, pgsession.ErrInvalid)
}

func TestASessionOfAnOlderPepperIsServedFromTheCache(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	sent := &recorder{next: pgtest.Connect(t, address).Query}
	cfg := fastListening(address)
	cfg.Peppers = peppered("new", "old")
	store := setUp(t, sent.query, cfg)
	cfg.Peppers, cfg.Listeners = peppered("old"), nil
	ctx := t.Context()
	token, _, err := setUp(t, sent.query, cfg).Create(ctx, pgsession.Session{Data: []byte("data")})
	must(t, err)
	for what, call := range map[string]func() error{
		"a get":   func() error { return errorOf(store.Get(ctx, token)) },
		"a view":  func() error { return store.View(ctx, token, look) },
		"a touch": func() error { return errorOf(store.Touch(ctx, token)) }, // that would write nothing
	} {
		eventually(t, what+" asks nobody", func() bool {
			must(t, errorOf(store.Get(ctx, token))) // one that fills the cache
			before := sent.count()
			must(t, call())
			return sent.count() == before
		})
	}
}

// While some instances have a new pepper first and others last, each hears of what the other ones do.
func TestInstancesThatRotateHearOfEachOther(t *testing.T) {
	t.Parallel()
	first, pool, _ := listening(t, func(_ string, cfg *pgsession.Config) { cfg.Peppers = peppered("new", "old") })
	cfg := fastListening(pool.Config().ConnString())
	cfg.Peppers = peppered("old", "new")
	last := setUp(t, pool.Query, cfg)
	awaitLive(t, first)
	awaitLive(t, last)
	var heard diary
	first.Subscribe(heard.note)
	ctx := t.Context()
	hit := func(store *pgsession.Store, token pgsession.Token) {
		t.Helper()
		eventually(t, "it is served from the cache", func() bool {
			before := store.Stats().Cache.Hits
			_, err := store.Get(ctx, token)
			must(t, err)
			return store.Stats().Cache.Hits > before
		})
	}
	gone := func(what string, token pgsession.Token) {
		t.Helper()
		for _, store := range []*pgsession.Store{first, last} {
			eventually(t, what, func() bool {
				_, err := store.Get(ctx, token)
				if err != nil {
					wantError(t, what, err, pgsession.ErrNotFound)
				}
				return err != nil
			})
		}
	}
	for _, by := range []*pgsession.Store{first, last} {
		token, s, err := by.Create(ctx, pgsession.Session{Data: []byte("1")})
		must(t, err)
		hit(first, token)
		hit(last, token)
		s.Data = []byte("2")
		s, err = last.Set(ctx, token, s)
		must(t, err)
		eventually(t, "the other instance has it", func() bool {
			got, err := first.Get(ctx, token)
			must(t, err)
			return string(got.Data) == "2"
		})
		heard.has(t, pgsession.Event{Kind: pgsession.EventUpdated, ID: s.ID, Version: s.Version})
		hit(first, token)
		if n, err := last.RevokeAndWait(ctx, pgsession.Revocation{IDs: []pgsession.ID{s.ID}}); n != 1 || err != nil {
			t.Errorf("revoked %d, %v", n, err)
		}
		_, err = first.Get(ctx, token)
		wantError(t, "after RevokeAndWait", err, pgsession.ErrNotFound)
		gone("it is gone", token)

		token, _, err = by.Create(ctx, pgsession.Session{Data: []byte("1")})
		must(t, err)
		hit(first, token)
		hit(last, token)
		next, _, err := first.Renew(ctx, token, pgsession.Renewal{Subject: "ada"})
		must(t, err)
		gone("the token before the login is dead", token)
		hit(last, next)
		_, err = last.Destroy(ctx, next)
		must(t, err)
		gone("it was destroyed", next)
	}
}

// Not parallel: it counts the process's allocations.
func TestAHitUnderAPepperAllocatesNothing(t *testing.T) {
	for _, peppers := range [][]pgsession.Secret{nil, peppered("new"), peppered("new", "old")} {
		store, _, _ := listening(t, func(_ string, cfg *pgsession.Config) { cfg.Peppers = peppers })
		awaitLive(t, store)
		ctx := context.Background()
		token, _, err := store.Create(ctx, pgsession.Session{Data: []byte("data")})
		must(t, err)
		view := func() {
			if err := store.View(ctx, token, look); err != nil {
				t.Error(err)
			}
		}
		least := 1e9
		for range 50 { // the garbage collector empties the pool, and the race detector does at random
			least = min(least, testing.AllocsPerRun(1, view))
		}
		if before := store.Stats().Cache.Hits; least != 0 || before == 0 {
			t.Errorf("%d peppers: %v allocations a hit, of %d hits", len(peppers), least, before)
		}
	}
}

func look(pgsession.Session) error { return nil }

func BenchmarkView(b *testing.B) {
	for _, peppers := range [][]string{nil, {"new"}, {"new", "old"}} {
		b.Run(fmt.Sprint(len(peppers), " peppers"), func(b *testing.B) {
			store := hitStore(b, peppered(peppers...))
			ctx := context.Background()
			token, _, err := store.Create(ctx, pgsession.Session{Data: make([]byte, 400)})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := store.View(ctx, token, look); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
