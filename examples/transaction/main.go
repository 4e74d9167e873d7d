// Transaction is a shop whose orders and sessions are written together or not at all.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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
	store, err := setUp(ctx, pool)
	if err != nil {
		return err
	}
	defer store.Close()
	return visits.ServeHandler(ctx, handler(pool, store))
}

func setUp(ctx context.Context, pool *pgxpool.Pool) (*pgsession.Store, error) {
	_, err := pool.Exec(ctx, `create table if not exists orders (item text check (item <> 'unicorn'))`)
	if err != nil {
		return nil, err
	}
	store, err := pgsession.New(pool.Query, pgsession.Config{Listen: pgsession.ListenFrom(pool)})
	if err != nil {
		return nil, err
	}
	if err := store.Setup(ctx); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return store, nil
}

func handler(pool *pgxpool.Pool, store *pgsession.Store) http.Handler {
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
		committing := false
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
			committing = err == nil
			return err
		})
		switch {
		case err == nil:
			fmt.Fprintln(w, "ordered")
		case visits.Gone(err), refused(err):
			http.Error(w, "not ordered, and the cart is as it was", http.StatusConflict)
		case committing: // and the answer was lost
			http.Error(w, "unknown: if the cart is empty it was ordered", http.StatusServiceUnavailable)
		default:
			http.Error(w, "not ordered; try again later", http.StatusServiceUnavailable)
		}
	})
	return mux
}

// refused says whether the server has answered with an error, and so has undone the transaction. After
// one that ends the connection that is not sure.
func refused(err error) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && answer.Severity == "ERROR"
}
