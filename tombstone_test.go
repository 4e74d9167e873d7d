package pgsession_test

import (
	"encoding/hex"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
)

func TestNothingBringsAnEndedSessionBack(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		ctx := t.Context()
		token, loaded := w.create(t, pgsession.Session{Subject: "ada", Data: []byte("secret")})
		_, err := w.Destroy(ctx, token)
		must(t, err)
		tombstone := w.row(t, token)
		if strings.Contains(tombstone, hex.EncodeToString([]byte("secret"))) {
			t.Errorf("the tombstone keeps the data: %s", tombstone)
		}
		_, err = w.Get(ctx, token)
		wantError(t, "get", err, pgsession.ErrNotFound)
		_, err = w.Set(ctx, token, pgsession.Session{})
		wantError(t, "set", err, pgsession.ErrRevoked)
		_, err = w.Set(ctx, token, loaded)
		wantError(t, "set of the loaded session", err, pgsession.ErrRevoked)
		_, err = w.Touch(ctx, token)
		wantError(t, "touch", err, pgsession.ErrRevoked)
		_, err = w.Update(ctx, token, func(*pgsession.Session) error { panic("called") })
		wantError(t, "update", err, pgsession.ErrNotFound)
		if row := w.row(t, token); row != tombstone {
			t.Errorf("the tombstone was %s and is %s", tombstone, row)
		}

		w.age(t, 7*time.Minute, token)
		if n := w.prune(t); n != 1 || w.row(t, token) != "" {
			t.Fatalf("pruned %d rows, want the tombstone", n)
		}
		_, err = w.Set(ctx, token, loaded)
		wantError(t, "set of the loaded session after the tombstone", err, pgsession.ErrNotFound)
		if row := w.row(t, token); row != "" {
			t.Errorf("a loaded session came back: %s", row)
		}
		fresh, err := w.Set(ctx, token, pgsession.Session{})
		if err != nil || fresh.Version <= loaded.Version {
			t.Errorf("a new session after the tombstone: %+v, %v", fresh, err)
		}
	})
}

func TestWithoutTombstonesALoadedSessionStaysEnded(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{Tombstone: -1})
	token, loaded := w.create(t, pgsession.Session{})
	if n, err := w.Destroy(t.Context(), token); n != 1 || err != nil || w.row(t, token) != "" {
		t.Errorf("destroyed %d, %v, and left %q", n, err, w.row(t, token))
	}
	_, err := w.Set(t.Context(), token, loaded)
	wantError(t, "set of the loaded session", err, pgsession.ErrNotFound)
}

func TestASetThatBeganBeforeADestroyBringsNothingBack(t *testing.T) {
	t.Parallel()
	enders := map[string]func(tx *pgsession.Tx, token pgsession.Token, id pgsession.ID) (int, error){
		"destroy": func(tx *pgsession.Tx, token pgsession.Token, _ pgsession.ID) (int, error) {
			return tx.Destroy(t.Context(), token)
		},
		"revoke by id": func(tx *pgsession.Tx, _ pgsession.Token, id pgsession.ID) (int, error) {
			return tx.Revoke(t.Context(), pgsession.Revocation{IDs: []pgsession.ID{id}})
		},
		"revoke by subject": func(tx *pgsession.Tx, _ pgsession.Token, _ pgsession.ID) (int, error) {
			return tx.Revoke(t.Context(), pgsession.Revocation{Subject: "ada"})
		},
	}
	for _, tombstone := range []time.Duration{time.Minute, -1} {
		w := onPool(t, pgsession.Config{Tombstone: tombstone})
		for name, end := range enders {
			token, loaded := w.create(t, pgsession.Session{Subject: "ada"})
			loaded.Data = []byte("late")
			want := pgsession.ErrRevoked
			if tombstone < 0 {
				want = pgsession.ErrNotFound
			}
			tx := begin(t, w.admin)
			n, err := end(w.store.WithQuery(tx.query), token, loaded.ID)
			must(t, err)
			var group sync.WaitGroup
			group.Go(func() {
				_, err := w.Set(t.Context(), token, loaded)
				wantError(t, name+": a set that waited", err, want)
			})
			w.awaitWaiting(t, 1)
			must(t, tx.commit())
			group.Wait()
			if _, err := w.Get(t.Context(), token); n != 1 || !errors.Is(err, pgsession.ErrNotFound) {
				t.Errorf("%s: ended %d sessions, and then a get: %v", name, n, err)
			}
		}
	}
}

func TestNoRaceBringsAnEndedSessionBack(t *testing.T) {
	t.Parallel()
	tries := 10_000
	if testing.Short() {
		tries = 1_000
	}
	w, other := onTwoPools(t, pgsession.Config{TouchInterval: time.Microsecond})
	w.seed(t, tries, "raced", "ada", 10)
	w.exec(t, `update {table} as t set subject = t.id where t.id < 'U'`) // of one's own, for a third of them
	var late, early atomic.Int64
	crowd(4, func(worker int) {
		for i := worker + 1; i <= tries; i += 4 {
			token := seeded("raced", i)
			id, _ := w.store.ID(token)
			ended := make(chan error, 1)
			go func() {
				var err error
				switch {
				case id < "U":
					_, err = other.Revoke(t.Context(), pgsession.Revocation{Subject: string(id)})
				case i%2 == 0:
					_, err = other.Revoke(t.Context(), pgsession.Revocation{IDs: []pgsession.ID{id}})
				default:
					_, err = other.Destroy(t.Context(), token)
				}
				ended <- err
			}()
			var err error
			switch session := (pgsession.Session{Subject: string(id), Data: []byte("late")}); i % 5 {
			case 0, 1: // whatever is there
				_, err = w.Set(t.Context(), token, session)
			case 2: // as it was loaded
				session.Version = 1
				_, err = w.Set(t.Context(), token, session)
			case 3:
				_, err = w.Update(t.Context(), token, func(s *pgsession.Session) error { *s = session; return nil })
			case 4:
				_, err = w.Touch(t.Context(), token)
			}
			switch {
			case err == nil:
				early.Add(1)
			case errors.Is(err, pgsession.ErrRevoked), errors.Is(err, pgsession.ErrNotFound):
				late.Add(1)
			default:
				t.Errorf("try %d: %v", i, err)
			}
			if err := <-ended; err != nil {
				t.Errorf("try %d: %v", i, err)
			}
		}
	})
	var rows, live int
	w.scan(t, &rows, `select count(*) from {table}`)
	w.scan(t, &live, `select count(*) from {table} as t where t.revoked_at is null`)
	if rows != tries || live != 0 {
		t.Errorf("of %d ended sessions %d are back; %d rows", tries, live, rows)
	}
	if late.Load() == 0 || early.Load() == 0 {
		t.Errorf("%d writes came before the end and %d after: there was no race", early.Load(), late.Load())
	}
}
