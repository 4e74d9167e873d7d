// Transaction is a shop whose orders and sessions are written together or not at all.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/examples/visits"
)

type customer struct{ Cart []string }

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
	_, err = pool.Exec(ctx, `create table if not exists orders (item text check (item <> 'unicorn'))`)
	if err != nil {
		return err
	}
	store, err := pgsession.New(pool.Query, pgsession.Config{Listen: pgsession.ListenFrom(pool)})
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.Setup(ctx); err != nil {
		return err
	}
	customers := pgsession.JSON[customer](store)

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		var orders int
		err := pool.QueryRow(r.Context(), `select count(*) from orders`).Scan(&orders)
		session, getErr := customers.Get(r.Context(), visits.Token(r))
		if err != nil || (getErr != nil && !visits.Gone(getErr)) {
			http.Error(w, "try again later", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, "cart: %s; orders of all: %d\n", strings.Join(session.Value.Cart, ", "), orders)
	})
	mux.HandleFunc("POST /cart/{item}", func(w http.ResponseWriter, r *http.Request) {
		token := visits.Token(r)
		add := func(s *pgsession.TypedSession[customer]) error {
			s.Value.Cart = append(s.Value.Cart, r.PathValue("item"))
			return nil
		}
		session, err := customers.Update(r.Context(), token, add)
		if visits.Gone(err) {
			_ = add(&session)
			token, _, err = customers.Create(r.Context(), session)
		}
		if err != nil {
			http.Error(w, "try again later", http.StatusServiceUnavailable)
			return
		}
		visits.SetCookie(w, token, 0)
	})
	mux.HandleFunc("POST /order", func(w http.ResponseWriter, r *http.Request) {
		err := pgx.BeginFunc(r.Context(), pool, func(tx pgx.Tx) error {
			// The session first: where it has ended, nothing is ordered.
			var ordered []string
			sessions := pgsession.JSON[customer](store.WithQuery(tx.Query))
			_, err := sessions.Update(r.Context(), visits.Token(r), func(s *pgsession.TypedSession[customer]) error {
				ordered, s.Value.Cart = s.Value.Cart, nil
				return nil
			})
			if err != nil {
				return err
			}
			_, err = tx.Exec(r.Context(), `insert into orders select unnest($1::text[])`, ordered)
			return err
		})
		if err != nil {
			http.Error(w, "not ordered, and the cart is as it was", http.StatusConflict)
			return
		}
		fmt.Fprintln(w, "ordered")
	})
	return visits.ServeHandler(ctx, mux)
}
