// Tworoles keeps sessions in a table that the application's role cannot read: a deploy job creates it,
// and the application has nothing but the functions.
//
//	DATABASE_URL=postgres://app_deploy@... go run . migrate
//	DATABASE_URL=postgres://app@...        go run .
//	DATABASE_URL=postgres://app_admin@...  go run . prune
//
// OWNER, APP_ROLE and ADMIN_ROLE name the roles; the README says how they are created.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"

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

func run(ctx context.Context) (err error) {
	cfg := pgsession.Config{
		Owner: os.Getenv("OWNER"), AppRole: os.Getenv("APP_ROLE"), AdminRole: os.Getenv("ADMIN_ROLE"),
		Cleanup: pgsession.Cleanup{Mode: pgsession.CleanupOff}, // a job does it, as the admin
	}
	store, err := pgsession.Open(ctx, os.Getenv("DATABASE_URL"), cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	switch command := append(os.Args, "")[1]; command {
	case "migrate":
		return store.Migrate(ctx)
	case "prune":
		n, err := store.Prune(ctx)
		fmt.Println("pruned", n)
		return err
	case "":
		if err := store.Setup(ctx); err != nil { // checks, as this role may not do more
			return err
		}
		return visits.Serve(ctx, store)
	default:
		return fmt.Errorf("%q is neither migrate nor prune", command)
	}
}
