// Databasesql keeps sessions over database/sql with lib/pq.
package main

import (
	"context"
	"database/sql"
	"log"
	"os"
	"os/signal"

	_ "github.com/lib/pq"

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
	db, err := sql.Open("postgres", os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	// Without Config.Listen there is no cache: each read asks the database.
	store, err := pgsession.New(pgsession.FromSQL(db), pgsession.Config{})
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.Setup(ctx); err != nil {
		return err
	}
	return visits.Serve(ctx, store)
}
