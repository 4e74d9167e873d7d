package pgsession_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
)

func TestOfConcurrentRenewalsOneWins(t *testing.T) {
	t.Parallel()
	w, other := onTwoPools(t, pgsession.Config{})
	stores := []*pgsession.Store{w.store, other}
	for _, subject := range []string{"", "ada"} {
		for range 20 {
			old, _ := w.create(t, pgsession.Session{Data: []byte("x")})
			var winners atomic.Int64
			var ids sync.Map
			crowd(8, func(i int) {
				token, s, err := stores[i%2].Renew(t.Context(), old, pgsession.Renewal{Subject: subject})
				ids.Store(s.ID, true)
				switch {
				case err == nil && token != "":
					winners.Add(1)
				case !errors.Is(err, pgsession.ErrRenewed) || token != "" || string(s.Data) != "x":
					t.Errorf("a loser got %+v, %v", s, err)
				}
			})
			n := 0
			ids.Range(func(any, any) bool { n++; return true })
			if winners.Load() != 1 || n != 1 {
				t.Fatalf("%d won, and %d sessions were returned", winners.Load(), n)
			}
		}
	}
}

func TestOtherInstancesHearOfARenewal(t *testing.T) {
	t.Parallel()
	store, pool, _ := listening(t, nil)
	awaitLive(t, store)
	other := setUp(t, pool.Query, fastListening(pool.Config().ConnString()))
	awaitLive(t, other)
	ctx := t.Context()
	for range 20 {
		old, s, err := store.Create(ctx, pgsession.Session{Data: []byte("1")})
		must(t, err)
		for _, from := range []*pgsession.Store{store, other} {
			_, err = from.Get(ctx, old)
			must(t, err)
		}
		token, renewed, err := store.Renew(ctx, old, pgsession.Renewal{})
		must(t, err)
		// At once by this process; by others within a notification's way. By the old token, all the time.
		if got, err := store.Get(ctx, old); err != nil || got.ID != renewed.ID {
			t.Fatalf("got %s, %v; want %s", got.ID, err, renewed.ID)
		}
		eventually(t, "the other instance knows", func() bool {
			got, err := other.Get(ctx, old)
			must(t, err)
			return got.ID != s.ID
		})
		for _, from := range []*pgsession.Store{store, other} {
			_, err := from.Get(ctx, token)
			must(t, err)
		}
		_, err = other.Update(ctx, token, func(s *pgsession.Session) error { s.Subject = "ada"; return nil })
		must(t, err)
		for _, from := range []*pgsession.Store{store, other} {
			// What was reached by the old token is in no cache: the login ends it everywhere at once.
			_, err := from.Get(ctx, old)
			wantError(t, "the old token after the login", err, pgsession.ErrNotFound)
		}
	}
}

func TestTheUseOfATokenAfterItsGraceIsReported(t *testing.T) {
	t.Parallel()
	store, pool, log := listening(t, nil)
	var heard diary
	store.Subscribe(heard.note)
	awaitLive(t, store)
	ctx := t.Context()
	uses := map[string]func(token pgsession.Token) error{
		"get":   func(token pgsession.Token) error { _, err := store.Get(ctx, token); return err },
		"touch": func(token pgsession.Token) error { _, err := store.Touch(ctx, token); return err },
		"set": func(token pgsession.Token) error {
			_, err := store.Set(ctx, token, pgsession.Session{})
			return err
		},
		"renew": func(token pgsession.Token) error {
			_, _, err := store.Renew(ctx, token, pgsession.Renewal{})
			return err
		},
	}
	for name, use := range uses {
		stolen, s, err := store.Create(ctx, pgsession.Session{Subject: "ada"})
		must(t, err)
		token, _, err := store.Renew(ctx, stolen, pgsession.Renewal{})
		must(t, err)
		_, err = store.Get(ctx, stolen) // within the grace
		must(t, err)
		if n := heard.count(pgsession.EventReused); n != 0 {
			t.Errorf("%s: reported within the grace", name)
		}
		exec(t, pool, `update pgsession.session set expires_at = clock_timestamp() where renewed_to is not null`)
		for range 3 {
			if err := use(stolen); !errors.Is(err, pgsession.ErrNotFound) && !errors.Is(err, pgsession.ErrRenewed) {
				t.Errorf("%s: %v", name, err)
			}
		}
		heard.has(t, pgsession.Event{Kind: pgsession.EventReused, ID: s.ID})
		log.says(t, "after its grace", string(s.ID))
		if n := heard.count(pgsession.EventReused); n != 0 {
			t.Errorf("%s: reported %d times more", name, n)
		}
		// What one does then.
		if n, err := store.Revoke(ctx, pgsession.Revocation{IDs: []pgsession.ID{s.ID}}); n != 1 || err != nil {
			t.Errorf("%s: revoked %d, %v", name, n, err)
		}
		_, err = store.Get(ctx, token)
		wantError(t, name+": after the revocation", err, pgsession.ErrNotFound)
	}
	if n := store.Stats().Reused; n != int64(3*len(uses)) {
		t.Errorf("%d uses were counted", n)
	}
}

func TestAListThatWasShownBeforeARenewalStillNamesTheSession(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		ctx := t.Context()
		list := func() (ids []pgsession.ID, tokens []pgsession.Token) {
			for range 3 {
				token, s := w.create(t, pgsession.Session{Subject: "ada"})
				next, _ := w.renew(t, token, "")
				next, _ = w.renew(t, next, "")
				ids, tokens = append(ids, s.ID), append(tokens, next)
			}
			return ids, tokens
		}
		ids, tokens := list()
		if n, err := w.Revoke(ctx, pgsession.Revocation{IDs: ids[:1], Subject: "bob"}); n != 0 || err != nil {
			t.Errorf("revoked %d of another subject, %v", n, err)
		}
		if n, err := w.Revoke(ctx, pgsession.Revocation{IDs: ids[:1], Subject: "ada"}); n != 1 || err != nil {
			t.Errorf("revoked %d by an old id, %v", n, err)
		}
		_, err := w.Get(ctx, tokens[0])
		wantError(t, "get of what was revoked", err, pgsession.ErrNotFound)
		if n, err := w.Revoke(ctx, pgsession.Revocation{Subject: "ada", Except: ids[1:2]}); n != 1 || err != nil {
			t.Errorf("revoked %d but for an old id, %v", n, err)
		}
		_, err = w.Get(ctx, tokens[1])
		must(t, err)
	})
}

func TestARevokeThatWaitsForARenewalEndsTheSession(t *testing.T) {
	t.Parallel()
	for name, revocation := range map[string]func(id, kept pgsession.ID) pgsession.Revocation{
		"by id":      func(id, _ pgsession.ID) pgsession.Revocation { return pgsession.Revocation{IDs: []pgsession.ID{id}} },
		"by subject": func(_, _ pgsession.ID) pgsession.Revocation { return pgsession.Revocation{Subject: "ada"} },
		"all but one": func(_, kept pgsession.ID) pgsession.Revocation {
			return pgsession.Revocation{Subject: "ada", Except: []pgsession.ID{kept}}
		},
	} {
		w := onPool(t, pgsession.Config{})
		token, s := w.create(t, pgsession.Session{Subject: "ada"})
		mine, kept := w.create(t, pgsession.Session{Subject: "ada"})
		tx := w.begin(t)
		inside := w.store.WithQuery(tx.query)
		token, _, err := inside.Renew(t.Context(), token, pgsession.Renewal{})
		must(t, err)
		mine, _, err = inside.Renew(t.Context(), mine, pgsession.Renewal{})
		must(t, err)
		answer := make(chan error)
		go func() {
			_, err := w.Revoke(t.Context(), revocation(s.ID, kept.ID))
			answer <- err
		}()
		w.awaitWaiting(t, 1)
		must(t, tx.commit())
		must(t, <-answer)
		_, err = w.Get(t.Context(), token)
		wantError(t, name, err, pgsession.ErrNotFound)
		if _, err = w.Get(t.Context(), mine); (err == nil) == (name == "by subject") {
			t.Errorf("%s: of the other session: %v", name, err)
		}
	}
}

func TestARenewalCutOffReturnsTheTokenThatMayBeTheNewOne(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{LockTimeout: -1})
	for _, commits := range []bool{false, true} {
		old, _ := w.create(t, pgsession.Session{Subject: "ada"})
		ctx, cancel := context.WithCancel(t.Context())
		cutOff, err := pgsession.New(func(_ context.Context, sql string, args ...any) (pgx.Rows, error) {
			rows, err := w.query(t.Context(), sql, args...)
			if commits && err == nil {
				rows.Close() // it has been committed
				must(t, rows.Err())
			} else {
				rows.Close()
			}
			cancel()
			return nil, ctx.Err()
		}, pgsession.Config{Schema: w.schema})
		must(t, err)
		token, _, err := cutOff.Renew(ctx, old, pgsession.Renewal{})
		wantError(t, "renew", err, pgsession.ErrInDoubt, context.Canceled)
		if s, err := w.GetFresh(t.Context(), token); err != nil || s.Subject != "ada" {
			t.Errorf("by the token of a renewal in doubt: %+v, %v", s, err)
		}
	}
}

func TestTheTokenOfARenewalIsSentNowhere(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	sent, log := &recorder{next: w.query}, &logs{}
	store := setUp(t, sent.query, pgsession.Config{Schema: w.schema, Logger: slog.New(log)})
	old, _ := w.create(t, pgsession.Session{})
	token, _, err := store.Renew(t.Context(), old, pgsession.Renewal{Subject: "ada"})
	must(t, err)
	call := sent.last(t, "renew")
	if !slices.Equal(call.args, []any{string(w.id(t, old)), string(w.id(t, token)), "ada", nil, nil, nil, int64(0)}) {
		t.Errorf("sent %v", call.args)
	}
	if len(token) != 43 || strings.Contains(call.sql, string(token)) {
		t.Errorf("a token of %d bytes, or it was sent", len(token))
	}
}
