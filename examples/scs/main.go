// Scs keeps the sessions of alexedwards/scs on the PostgreSQL that DATABASE_URL names.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/alexedwards/scs/v2"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/scsstore"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	store, err := pgsession.Open(ctx, os.Getenv("DATABASE_URL"), pgsession.Config{})
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Setup(ctx); err != nil {
		log.Fatal(err)
	}

	manager := scs.New()
	manager.IdleTimeout = 20 * time.Minute
	manager.Codec = scsstore.Codec{}
	manager.ErrorFunc = scsstore.ErrorFunc(nil)
	manager.Store, err = scsstore.New(store, scsstore.Options{
		Subject: func(values map[string]any) string { user, _ := values["user"].(string); return user },
	})
	if err != nil {
		log.Fatal(err)
	}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		visits := manager.GetInt(r.Context(), "visits") + 1
		manager.Put(r.Context(), "visits", visits)
		fmt.Fprintf(w, "visit %d of %s\n", visits, cmp.Or(manager.GetString(r.Context(), "user"), "nobody"))
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		if err := manager.RenewToken(r.Context()); err != nil {
			http.Error(w, "try again later", http.StatusServiceUnavailable)
			return
		}
		manager.Put(r.Context(), "user", "ada")
		fmt.Fprintln(w, "logged in")
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		if err := manager.Destroy(r.Context()); err != nil {
			http.Error(w, "try again later", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "logged out")
	})

	handler := http.NewCrossOriginProtection().Handler(manager.LoadAndSave(mux))
	server := &http.Server{Addr: cmp.Or(os.Getenv("ADDR"), "localhost:8080"), Handler: handler}
	done := make(chan error)
	context.AfterFunc(ctx, func() { stop(); done <- server.Shutdown(context.Background()) })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	if err := errors.Join(<-done, store.Close()); err != nil {
		log.Fatal(err)
	}
}
