package pgsession_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
)

// Renew changes the id, to which the ciphertext is bound.
func TestEncryptedDataSurvivesRenewals(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{Codec: encrypting(t, "k1")}, func(t *testing.T, w *way) {
		ctx := t.Context()
		for _, subject := range []string{"", "ada"} {
			first, s := w.create(t, pgsession.Session{Data: []byte("basket"), Subject: subject})
			_, err := w.Get(ctx, first)
			must(t, err)
			second, _ := w.renew(t, first, "")
			third, renewed := w.renew(t, second, "")
			if string(renewed.Data) != "basket" || renewed.Version <= s.Version || !renewed.CreatedAt.Equal(s.CreatedAt) {
				t.Errorf("renewed to %+v", renewed)
			}
			// By the new token, and by the old ones in their grace.
			for _, token := range []pgsession.Token{first, second, third} {
				if got, err := w.Get(ctx, token); err != nil || got.ID != renewed.ID || string(got.Data) != "basket" {
					t.Errorf("got %+v, %v", got, err)
				}
			}
			updated, err := w.Update(ctx, first, func(s *pgsession.Session) error { s.Data = append(s.Data, '!'); return nil })
			if err != nil || string(updated.Data) != "basket!" {
				t.Errorf("updated to %q, %v", updated.Data, err)
			}
			// At a login the old ones are dead.
			fourth, loggedIn := w.renew(t, third, "eve")
			if string(loggedIn.Data) != "basket!" || loggedIn.Subject != "eve" {
				t.Errorf("logged in as %+v", loggedIn)
			}
			_, err = w.Get(ctx, third)
			wantError(t, "an old token after a login", err, pgsession.ErrNotFound)
			if got, err := w.GetFresh(ctx, fourth); err != nil || string(got.Data) != "basket!" {
				t.Errorf("got %+v, %v", got, err)
			}
		}
	})
}

func TestOtherInstancesReadWhatWasRenewedUnderEncryption(t *testing.T) {
	t.Parallel()
	codec := encrypting(t, "k1")
	store, pool, _ := listening(t, func(_ string, cfg *pgsession.Config) { cfg.Codec = codec })
	cfg := fastListening(pool.Config().ConnString())
	cfg.Codec = codec
	other := setUp(t, pool.Query, cfg)
	awaitLive(t, store)
	awaitLive(t, other)
	ctx := t.Context()
	for range 10 {
		old, s, err := store.Create(ctx, pgsession.Session{Data: []byte("basket")})
		must(t, err)
		for _, from := range []*pgsession.Store{store, other} {
			_, err = from.Get(ctx, old)
			must(t, err)
		}
		token, renewed, err := store.Renew(ctx, old, pgsession.Renewal{})
		must(t, err)
		eventually(t, "the other instance knows", func() bool {
			got, err := other.Get(ctx, old)
			if err != nil || string(got.Data) != "basket" {
				t.Fatalf("by the old token: %q, %v", got.Data, err)
			}
			return got.ID != s.ID
		})
		for _, from := range []*pgsession.Store{store, other} {
			for _, token := range []pgsession.Token{token, old, token} {
				if got, err := from.Get(ctx, token); err != nil || got.ID != renewed.ID || string(got.Data) != "basket" {
					t.Errorf("got %+v, %v", got, err)
				}
			}
		}
	}
}

// interposed runs a function before the n-th call of the renew function.
type interposed struct {
	query pgsession.QueryFunc
	calls atomic.Int64
	at    int64
	run   func()
}

func (i *interposed) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if strings.Contains(sql, "_renew") && i.calls.Add(1) == i.at {
		i.run()
	}
	return i.query(ctx, sql, args...)
}

func TestAWriteDuringARenewalUnderEncryptionIsNotLost(t *testing.T) {
	t.Parallel()
	codec := encrypting(t, "k1")
	w := onPool(t, pgsession.Config{Codec: codec})
	ctx := t.Context()
	plain := setUp(t, w.query, pgsession.Config{Schema: w.schema, Decoders: []pgsession.Codec{codec}})
	for what, change := range map[string]struct {
		call  func(token pgsession.Token) error
		want  string
		err   error
		calls int64
	}{
		"an update": {func(token pgsession.Token) error {
			return errorOf(w.Update(ctx, token, func(s *pgsession.Session) error { s.Data = append(s.Data, '+'); return nil }))
		}, "basket+", nil, 3},
		"an instance that writes in clear": {func(token pgsession.Token) error {
			return errorOf(plain.Set(ctx, token, pgsession.Session{Data: []byte("in clear")}))
		}, "in clear", nil, 3},
		"another renewal": {func(token pgsession.Token) error {
			return errorOf2(w.Renew(ctx, token, pgsession.Renewal{}))
		}, "basket", pgsession.ErrRenewed, 4},
		"a logout": {func(token pgsession.Token) error { return errorOf(w.Destroy(ctx, token)) }, "", pgsession.ErrRevoked, 2},
	} {
		old, _ := w.create(t, pgsession.Session{Data: []byte("basket")})
		between := &interposed{query: w.query, at: 2}
		between.run = func() { must(t, change.call(old)) }
		store := setUp(t, between.Query, pgsession.Config{Schema: w.schema, Codec: codec})
		token, s, err := store.Renew(ctx, old, pgsession.Renewal{})
		if change.err != nil {
			wantError(t, what, err, change.err)
			if token != "" || string(s.Data) != change.want {
				t.Errorf("%s: got a token or %q", what, s.Data)
			}
			continue
		}
		must(t, err)
		got, getErr := w.GetFresh(ctx, token)
		if string(s.Data) != change.want || getErr != nil || string(got.Data) != change.want {
			t.Errorf("%s: renewed to %q, and then it is %q, %v; want %q", what, s.Data, got.Data, getErr, change.want)
		}
		if n := between.calls.Load(); n != change.calls {
			t.Errorf("%s: %d calls, want %d", what, n, change.calls)
		}
	}
}

func TestWhoCannotDecryptASessionCannotRenewIt(t *testing.T) {
	t.Parallel()
	cfg := pgsession.Config{Codec: encrypting(t, "k1"), MaxPerSubject: 1, Overflow: pgsession.OverflowEvictOldest}
	w := onPool(t, cfg)
	ctx := t.Context()
	token, s := w.create(t, pgsession.Session{Data: []byte("basket")})
	first, _ := w.create(t, pgsession.Session{Subject: "ada", Data: []byte("first")})
	before := w.row(t, token)
	cfg.Schema, cfg.Codec = w.schema, nil
	blind := setUp(t, w.query, cfg)
	_, _, err := blind.Renew(ctx, token, pgsession.Renewal{Subject: "ada"})
	wantError(t, "renew", err, pgsession.ErrCodec)
	if !strings.Contains(fmt.Sprint(err), "codec 2") || !strings.Contains(fmt.Sprint(err), string(s.ID)) {
		t.Errorf("%v", err)
	}
	// Nor can a client in another language, by mistake.
	var status string
	w.scan(t, &status, `select r.status || ' ' || r.version from {schema}.session_renew($1::text, 'new') as r`, string(s.ID))
	if status != fmt.Sprint("opaque ", s.Version) {
		t.Errorf("the function answered %q", status)
	}
	if after := w.row(t, token); after != before {
		t.Errorf("it was %s and is %s", before, after)
	}
	if _, err := w.Get(ctx, first); err != nil {
		t.Errorf("for a login that failed another session was ended: %v", err)
	}
	// Where it can be decrypted, the login ends the other session, once.
	next, renewed, err := w.Renew(ctx, token, pgsession.Renewal{Subject: "ada"})
	must(t, err)
	if got, err := w.Get(ctx, next); err != nil || string(got.Data) != "basket" || got.ID != renewed.ID {
		t.Errorf("got %+v, %v", got, err)
	}
	_, err = w.Get(ctx, first)
	wantError(t, "the session that was evicted", err, pgsession.ErrNotFound)
}

// A login is when a session becomes worth something: it is then no longer in clear, and one that must not
// be is not logged in.
func TestARenewalEncryptsWhatWasInClear(t *testing.T) {
	t.Parallel()
	mainWays(t, pgsession.Config{}, func(t *testing.T, w *way) {
		ctx := t.Context()
		token, _ := w.create(t, pgsession.Session{Data: []byte(`"basket"`), Codec: pgsession.CodecJSON})
		before := w.row(t, token)
		sessions := func(refuse bool) pgsession.Sessions {
			store := storeOf(t, w.query, pgsession.Config{Schema: w.schema, Codec: encrypting(t, "k1"), RefuseClear: refuse})
			if w.inTx {
				return store.WithQuery(w.see)
			}
			return store
		}
		next, _, err := sessions(true).Renew(ctx, token, pgsession.Renewal{Subject: "ada"})
		wantError(t, "a renewal of what is in clear, where that is refused", err, pgsession.ErrCodec)
		if after := w.row(t, token); after != before || next != "" {
			t.Errorf("it was %s and is %s", before, after)
		}
		next, renewed, err := sessions(false).Renew(ctx, token, pgsession.Renewal{Subject: "ada"})
		must(t, err)
		if renewed.Codec != pgsession.CodecEncrypted || renewed.Subject != "ada" {
			t.Errorf("renewed to %+v", renewed)
		}
		got, err := sessions(true).Get(ctx, next)
		if err != nil || string(got.Data) != `"basket"` || got.ID != renewed.ID {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

func TestARenewalMovesASessionToTheFirstKey(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{Codec: encrypting(t, "old")})
	token, _ := w.create(t, pgsession.Session{Data: []byte("basket")})
	store := setUp(t, w.query, pgsession.Config{Schema: w.schema, Codec: encrypting(t, "new", "old")})
	next, _, err := store.Renew(t.Context(), token, pgsession.Renewal{})
	must(t, err)
	alone := setUp(t, w.query, pgsession.Config{Schema: w.schema, Codec: encrypting(t, "new")})
	if got, err := alone.Get(t.Context(), next); err != nil || string(got.Data) != "basket" {
		t.Errorf("got %q, %v", got.Data, err)
	}
}
