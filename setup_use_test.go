package pgsession_test

import (
	"crypto/rand"
	"errors"
	"testing"

	"github.com/pgsession/pgsession"
)

// useAsRequest does all that requests do: what Config.AppRole may. columns are promoted ones with two
// values each.
func useAsRequest(t *testing.T, s pgsession.Sessions, columns map[string][2]string) {
	t.Helper()
	ctx := t.Context()
	refuse := func(err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Fatalf("err = %v, want %v", err, want)
		}
	}
	values := func(i int) map[string]any {
		m := map[string]any{}
		for name, pair := range columns {
			m[name] = pair[i]
		}
		return m
	}
	expect := func(got pgsession.Session, data string, subject string, i int) {
		t.Helper()
		if string(got.Data) != data || got.Subject != subject {
			t.Fatalf("got %q of %q, want %q of %q", got.Data, got.Subject, data, subject)
		}
		for name, want := range values(i) { // another instance may have promoted more
			if got.Columns[name] != want {
				t.Fatalf("column %q is %v, want %v", name, got.Columns[name], want)
			}
		}
	}
	subject := "subject " + rand.Text()

	token, created, err := s.Create(ctx, pgsession.Session{
		Subject: subject, Data: []byte(`{"n": 1}`), Codec: pgsession.CodecJSON, Columns: values(0),
	})
	must(t, err)
	got, err := s.Get(ctx, token)
	must(t, err)
	expect(got, `{"n": 1}`, subject, 0)
	must(t, s.View(ctx, token, func(v pgsession.Session) error { expect(v, `{"n": 1}`, subject, 0); return nil }))

	got.Data, got.Columns = []byte("two"), values(1)
	got.Codec = pgsession.CodecOpaque
	got, err = s.Set(ctx, token, got)
	must(t, err)
	expect(got, "two", subject, 1)
	same, err := s.Set(ctx, token, got) // its content is byte-equal
	must(t, err)
	if same.Version != got.Version {
		t.Fatal("a Set that changes nothing changed the version")
	}
	stale, err := s.Set(ctx, token, created)
	refuse(err, pgsession.ErrConflict)
	expect(stale, "two", subject, 1)
	got, err = s.Update(ctx, token, func(u *pgsession.Session) error {
		u.Data = append(u.Data, '+')
		for name := range columns {
			u.Columns[name] = nil
		}
		return nil
	})
	must(t, err)
	for name, v := range got.Columns {
		if v != nil {
			t.Fatalf("column %q is %v, want NULL", name, v)
		}
	}
	_, err = s.Touch(ctx, token)
	must(t, err)

	// Neither deadline, for what the functions do with nulls.
	endless, _, err := s.Create(ctx, pgsession.Session{
		Subject: subject, IdleTimeout: -1, AbsoluteTimeout: -1, Columns: values(0),
	})
	must(t, err)
	got, err = s.GetFresh(ctx, endless)
	must(t, err)
	expect(got, "", subject, 0)
	_, err = s.Touch(ctx, endless)
	must(t, err)
	_, err = s.Set(ctx, endless, got)
	must(t, err)

	for _, filter := range []pgsession.Filter{{Subject: subject}, {Subject: subject, Columns: values(0)}} {
		want := int64(2)
		if len(filter.Columns) > 0 {
			want = 1
		}
		n, err := s.Count(ctx, filter)
		must(t, err)
		var listed int64
		for session, err := range s.All(ctx, filter) {
			must(t, err)
			if session.Subject != subject {
				t.Fatalf("All of subject %q yields one of %q", subject, session.Subject)
			}
			listed++
		}
		if n != want || listed != want {
			t.Fatalf("Count = %d and All yields %d, want %d, of %v", n, listed, want, filter)
		}
	}

	old := token
	token, renewed, err := s.Renew(ctx, token, pgsession.Renewal{})
	must(t, err)
	if renewed.Subject != subject || renewed.ID == created.ID {
		t.Fatalf("renewed to %+v", renewed)
	}
	_, err = s.Touch(ctx, old)
	must(t, err)

	missing := pgsession.Token("no such token " + rand.Text())
	_, err = s.Get(ctx, missing)
	refuse(err, pgsession.ErrNotFound)
	_, err = s.Touch(ctx, missing)
	refuse(err, pgsession.ErrNotFound)
	_, err = s.Set(ctx, missing, pgsession.Session{Version: 1})
	refuse(err, pgsession.ErrNotFound)

	ended, err := s.Destroy(ctx, token, missing)
	must(t, err)
	_, err = s.Get(ctx, token)
	refuse(err, pgsession.ErrNotFound)
	_, err = s.Set(ctx, token, pgsession.Session{})
	refuse(err, pgsession.ErrRevoked)
	_, err = s.Touch(ctx, token)
	refuse(err, pgsession.ErrRevoked)
	revoked, err := s.Revoke(ctx, pgsession.Revocation{IDs: []pgsession.ID{got.ID}, Subject: subject})
	must(t, err)
	_, _, err = s.Create(ctx, pgsession.Session{Subject: subject})
	must(t, err)
	all, err := s.Revoke(ctx, pgsession.Revocation{Subject: subject, Except: []pgsession.ID{got.ID}})
	must(t, err)
	if ended != 1 || revoked != 1 || all != 1 {
		t.Fatalf("Destroy ended %d, Revoke by id %d, by subject %d; want 1 each", ended, revoked, all)
	}
}

// useAsAdmin does what Config.AdminRole may, to a store that holds at least one live session, and
// leaves none.
func useAsAdmin(t *testing.T, s *pgsession.Store) {
	t.Helper()
	ctx := t.Context()
	count, err := s.Count(ctx, pgsession.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	var last pgsession.Session
	listed := int64(0)
	for session, err := range s.All(ctx, pgsession.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		last = session
		listed++
	}
	if count == 0 || listed != count {
		t.Fatalf("Count = %d and All yields %d, want the same, above 0", count, listed)
	}
	revoked, err := s.Revoke(ctx, pgsession.Revocation{IDs: []pgsession.ID{last.ID}})
	if err != nil || revoked != 1 {
		t.Fatalf("Revoke = %d, %v, want 1", revoked, err)
	}
	if _, err := s.Prune(ctx); err != nil {
		t.Fatal(err)
	}
	cleared, err := s.Clear(ctx)
	if err != nil || cleared != count-1 {
		t.Fatalf("Clear = %d, %v, want %d", cleared, err, count-1)
	}
}

// useAll does everything with a store that has all rights.
func useAll(t *testing.T, s *pgsession.Store, columns map[string][2]string) {
	t.Helper()
	useAsRequest(t, s, columns)
	if _, _, err := s.Create(t.Context(), pgsession.Session{Data: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Create(t.Context(), pgsession.Session{Data: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	useAsAdmin(t, s)
}
