package pgsession_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

// Whoever was told that a session is ended must not be served it, also where another instance was
// faster and is not heard yet.
func TestWhatAnotherInstanceEndedFirstIsNotServedAfterOnesOwnEnd(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	address := pgtest.Database(t)
	pool := pgtest.Connect(t, address)
	other := setUp(t, pool.Query, pgsession.Config{})
	proxy := proxyTo(t, address)
	slow, err := postgres.WithAddress(address, proxy.Address())
	must(t, err)
	cfg := pgsession.Config{Listen: listenFor(slow)}
	cfg.Cache.Liveness = 30 * time.Second
	store := setUp(t, pool.Query, cfg)
	for name, end := range map[string]func(pgsession.Token, pgsession.ID) (int, error){
		"destroy": func(token pgsession.Token, _ pgsession.ID) (int, error) {
			return store.Destroy(ctx, token)
		},
		"revoke by id": func(_ pgsession.Token, id pgsession.ID) (int, error) {
			return store.Revoke(ctx, pgsession.Revocation{IDs: []pgsession.ID{id}})
		},
		"revoke by subject": func(pgsession.Token, pgsession.ID) (int, error) {
			return store.Revoke(ctx, pgsession.Revocation{Subject: "ada"})
		},
		"destroy in a transaction": func(token pgsession.Token, _ pgsession.ID) (n int, err error) {
			err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
				n, err = store.WithQuery(tx.Query).Destroy(ctx, token)
				return err
			})
			return n, err
		},
	} {
		proxy.Forward()
		awaitLive(t, store)
		token, s, err := other.Create(ctx, pgsession.Session{Subject: "ada"})
		must(t, err)
		_, err = store.Get(ctx, token)
		must(t, err)
		proxy.Delay(5 * time.Second) // less than its patience: it stays live
		_, err = other.Destroy(ctx, token)
		must(t, err)
		if _, err = store.Get(ctx, token); err != nil {
			t.Errorf("%s: it was heard at once, or not read from memory: %v", name, err)
		}
		if n, err := end(token, s.ID); n != 0 || err != nil {
			t.Errorf("%s: %d were ended, %v", name, n, err)
		}
		_, err = store.Get(ctx, token)
		wantError(t, name+", and get", err, pgsession.ErrNotFound)
	}
}
