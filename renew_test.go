package pgsession_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
)

// renew renews a session.
func (w *way) renew(t *testing.T, token pgsession.Token, subject string) (pgsession.Token, pgsession.Session) {
	t.Helper()
	next, session, err := w.Renew(t.Context(), token, pgsession.Renewal{Subject: subject})
	must(t, err)
	return next, session
}

// standsFor fails the test unless everything that an old token may do reaches a session, which is ended
// by it at last.
func (w *way) standsFor(t *testing.T, old, current pgsession.Token) {
	t.Helper()
	ctx, id := t.Context(), w.id(t, current)
	is := func(what string, s pgsession.Session, err error) {
		t.Helper()
		if err != nil || s.ID != id {
			t.Errorf("%s by the old token: %s, %v; want %s", what, s.ID, err, id)
		}
	}
	for range 2 { // what was reached by an old token is not cached
		s, err := w.Get(ctx, old)
		is("get", s, err)
	}
	s, err := w.GetFresh(ctx, old)
	is("get fresh", s, err)
	must(t, w.View(ctx, old, func(lent pgsession.Session) error { is("view", lent, nil); return nil }))
	s, err = w.Update(ctx, old, func(s *pgsession.Session) error { s.Data = append(s.Data, '+'); return nil })
	is("update", s, err)
	if got, err := w.Get(ctx, current); err != nil || !strings.HasSuffix(string(got.Data), "+") {
		t.Errorf("after an update by the old token: %+v, %v", got, err)
	}
	if expiresAt, err := w.Touch(ctx, old); err != nil || expiresAt.Before(s.ExpiresAt) {
		t.Errorf("touch by the old token: %v, %v", expiresAt, err)
	}
	before := w.row(t, current)
	for _, version := range []int64{0, s.Version} { // who saves blindly, and who saves what he read
		_, err = w.Set(ctx, old, pgsession.Session{Data: []byte("late"), Version: version})
		wantError(t, "set by the old token", err, pgsession.ErrRenewed, pgsession.ErrRevoked)
	}
	if after := w.row(t, current); after != before {
		t.Errorf("set by the old token: the session was %s and is %s", before, after)
	}
	token, s, err := w.Renew(ctx, old, pgsession.Renewal{})
	is("renew", s, nil)
	wantError(t, "renew by the old token", err, pgsession.ErrRenewed)
	if token != "" {
		t.Error("a renewal by the old token returned a token")
	}
	if n, err := w.Destroy(ctx, "missing", old); n != 1 || err != nil {
		t.Errorf("destroyed %d by the old token, %v", n, err)
	}
	_, err = w.Get(ctx, current)
	wantError(t, "get after that", err, pgsession.ErrNotFound)
}

// standsForNothing fails the test unless an old token neither finds nor changes anything.
func (w *way) standsForNothing(t *testing.T, what string, old, current pgsession.Token) {
	t.Helper()
	ctx, before := t.Context(), w.row(t, current)
	_, err := w.Get(ctx, old)
	wantError(t, what+": get", err, pgsession.ErrNotFound)
	_, err = w.GetFresh(ctx, old)
	wantError(t, what+": get fresh", err, pgsession.ErrNotFound)
	wantError(t, what+": view", w.View(ctx, old, func(pgsession.Session) error { panic("called") }), pgsession.ErrNotFound)
	_, err = w.Update(ctx, old, func(*pgsession.Session) error { panic("called") })
	wantError(t, what+": update", err, pgsession.ErrNotFound)
	_, err = w.Touch(ctx, old)
	wantError(t, what+": touch", err, pgsession.ErrRenewed)
	_, err = w.Set(ctx, old, pgsession.Session{})
	wantError(t, what+": set", err, pgsession.ErrRenewed)
	token, s, err := w.Renew(ctx, old, pgsession.Renewal{Subject: "eve"})
	wantError(t, what+": renew", err, pgsession.ErrRenewed)
	if token != "" || s.ID != "" {
		t.Errorf("%s: renew returned a token or the session %+v", what, s)
	}
	if n, err := w.Destroy(ctx, old); n != 0 || err != nil {
		t.Errorf("%s: destroyed %d, %v", what, n, err)
	}
	if after := w.row(t, current); after != before {
		t.Errorf("%s: the session was %s and is %s", what, before, after)
	}
}

func TestRenewChangesTheTokenAndNothingElse(t *testing.T) {
	t.Parallel()
	cfg := pgsession.Config{
		Columns: []pgsession.Column{{Name: "ip", Type: "inet"}}, IdleTimeout: time.Hour, TouchInterval: time.Microsecond,
	}
	everyWay(t, cfg, func(t *testing.T, w *way) {
		w.exec(t, `alter table {table} add column note text`)
		w.exec(t, `create table {schema}.orders (session text references {table} (id) on update cascade)`)
		token, s := w.create(t, pgsession.Session{
			Subject: "ada", Data: []byte("\x00data"), Codec: pgsession.CodecOpaque, Columns: map[string]any{"ip": "10.0.0.1"},
		})
		w.exec(t, `update {table} set note = 'by hand'`)
		w.exec(t, `insert into {schema}.orders select id from {table}`)
		next, renewed := w.renew(t, token, "")
		if next == token || renewed.ID != w.id(t, next) {
			t.Errorf("the new token is of the session %s", renewed.ID)
		}
		if renewed.Version <= s.Version || !renewed.ExpiresAt.After(s.ExpiresAt) {
			t.Errorf("version %d and expiry %v became %d and %v", s.Version, s.ExpiresAt, renewed.Version, renewed.ExpiresAt)
		}
		same := renewed
		same.ID, same.Version, same.ExpiresAt = s.ID, s.Version, s.ExpiresAt
		if !equalSessions(same, s) {
			t.Errorf("it was %+v and is %+v", s, renewed)
		}
		if got, err := w.Get(t.Context(), next); err != nil || !equalSessions(got, renewed) {
			t.Errorf("got %+v, %v; want %+v", got, err, renewed)
		}
		var kept string
		w.scan(t, &kept, `select concat_ws(' ', t.note, o.session = t.id) from {table} as t join {schema}.orders as o on o.session = t.id`)
		if kept != "by hand t" {
			t.Errorf("what the application added is %q", kept)
		}
		if tombstone := w.row(t, token); strings.Contains(tombstone, "00646174") || tombstone == "" {
			t.Errorf("the tombstone is %q", tombstone)
		}
		if n, err := w.Count(t.Context(), pgsession.Filter{Subject: "ada"}); n != 1 || err != nil {
			t.Errorf("%d sessions, %v", n, err)
		}
	})
}

// equalSessions compares all but Columns' identity.
func equalSessions(a, b pgsession.Session) bool {
	return a.ID == b.ID && a.Subject == b.Subject && string(a.Data) == string(b.Data) && a.Codec == b.Codec &&
		a.Version == b.Version && a.CreatedAt.Equal(b.CreatedAt) && a.ExpiresAt.Equal(b.ExpiresAt) &&
		a.IdleTimeout == b.IdleTimeout && a.AbsoluteTimeout == b.AbsoluteTimeout && a.Columns["ip"] == b.Columns["ip"]
}

func TestAnOldTokenStandsForItsSessionDuringTheGrace(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		for _, subject := range []string{"ada", ""} {
			first, _ := w.create(t, pgsession.Session{Subject: subject})
			_, err := w.Get(t.Context(), first)
			must(t, err)
			second, _ := w.renew(t, first, subject) // the same subject: no login
			w.standsFor(t, first, second)

			first, _ = w.create(t, pgsession.Session{Subject: subject})
			second, _ = w.renew(t, first, "")
			third, _ := w.renew(t, second, "")
			w.standsFor(t, first, third)
			_, err = w.Touch(t.Context(), second)
			wantError(t, "touch after the destruction", err, pgsession.ErrRevoked)
			if errors.Is(err, pgsession.ErrRenewed) {
				t.Error("a session that was ended counts as renewed")
			}
		}
	})
}

func TestAnOldTokenIsDeadAtALoginAndAfterTheGrace(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{RenewGrace: time.Hour}, func(t *testing.T, w *way) {
		ctx := t.Context()
		planted, _ := w.create(t, pgsession.Session{Data: []byte("basket")})
		_, err := w.Get(ctx, planted)
		must(t, err)
		token, s := w.renew(t, planted, "ada")
		if s.Subject != "ada" || string(s.Data) != "basket" {
			t.Errorf("logged in as %+v", s)
		}
		w.standsForNothing(t, "at a login", planted, token)

		planted, _ = w.create(t, pgsession.Session{})
		token, s = w.renew(t, planted, "")
		_, err = w.Get(ctx, planted)
		must(t, err)
		s.Subject = "ada"
		_, err = w.Set(ctx, token, s)
		must(t, err)
		w.standsForNothing(t, "after a later login by Set", planted, token)

		planted, _ = w.create(t, pgsession.Session{})
		between, _ := w.renew(t, planted, "")
		token, _ = w.renew(t, between, "ada")
		w.standsForNothing(t, "after a later login by Renew", planted, token)
		w.standsForNothing(t, "at a login, between", between, token)

		old, _ := w.create(t, pgsession.Session{Subject: "ada"})
		token, _ = w.renew(t, old, "")
		w.age(t, 59*time.Minute)
		_, err = w.Get(ctx, old)
		must(t, err)
		w.age(t, time.Minute)
		w.standsForNothing(t, "after the grace", old, token)
		if n := w.store.Stats().Reused; n == 0 {
			t.Error("its use was not counted")
		}
	})
}

func TestAnOldTokenStaysDeadWhenTheSubjectIsWhatItWas(t *testing.T) {
	t.Parallel()
	mainWays(t, pgsession.Config{}, func(t *testing.T, w *way) {
		become := func(token pgsession.Token, subject string) {
			t.Helper()
			_, err := w.Set(t.Context(), token, pgsession.Session{Subject: subject, Data: []byte(subject)})
			must(t, err)
		}
		planted, _ := w.create(t, pgsession.Session{})
		token, _ := w.renew(t, planted, "ada")
		become(token, "")
		w.standsForNothing(t, "after a login by Renew, and a logout", planted, token)
		if n := w.store.Stats().Reused; n != 0 {
			t.Error("within the grace that is no sign of a theft")
		}

		planted, _ = w.create(t, pgsession.Session{})
		between, _ := w.renew(t, planted, "")
		token, _ = w.renew(t, between, "")
		become(token, "ada")
		become(token, "")
		w.standsForNothing(t, "after a login by Set, and a logout", planted, token)
		w.standsForNothing(t, "after a login by Set, and a logout, in between", between, token)
		between = token
		token, _ = w.renew(t, token, "")
		w.standsForNothing(t, "and a renewal", planted, token)
		w.standsFor(t, between, token) // which came after

		planted, _ = w.create(t, pgsession.Session{Subject: "ada"})
		token, _ = w.renew(t, planted, "")
		become(token, "bob")
		w.age(t, 25*time.Hour, token)
		become(token, "ada")
		w.standsForNothing(t, "after another subject's expired in between", planted, token)
	})
}

func TestALoginInPlaceWaitsForTheOldTokensRowNoLongerThanTheLockTimeout(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{LockTimeout: 50 * time.Millisecond})
	old, _ := w.create(t, pgsession.Session{})
	token, _ := w.renew(t, old, "")
	tx := w.begin(t)
	rows, err := tx.query(t.Context(), w.fill(`select from {table} as t where t.id = $1::text for update`), string(w.id(t, old)))
	must(t, err)
	rows.Close()
	before := w.row(t, token)
	_, err = w.Set(t.Context(), token, pgsession.Session{Subject: "ada"})
	wantError(t, "login", err, pgsession.ErrBusy)
	if after := w.row(t, token); after != before {
		t.Errorf("it was %s and is %s", before, after)
	}
	must(t, tx.rollback())
	_, err = w.Set(t.Context(), token, pgsession.Session{Subject: "ada"})
	must(t, err)
	w.standsForNothing(t, "after the login", old, token)
}

func TestWithoutAGraceAnOldTokenIsDeadAtOnce(t *testing.T) {
	t.Parallel()
	for _, tombstone := range []time.Duration{0, -1} {
		w := onPool(t, pgsession.Config{RenewGrace: -1, Tombstone: tombstone})
		old, loaded := w.create(t, pgsession.Session{})
		token, _ := w.renew(t, old, "")
		if tombstone == 0 {
			w.standsForNothing(t, "without a grace", old, token)
			continue
		}
		if row := w.row(t, old); row != "" {
			t.Errorf("without tombstones and grace there is %s", row)
		}
		_, err := w.Set(t.Context(), old, loaded)
		wantError(t, "set of the loaded session", err, pgsession.ErrNotFound)
	}
	// A grace needs a tombstone, whatever Config.Tombstone is.
	w := onPool(t, pgsession.Config{RenewGrace: time.Minute, Tombstone: -1})
	old, _ := w.create(t, pgsession.Session{})
	token, _ := w.renew(t, old, "")
	w.age(t, 30*time.Second)
	if n := w.prune(t); n != 0 {
		t.Errorf("pruned %d rows within the grace", n)
	}
	w.age(t, 2*time.Minute)
	if n := w.prune(t); n != 1 || w.row(t, old) != "" {
		t.Errorf("pruned %d rows after the grace", n)
	}
	old = token
	token, _ = w.renew(t, old, "")
	w.standsFor(t, old, token)
}

func TestRenewOfWhatIsNotThere(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		renew := func(token pgsession.Token, subject string) error {
			next, s, err := w.Renew(t.Context(), token, pgsession.Renewal{Subject: subject})
			if next != "" || s.ID != "" {
				t.Errorf("a renewal that failed returned %+v", s)
			}
			return err
		}
		ended, _ := w.create(t, pgsession.Session{})
		_, err := w.Destroy(t.Context(), ended)
		must(t, err)
		expired, _ := w.create(t, pgsession.Session{IdleTimeout: time.Hour})
		w.age(t, 2*time.Hour, expired)
		wantError(t, "missing", renew("missing", ""), pgsession.ErrNotFound)
		wantError(t, "expired", renew(expired, ""), pgsession.ErrNotFound)
		wantError(t, "ended", renew(ended, "ada"), pgsession.ErrRevoked)
		wantError(t, "a bad subject", renew("missing", "\x00"), pgsession.ErrInvalid)
		var rows int
		if w.scan(t, &rows, `select count(*) from {table}`); rows != 2 {
			t.Errorf("%d rows, want the 2 that there were", rows)
		}
	})
}

func TestARenewalThatWasFasterCostsNobodyHisLogin(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		old, _ := w.create(t, pgsession.Session{})
		between, _ := w.renew(t, old, "")
		token, s := w.renew(t, old, "ada")
		if s.Subject != "ada" || s.ID != w.id(t, token) {
			t.Errorf("logged in as %+v", s)
		}
		w.standsForNothing(t, "the first", old, token)
		w.standsForNothing(t, "the second", between, token)
		// Who comes second with the same login has the session, but not with another one.
		next, s, err := w.Renew(t.Context(), old, pgsession.Renewal{Subject: "ada"})
		wantError(t, "the same login", err, pgsession.ErrRenewed)
		if next != "" || s.ID != w.id(t, token) {
			t.Errorf("the same login got %+v", s)
		}
		w.age(t, 11*time.Second)
		_, s, err = w.Renew(t.Context(), old, pgsession.Renewal{Subject: "ada"})
		wantError(t, "the same login after the grace", err, pgsession.ErrRenewed)
		if s.ID != "" {
			t.Errorf("the same login after the grace got %+v", s)
		}
	})
}

func TestARenewInATransactionIsCommittedOrRolledBackWithIt(t *testing.T) {
	t.Parallel()
	everyPool(t, pgsession.Config{}, func(t *testing.T, w *way) {
		ctx := t.Context()
		old, _ := w.create(t, pgsession.Session{})
		for _, commit := range []bool{false, true} {
			_, err := w.Get(ctx, old)
			must(t, err)
			tx := w.begin(t)
			inside := w.store.WithQuery(tx.query)
			token, _, err := inside.Renew(ctx, old, pgsession.Renewal{Subject: "ada"})
			must(t, err)
			_, err = inside.Get(ctx, token)
			must(t, err)
			_, err = inside.Get(ctx, old)
			wantError(t, "the old token inside", err, pgsession.ErrNotFound)
			if s, err := w.Get(ctx, old); err != nil || s.Subject != "" {
				t.Errorf("outside before the end: %+v, %v", s, err)
			}
			_, err = w.Get(ctx, token)
			wantError(t, "the new token outside", err, pgsession.ErrNotFound)
			if !commit {
				must(t, tx.rollback())
				_, err = w.Get(ctx, old)
				must(t, err)
				continue
			}
			must(t, tx.commit())
			w.standsForNothing(t, "after the commit", old, token)
			if s, err := w.Get(ctx, token); err != nil || s.Subject != "ada" {
				t.Errorf("after the commit: %+v, %v", s, err)
			}
		}
	})
}

func TestTypedRenew(t *testing.T) {
	t.Parallel()
	type basket struct{ Items int }
	w := onPool(t, pgsession.Config{})
	baskets := pgsession.JSON[basket](w)
	old, _, err := baskets.Create(t.Context(), pgsession.TypedSession[basket]{Value: basket{3}})
	must(t, err)
	token, s, err := baskets.Renew(t.Context(), old, pgsession.Renewal{Subject: "ada"})
	if err != nil || token == "" || s.Value.Items != 3 || s.Subject != "ada" {
		t.Errorf("renewed to %+v, %v", s, err)
	}
	token, s, err = baskets.Renew(t.Context(), old, pgsession.Renewal{Subject: "ada"})
	wantError(t, "the second", err, pgsession.ErrRenewed)
	if token != "" || s.Value.Items != 3 {
		t.Errorf("the second renewal got %+v", s)
	}
	_, s, err = baskets.Renew(t.Context(), "missing", pgsession.Renewal{})
	wantError(t, "of what is missing", err, pgsession.ErrNotFound)
	if s.Value.Items != 0 {
		t.Errorf("of what is missing: %+v", s)
	}
}
