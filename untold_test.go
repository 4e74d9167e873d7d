package pgsession_test

import (
	"testing"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// untold is a store on one connection, which its owner begins and ends transactions on without
// WithQuery, and another instance.
func untold(t *testing.T) (store, other *pgsession.Store, exec func(string)) {
	t.Helper()
	address := pgtest.Database(t)
	conn := dial(t, address, nil)
	other = setUp(t, pgtest.Connect(t, address).Query, pgsession.Config{Listen: listenFor(address)})
	store = setUp(t, exclusive(conn.Query), pgsession.Config{
		Listen: listenFor(address), Cleanup: pgsession.Cleanup{Mode: pgsession.CleanupOff},
	})
	awaitLive(t, store)
	awaitLive(t, other)
	return store, other, func(sql string) { must(t, second(conn.Exec(t.Context(), sql))) }
}

func TestAWriteInATransactionThatNobodyToldOfIsPublishedByItsCommit(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	store, other, exec := untold(t)
	token, _, err := other.Create(ctx, pgsession.Session{Data: []byte("1")})
	must(t, err)
	heard := other.Stats().Notify.Heard
	exec("begin")
	_, err = store.Set(ctx, token, pgsession.Session{Data: []byte("2")})
	must(t, err)
	eventually(t, "a beat is heard, after which a publication would have been", func() bool {
		return other.Stats().Notify.Heard > heard
	})
	serves(t, other, token, "1")
	exec("commit")
	serves(t, other, token, "2")
}

func TestASessionWhoseEndWasRolledBackLivesOn(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	store, _, exec := untold(t)
	token, s, err := store.Create(ctx, pgsession.Session{Subject: "ada", Data: []byte("1")})
	must(t, err)
	for name, end := range map[string]func() (int, error){
		"destroy":           func() (int, error) { return store.Destroy(ctx, token) },
		"revoke by id":      func() (int, error) { return store.Revoke(ctx, pgsession.Revocation{IDs: []pgsession.ID{s.ID}}) },
		"revoke by subject": func() (int, error) { return store.Revoke(ctx, pgsession.Revocation{Subject: "ada"}) },
		"renew": func() (int, error) {
			_, renewed, err := store.Renew(ctx, token, pgsession.Renewal{Subject: "bob"})
			return len(renewed.Data), err
		},
	} {
		exec("begin")
		if n, err := end(); n != 1 || err != nil {
			t.Errorf("%s: %d, %v", name, n, err)
		}
		exec("rollback")
		if _, err := store.Get(ctx, token); err != nil {
			t.Errorf("after a %s that was rolled back: %v", name, err)
		}
		if _, err := store.GetFresh(ctx, token); err != nil {
			t.Errorf("after a %s that was rolled back: %v", name, err)
		}
	}
}
