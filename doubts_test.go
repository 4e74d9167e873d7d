package pgsession_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

// serves reads by a cached store until it sees what there is.
func serves(t *testing.T, store *pgsession.Store, token pgsession.Token, want string) {
	t.Helper()
	eventually(t, "it serves "+want, func() bool {
		s, err := store.Get(t.Context(), token)
		return err == nil && string(s.Data) == want
	})
}

// A request gives up while its statement is still on its way. The id's lock is free then, and the
// statement is carried out all the same.
func TestAWriteThatArrivesAfterItsRequestGaveUpIsPublished(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	address := pgtest.Database(t)
	direct := pgtest.Connect(t, address)
	other := setUp(t, direct.Query, pgsession.Config{Listen: listenFor(address)})
	proxy := proxyTo(t, address)
	slow, err := postgres.WithAddress(address, proxy.Address())
	must(t, err)
	config, err := pgxpool.ParseConfig(slow)
	must(t, err)
	config.MaxConns = 1
	config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false } // what is sent is the write
	pool, err := pgxpool.NewWithConfig(ctx, config)
	must(t, err)
	t.Cleanup(pool.Close)
	store := setUp(t, pool.Query, pgsession.Config{Listen: listenFor(address)})
	awaitLive(t, store)
	awaitLive(t, other)
	token, _, err := other.Create(ctx, pgsession.Session{Data: []byte("0")})
	must(t, err)
	_, err = store.Set(ctx, token, pgsession.Session{Data: []byte("1")}) // connected, and prepared
	must(t, err)
	proxy.Stall()
	short, giveUp := context.WithCancel(ctx)
	defer giveUp()
	wrote := make(chan error, 1)
	go func() {
		_, err := store.Set(short, token, pgsession.Session{Data: []byte("2")})
		wrote <- err
	}()
	eventually(t, "it is sent", func() bool { return proxy.Stalled() > 0 })
	giveUp()
	wantError(t, "set", <-wrote, pgsession.ErrInDoubt)
	proxy.Refuse() // not the request to cancel it, which the driver sends now
	eventually(t, "it is carried out", func() bool {
		_, err := other.Get(ctx, token) // so that there is something to drop
		must(t, err)
		return value[string](t, direct, "select convert_from(data, 'UTF8') from pgsession.session") == "2"
	})
	serves(t, other, token, "2")
}

// A write waits for its subject's lock, without the id's, and its client's machine goes away.
func TestAWriteThatWaitedForItsSubjectIsPublishedAfterItsClientHasGone(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	address := pgtest.Database(t)
	direct := pgtest.Connect(t, address)
	other := setUp(t, direct.Query, pgsession.Config{Listen: listenFor(address)})
	proxy := proxyTo(t, address)
	lost, err := postgres.WithAddress(address, proxy.Address())
	must(t, err)
	store := setUp(t, pgtest.Connect(t, lost).Query, pgsession.Config{Listen: listenFor(address)})
	awaitLive(t, store)
	awaitLive(t, other)
	token, s, err := other.Create(ctx, pgsession.Session{Subject: "ada", Data: []byte("1")})
	must(t, err)
	tx, err := direct.Begin(ctx)
	must(t, err)
	_, err = other.WithQuery(tx.Query).Revoke(ctx, pgsession.Revocation{Subject: "ada", Except: []pgsession.ID{s.ID}})
	must(t, err)
	wrote := make(chan error)
	go func() {
		_, err := store.Set(ctx, token, pgsession.Session{Subject: "ada", Data: []byte("2")})
		wrote <- err
	}()
	eventually(t, "it waits", func() bool { return advisoryWaits(t, direct) == 1 })
	proxy.Reset()
	wantError(t, "set", <-wrote, pgsession.ErrInDoubt)
	published := store.Stats().Notify.Published
	eventually(t, "it is published, though nothing is committed yet", func() bool { return store.Stats().Notify.Published > published })
	_, err = other.Get(ctx, token)
	must(t, err)
	must(t, tx.Commit(ctx))
	eventually(t, "it is carried out", func() bool {
		return value[string](t, direct, "select convert_from(data, 'UTF8') from pgsession.session") == "2"
	})
	serves(t, other, token, "2")
}

// What one session's publication fails at must not hold up the others'.
func TestAVersionBeyondAllOthersIsPublished(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w := onPool(t, pgsession.Config{})
	e := listenTo(t, pgtest.URL(t), channelOf(w.schema, "session"))
	token, s := w.create(t, pgsession.Session{Data: []byte("0")})
	w.exec(t, `update {table} set version = 9007199254740991 where id = $1`, string(s.ID))
	s, err := w.Set(ctx, token, pgsession.Session{Data: []byte("1")})
	must(t, err)
	e.expect(t, "a version above 2^53", payloadOf(s))
}
