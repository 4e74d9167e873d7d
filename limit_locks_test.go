package pgsession_test

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/pgsession/pgsession"
)

// ordered are three tokens in the order of their ids.
func ordered(t *testing.T, w *way) []pgsession.Token {
	t.Helper()
	tokens := []pgsession.Token{"a", "b", "c"}
	slices.SortFunc(tokens, func(a, b pgsession.Token) int { return cmp.Compare(w.id(t, a), w.id(t, b)) })
	return tokens
}

func TestALoginEvictsNoneWhoseTurnItIsNotAnyMore(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{MaxPerSubject: 2, Overflow: pgsession.OverflowEvictOldest, LockTimeout: -1})
	oldest, _ := w.create(t, pgsession.Session{Subject: "ada"})
	second, _ := w.create(t, pgsession.Session{Subject: "ada"})
	tx := w.begin(t)
	rows, err := tx.query(t.Context(), w.fill(`select from {table} as t where t.id = $1::text for update`), string(w.id(t, oldest)))
	must(t, err)
	rows.Close()
	login := make(chan error)
	go func() {
		_, _, err := w.Create(t.Context(), pgsession.Session{Subject: "ada"})
		login <- err
	}()
	w.awaitWaiting(t, 1) // for the oldest, which is to be evicted
	_, err = w.Destroy(t.Context(), second)
	must(t, err)
	must(t, tx.rollback())
	must(t, <-login)
	_, err = w.Get(t.Context(), oldest)
	must(t, err)
}

func TestALoginThatCannotEvictFails(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{MaxPerSubject: 1, Overflow: pgsession.OverflowEvictOldest})
	token, _ := w.create(t, pgsession.Session{Subject: "ada"})
	w.exec(t, `create function {schema}.keep() returns trigger language plpgsql as 'begin return null; end'`)
	w.exec(t, `create trigger keep before update on {table} for each row execute function {schema}.keep()`)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, _, err := w.Create(ctx, pgsession.Session{Subject: "ada"})
	wantSQLState(t, "login", err, "09000")
	_, err = w.Get(ctx, token)
	must(t, err)
	if n, err := w.Count(ctx, pgsession.Filter{}); n != 1 || err != nil {
		t.Errorf("%d sessions, %v", n, err)
	}
}

func TestALoginThatWaitsBringsNoExpiredSessionBack(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{MaxPerSubject: 1, Overflow: pgsession.OverflowEvictOldest, LockTimeout: -1})
	w.seed(t, 1, "victim", "ada", 1)
	token, before := w.create(t, pgsession.Session{Data: []byte("basket")})
	w.exec(t, `update {table} set expires_at = clock_timestamp() + interval '300 milliseconds' where subject is null`)
	tx := w.begin(t)
	rows, err := tx.query(t.Context(), w.fill(`select from {table} as t where t.subject = 'ada' for update`))
	must(t, err)
	rows.Close()
	logins := make(chan pgsession.Session)
	go func() {
		defer close(logins)
		s, err := w.Set(t.Context(), token, pgsession.Session{Subject: "ada", Data: []byte("hers")})
		if err != nil {
			t.Error(err)
		}
		logins <- s
	}()
	w.awaitWaiting(t, 1) // for the session to be evicted
	eventually(t, "the other one expires", func() bool {
		n, err := w.Count(t.Context(), pgsession.Filter{})
		must(t, err)
		return n == 1 // the victim
	})
	must(t, tx.rollback())
	if s := <-logins; !s.CreatedAt.After(before.CreatedAt) || s.Subject != "ada" || string(s.Data) != "hers" {
		t.Errorf("the session of %v is there, %v: %+v", before.CreatedAt, s.CreatedAt, s)
	}
}

func TestAnEvictionIsNotHeldUpByABulkOperationThatWaits(t *testing.T) {
	t.Parallel()
	for how, login := range map[string]func(w *way, token pgsession.Token) error{
		"set": func(w *way, token pgsession.Token) error {
			_, err := w.Set(t.Context(), token, pgsession.Session{Subject: "ada"})
			return err
		},
		"renew": func(w *way, token pgsession.Token) error {
			_, _, err := w.Renew(t.Context(), token, pgsession.Renewal{Subject: "ada"})
			return err
		},
	} {
		w := onPool(t, pgsession.Config{MaxPerSubject: 1, Overflow: pgsession.OverflowEvictOldest, LockTimeout: -1})
		tokens := ordered(t, w)
		for i, subject := range []string{"ada", "", ""} {
			_, err := w.Set(t.Context(), tokens[i], pgsession.Session{Subject: subject})
			must(t, err)
		}
		lock := func(token pgsession.Token) transaction {
			tx := w.begin(t)
			rows, err := tx.query(t.Context(), w.fill(`select from {table} as t where t.id = $1::text for update`), string(w.id(t, token)))
			must(t, err)
			rows.Close()
			must(t, rows.Err())
			return tx
		}
		// The mark of a bulk operation that was rolled back: a login must find out whether it is held.
		must(t, lock(tokens[2]).rollback())
		between := lock(tokens[1])
		cleared := make(chan error, 1)
		go func() {
			_, err := w.store.Clear(t.Context())
			cleared <- err
		}()
		w.awaitWaiting(t, 1) // for the second
		in := make(chan error, 1)
		go func() { in <- login(w, tokens[2]) }()
		eventually(t, "the login is through", func() bool { return len(in) == 1 })
		if err := <-in; err != nil && !errors.Is(err, pgsession.ErrRevoked) {
			t.Errorf("%s: %v", how, err)
		}
		must(t, between.commit())
		must(t, <-cleared)
	}
}

func TestALoginThatFailedInATransactionHoldsUpOthersToItsEnd(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{MaxPerSubject: 1})
	token, _ := w.create(t, pgsession.Session{Subject: "ada"})
	tx := w.begin(t)
	_, _, err := w.store.WithQuery(tx.query).Create(t.Context(), pgsession.Session{Subject: "ada"})
	wantError(t, "the second", err, pgsession.ErrTooManySessions)
	_, err = w.Destroy(t.Context(), token)
	must(t, err)
	login := make(chan error)
	go func() {
		_, _, err := w.Create(t.Context(), pgsession.Session{Subject: "ada"})
		login <- err
	}()
	w.awaitWaiting(t, 1)
	must(t, tx.rollback())
	must(t, <-login)
}
