package pgsession_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

// inContext is a transaction that a QueryFunc finds in the context, as many applications have it.
type inContext struct{}

// slowTx announces each statement, and waits before it is sent.
type slowTx struct {
	pgx.Tx
	sent    chan struct{}
	proceed chan struct{}
}

// What one request reads inside its transaction, others who ask meanwhile must not be given.
func TestALoadInsideATransactionOfTheContextIsSharedWithNobody(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	address := pgtest.Database(t)
	pool := pgtest.Connect(t, address)
	store := setUp(t, func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
		if tx, ok := ctx.Value(inContext{}).(slowTx); ok {
			tx.sent <- struct{}{}
			<-tx.proceed
			return tx.Query(ctx, sql, args...)
		}
		return pool.Query(ctx, sql, args...)
	}, pgsession.Config{Listen: listenFor(address)})
	awaitLive(t, store)
	other := setUp(t, pool.Query, pgsession.Config{}) // what is done by it the store has not in memory
	token, s, err := other.Create(ctx, pgsession.Session{Data: []byte("committed")})
	must(t, err)
	raw, err := pool.Begin(ctx)
	must(t, err)
	defer func() { _ = raw.Rollback(ctx) }()
	s.Data = []byte("never committed")
	_, err = other.WithQuery(raw.Query).Set(ctx, token, s)
	must(t, err)

	tx := slowTx{raw, make(chan struct{}), make(chan struct{})}
	inside := context.WithValue(ctx, inContext{}, tx)
	type read struct {
		data string
		err  error
	}
	get := func(ctx context.Context) <-chan read {
		c := make(chan read, 1)
		go func() {
			s, err := store.Get(ctx, token)
			c <- read{string(s.Data), err}
		}()
		return c
	}
	own := get(inside)
	<-tx.sent // its load is under way
	before := store.Stats().Cache
	outside := get(ctx)
	eventually(t, "it waits for a load", func() bool { return store.Stats().Cache.Misses > before.Misses })
	close(tx.proceed)
	if got := <-own; got.err != nil || got.data != "never committed" {
		t.Errorf("inside the transaction: %+v", got)
	}
	if got := <-outside; got.err != nil || got.data != "committed" {
		t.Errorf("outside of the transaction: %+v", got)
	}

	// From now on nobody's load is others' to wait for, nor goes on when who asked has gone.
	token, _, err = other.Create(ctx, pgsession.Session{Data: []byte("here")})
	must(t, err)
	gone, cancel := context.WithCancel(ctx)
	tx = slowTx{raw, make(chan struct{}, 1), make(chan struct{})}
	left := get(context.WithValue(gone, inContext{}, tx))
	<-tx.sent
	cancel()
	select {
	case got := <-left:
		t.Errorf("the request ended while its statement was under way: %+v", got)
	default:
	}
	close(tx.proceed)
	if got := <-left; !errors.Is(got.err, context.Canceled) {
		t.Errorf("the one who left: %+v", got)
	}
}

// Who was told that a session is none is not served it after that, though nobody notified.
func TestAFreshReadThatFindsNoneEndsWhatIsCached(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	address := pgtest.Database(t)
	pool := pgtest.Connect(t, address)
	store := setUp(t, pool.Query, pgsession.Config{Listen: listenFor(address)})
	awaitLive(t, store)
	for name, look := range map[string]func(pgsession.Token) error{
		"GetFresh": func(token pgsession.Token) error {
			_, err := store.GetFresh(ctx, token)
			return err
		},
		"Update": func(token pgsession.Token) error {
			_, err := store.Update(ctx, token, func(*pgsession.Session) error { return nil })
			return err
		},
	} {
		token, s, err := store.Create(ctx, pgsession.Session{Data: []byte("here")})
		must(t, err)
		hits := store.Stats().Cache.Hits
		eventually(t, "it is cached", func() bool {
			_, err := store.Get(ctx, token)
			must(t, err)
			return store.Stats().Cache.Hits > hits
		})
		exec(t, pool, "delete from pgsession.session where id = $1", string(s.ID))
		wantError(t, name, look(token), pgsession.ErrNotFound)
		_, err = store.Get(ctx, token)
		wantError(t, fmt.Sprintf("get after %s", name), err, pgsession.ErrNotFound)
	}
}

// The same where it serves on while it hears nothing.
func TestAFreshReadThatFindsNoneEndsWhatIsServedUntilMaxAge(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	var proxy *postgres.Proxy
	store, pool, _ := listening(t, func(address string, cfg *pgsession.Config) {
		cfg.Cache.WhenNotLive = pgsession.ServeUntilMaxAge
		proxy = listenThroughProxy(t, address, cfg)
	})
	other := setUp(t, pool.Query, pgsession.Config{})
	awaitLive(t, store)
	token, _, err := store.Create(ctx, pgsession.Session{Data: []byte("here")})
	must(t, err)
	_, err = store.Get(ctx, token)
	must(t, err)
	proxy.Swallow()
	awaitNotLive(t, store)
	_, err = other.Destroy(ctx, token)
	must(t, err)
	_, err = store.GetFresh(ctx, token)
	wantError(t, "a fresh read", err, pgsession.ErrNotFound)
	_, err = store.Get(ctx, token)
	wantError(t, "a read", err, pgsession.ErrNotFound)
}
