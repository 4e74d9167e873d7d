package pgsession_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/lib/pq"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// exampleStore is what the examples start from: Open, and Setup. Each has a schema of its own.
func exampleStore(ctx context.Context, schema string) *pgsession.Store {
	store, err := pgsession.Open(ctx, pgtest.ExampleURL(), pgsession.Config{
		Schema: schema,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Setup(ctx); err != nil {
		log.Fatal(err)
	}
	return store
}

func Example() {
	ctx := context.Background()
	store := exampleStore(ctx, "example")
	defer store.Close()

	token, session, err := store.Create(ctx, pgsession.Session{Subject: "ada", Data: []byte("a basket")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("printed, a token is", token)
	fmt.Println("idle timeout", session.IdleTimeout, "absolute timeout", session.AbsoluteTimeout)

	session, err = store.Get(ctx, token)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s has %s\n", session.Subject, session.Data)

	// Logout. A slow request that saves what it loaded before brings nothing back.
	if _, err := store.Destroy(ctx, token); err != nil {
		log.Fatal(err)
	}
	_, err = store.Set(ctx, token, session)
	fmt.Println("ended:", errors.Is(err, pgsession.ErrRevoked))

	// Output:
	// printed, a token is [redacted]
	// idle timeout 24h0m0s absolute timeout 720h0m0s
	// ada has a basket
	// ended: true
}

func ExampleJSON() {
	ctx := context.Background()
	store := exampleStore(ctx, "example_json")
	defer store.Close()

	type basket struct{ Items []string }
	baskets := pgsession.JSON[basket](store)
	token, _, err := baskets.Create(ctx, pgsession.TypedSession[basket]{Value: basket{Items: []string{"tea"}}})
	if err != nil {
		log.Fatal(err)
	}
	session, err := baskets.Update(ctx, token, func(s *pgsession.TypedSession[basket]) error {
		s.Value.Items = append(s.Value.Items, "milk")
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(session.Value.Items)

	// Output:
	// [tea milk]
}

func ExampleStore_WithQuery() {
	ctx := context.Background()
	store := exampleStore(ctx, "example_tx")
	defer store.Close()
	pool, err := pgxpool.New(ctx, pgtest.ExampleURL())
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()

	token, session, err := store.Create(ctx, pgsession.Session{Data: []byte("nothing ordered")})
	if err != nil {
		log.Fatal(err)
	}
	tx, err := pool.Begin(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer tx.Rollback(ctx)
	// ... insert the order by tx.Exec ...
	session.Data = []byte("one order")
	if _, err := store.WithQuery(tx.Query).Set(ctx, token, session); err != nil {
		log.Fatal(err)
	}
	before, err := store.Get(ctx, token)
	if err != nil {
		log.Fatal(err)
	}
	if err := tx.Commit(ctx); err != nil {
		log.Fatal(err)
	}
	after, err := store.Get(ctx, token)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("before the commit: %s; after it: %s\n", before.Data, after.Data)

	// Output:
	// before the commit: nothing ordered; after it: one order
}

func ExampleFromSQL() {
	ctx := context.Background()
	db, err := sql.Open("postgres", pgtest.ExampleURL()) // github.com/lib/pq
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	store, err := pgsession.New(pgsession.FromSQL(db), pgsession.Config{
		Schema: "example_sql",
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	if err := store.Setup(ctx); err != nil {
		log.Fatal(err)
	}
	token, _, err := store.Create(ctx, pgsession.Session{Data: []byte("by lib/pq")})
	if err != nil {
		log.Fatal(err)
	}
	session, err := store.Get(ctx, token)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", session.Data)

	// Output:
	// by lib/pq
}

func ExampleStore_revoke() {
	ctx := context.Background()
	store := exampleStore(ctx, "example_revoke")
	defer store.Close()

	var current pgsession.Session
	for _, device := range []string{"phone", "laptop", "tablet"} {
		_, session, err := store.Create(ctx, pgsession.Session{Subject: "ada", Data: []byte(device)})
		if err != nil {
			log.Fatal(err)
		}
		current = session
	}
	n, err := store.Revoke(ctx, pgsession.Revocation{Subject: "ada", Except: []pgsession.ID{current.ID}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("logged out:", n)
	for session, err := range store.All(ctx, pgsession.Filter{Subject: "ada"}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("left: %s\n", session.Data)
	}

	// Output:
	// logged out: 2
	// left: tablet
}

// A login gives the session a new token: whoever planted the old one has nothing.
func ExampleStore_renew() {
	ctx := context.Background()
	store := exampleStore(ctx, "example_renew")
	defer store.Close()
	visitor, _, err := store.Create(ctx, pgsession.Session{Data: []byte("a full cart")})
	if err != nil {
		fmt.Println(err)
		return
	}

	token, session, err := store.Renew(ctx, visitor, pgsession.Renewal{Subject: "ada"})
	fmt.Println(session.Subject, "has", string(session.Data), err)

	_, err = store.Get(ctx, visitor)
	fmt.Println("the old token:", errors.Is(err, pgsession.ErrNotFound))
	_, err = store.Get(ctx, token)
	fmt.Println("the new token:", err)
	// Output:
	// ada has a full cart <nil>
	// the old token: true
	// the new token: <nil>
}

// Two tabs change the same session, and neither undoes what the other did.
func ExampleStore_patch() {
	ctx := context.Background()
	store := exampleStore(ctx, "example_patch")
	defer store.Close()
	token, _, err := store.Create(ctx, pgsession.Session{Data: []byte(`{"cart":{}}`), Codec: pgsession.CodecJSON})
	if err != nil {
		fmt.Println(err)
		return
	}

	_, err = store.Patch(ctx, token, []byte(`{"cart":{"book":1}}`))
	fmt.Println(err)
	session, err := store.Patch(ctx, token, []byte(`{"cart":{"pen":2}}`))
	fmt.Println(string(session.Data), err)
	// Output:
	// <nil>
	// {"cart": {"pen": 2, "book": 1}} <nil>
}
