// Ownpool keeps sessions over the application's own pool, and leaves the pool to it.
package main

import (
	"context"
	"log"
	"os"
	"os/signal"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/examples/visits"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()
	// Statements go over the pool; what hears of other instances' changes are two connections like it.
	store, err := pgsession.New(pool.Query, pgsession.Config{Listen: pgsession.ListenFrom(pool)})
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.Setup(ctx); err != nil {
		return err
	}
	return visits.Serve(ctx, store)
}
