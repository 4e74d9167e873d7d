package pgsession_test

import (
	"testing"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/postgres"
)

// deafened is a store that listens through a proxy, and goes on serving for longer than a test lasts when
// the proxy swallows what it should hear; and another one, whose beats are quicker.
func deafened(t *testing.T) (store, other *pgsession.Store, proxy *postgres.Proxy) {
	t.Helper()
	store, pool, _ := listening(t, func(address string, cfg *pgsession.Config) {
		proxy = listenThroughProxy(t, address, cfg)
		cfg.Cache.Liveness, cfg.Notify = 30*time.Second, pgsession.NotifyInTx
	})
	other = setUp(t, pool.Query, fastListening(pool.Config().ConnString()))
	awaitLive(t, store)
	return store, other, proxy
}

func TestWhatIsDoneByAnOldTokenIsSeenByItThoughNothingIsHeard(t *testing.T) {
	t.Parallel()
	store, other, proxy := deafened(t)
	ctx := t.Context()
	session := func() (pgsession.Token, pgsession.ID) {
		token, s, err := store.Create(ctx, pgsession.Session{Data: []byte(`{}`), Codec: pgsession.CodecJSON})
		must(t, err)
		_, err = store.Get(ctx, token)
		must(t, err)
		return token, s.ID
	}
	destroyed, _ := session()
	revoked, id := session()
	updated, _ := session()
	patched, _ := session()
	fresh, _ := session()
	proxy.Swallow()
	for _, token := range []pgsession.Token{destroyed, revoked, updated, patched, fresh} {
		_, _, err := other.Renew(ctx, token, pgsession.Renewal{})
		must(t, err)
	}
	before := store.Stats().Cache.Hits
	_, err := store.Get(ctx, destroyed)
	must(t, err)
	if store.Stats().Cache.Hits != before+1 {
		t.Fatal("it has heard of the renewal")
	}

	n, err := store.Destroy(ctx, destroyed)
	if n != 1 || err != nil {
		t.Fatalf("destroyed %d, %v", n, err)
	}
	_, err = store.Get(ctx, destroyed)
	wantError(t, "get of what was destroyed", err, pgsession.ErrNotFound)

	n, err = store.Revoke(ctx, pgsession.Revocation{IDs: []pgsession.ID{id}})
	if n != 1 || err != nil {
		t.Fatalf("revoked %d, %v", n, err)
	}
	_, err = store.Get(ctx, revoked)
	wantError(t, "get of what was revoked", err, pgsession.ErrNotFound)

	_, err = store.Update(ctx, updated, func(s *pgsession.Session) error { s.Data = []byte(`{"a": 1}`); return nil })
	must(t, err)
	if s, err := store.Get(ctx, updated); err != nil || string(s.Data) != `{"a": 1}` {
		t.Errorf("after an update: %s, %v", s.Data, err)
	}
	_, err = store.Patch(ctx, patched, []byte(`{"a":1}`))
	must(t, err)
	if s, err := store.Get(ctx, patched); err != nil || string(s.Data) != `{"a": 1}` {
		t.Errorf("after a patch: %s, %v", s.Data, err)
	}
	s, err := store.GetFresh(ctx, fresh)
	must(t, err)
	if again, err := store.Get(ctx, fresh); err != nil || again.ID != s.ID {
		t.Errorf("after a fresh get of %s: %s, %v", s.ID, again.ID, err)
	}
}
