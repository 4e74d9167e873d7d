// Pgbouncer keeps sessions over a PgBouncer in transaction mode, which DATABASE_URL names. Notifications
// do not pass through one, so DIRECT_URL names the server itself, for two connections that listen.
package main

import (
	"context"
	"log"
	"os"
	"os/signal"

	"github.com/jackc/pgx/v5"
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
	config, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	// Before PgBouncer 1.21 there are no prepared statements in transaction mode.
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	store, err := pgsession.New(pool.Query, pgsession.Config{
		Listen: func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, os.Getenv("DIRECT_URL")) },
	})
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.Setup(ctx); err != nil {
		return err
	}
	return visits.Serve(ctx, store)
}
