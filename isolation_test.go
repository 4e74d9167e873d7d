package pgsession_test

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// isolated is a way into a database whose transactions are that much isolated by default.
func isolated(t *testing.T, level string, cfg pgsession.Config) *way {
	t.Helper()
	address := pgtest.Database(t)
	admin := pgtest.Connect(t, address)
	database := admin.Config().ConnConfig.Database
	_, err := admin.Exec(t.Context(), `alter database `+database+` set default_transaction_isolation = '`+level+`'`)
	must(t, err)
	admin.Reset()
	return enter(t, doors[0], admin, address, cfg)
}

func TestEverythingWorksUnderAStricterDefaultIsolation(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"repeatable read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			const workers, rounds = 8, 40
			ctx := t.Context()
			w := isolated(t, level, pgsession.Config{TouchInterval: time.Microsecond, LockTimeout: time.Minute})
			counter, _ := w.create(t, pgsession.Session{Subject: "ada", Data: []byte("0")})
			check := func(what string, err error, allowed ...error) {
				for _, target := range allowed {
					if errors.Is(err, target) {
						return
					}
				}
				if err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
			crowd(workers, func(i int) {
				for round := range rounds {
					_, err := w.Update(ctx, counter, func(s *pgsession.Session) error {
						n, err := strconv.Atoi(string(s.Data))
						s.Data = []byte(strconv.Itoa(n + 1))
						return err
					})
					check("update", err)
					_, err = w.Touch(ctx, counter)
					check("touch", err)
					_, err = w.Get(ctx, counter)
					check("get", err)
					_, err = w.Set(ctx, "shared", pgsession.Session{Data: []byte(strconv.Itoa(i))})
					check("set", err)
					token, _, err := w.Create(ctx, pgsession.Session{Data: []byte("1")})
					check("create", err)
					token, s, err := w.Renew(ctx, token, pgsession.Renewal{Subject: "bob"})
					check("renew", err)
					_, err = w.Count(ctx, pgsession.Filter{Subject: "bob"})
					check("count", err)
					for _, err := range w.All(ctx, pgsession.Filter{Subject: "bob"}) {
						check("all", err)
					}
					switch round % 4 {
					case 0:
						_, err = w.Destroy(ctx, token)
					case 1:
						_, err = w.Revoke(ctx, pgsession.Revocation{IDs: []pgsession.ID{s.ID}})
					case 2:
						_, err = w.Revoke(ctx, pgsession.Revocation{Subject: "bob"})
					case 3:
						_, err = w.store.Prune(ctx)
					}
					check("end or prune", err)
				}
			})
			got, err := w.Get(ctx, counter)
			if err != nil || string(got.Data) != strconv.Itoa(workers*rounds) {
				t.Errorf("counted %s, %v; want %d", got.Data, err, workers*rounds)
			}
			if w.store.Stats().Retries == 0 {
				t.Error("nothing was retried: there was no contention")
			}
			_, err = w.store.Clear(ctx)
			must(t, err)
		})
	}
}

func TestALogoutOfAMarkedRowAndOfNoneUnderAStricterDefaultIsolation(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"repeatable read", "serializable"} {
		for how, mark := range marks {
			t.Run(level+"/"+how, func(t *testing.T) {
				t.Parallel()
				w := isolated(t, level, pgsession.Config{})
				token, _ := w.create(t, pgsession.Session{Data: []byte("1")})
				token = mark(t, w, token)
				if n, err := w.store.Destroy(t.Context(), token, "a token that is nobody's"); n != 1 || err != nil {
					t.Errorf("%d, %v", n, err)
				}
				_, err := w.store.GetFresh(t.Context(), token)
				wantError(t, "get", err, pgsession.ErrNotFound)
			})
		}
	}
}

func TestASerializationFailureInATransactionIsTheCallers(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"repeatable read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			w := isolated(t, level, pgsession.Config{})
			token, _ := w.create(t, pgsession.Session{})
			// As itself, and as a transaction that the store takes for a pool: what counts is the
			// failure, not that the transaction is over.
			for name, sessions := range map[string]func(query pgsession.QueryFunc) pgsession.Sessions{
				"WithQuery": func(query pgsession.QueryFunc) pgsession.Sessions { return w.store.WithQuery(query) },
				"New": func(query pgsession.QueryFunc) pgsession.Sessions {
					store, err := pgsession.New(query, pgsession.Config{Schema: w.schema})
					must(t, err)
					return store
				},
			} {
				tx := w.begin(t)
				var calls atomic.Int64
				inside := sessions(func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
					calls.Add(1)
					return tx.query(ctx, sql, args...)
				})
				_, err := inside.Get(t.Context(), token) // takes the snapshot
				must(t, err)
				_, err = w.Set(t.Context(), token, pgsession.Session{Data: []byte(name)})
				must(t, err)
				_, err = inside.Set(t.Context(), token, pgsession.Session{Data: []byte("late")})
				wantSQLState(t, name, err, "40001")
				if e := new(pgconn.PgError); !errors.As(err, &e) {
					t.Errorf("%s: %v is no *pgconn.PgError", name, err)
				}
				if name == "WithQuery" && calls.Load() != 2 {
					t.Errorf("%d statements were sent, want 2: a transaction's are not retried", calls.Load())
				}
				must(t, tx.rollback())
				// So is a session that another one created meanwhile.
				tx = w.begin(t)
				inside = sessions(tx.query)
				_, err = inside.Get(t.Context(), token)
				must(t, err)
				unseen := pgsession.Token("unseen by " + name)
				_, err = w.Set(t.Context(), unseen, pgsession.Session{})
				must(t, err)
				_, err = inside.Set(t.Context(), unseen, pgsession.Session{})
				wantSQLState(t, name, err, "40001")
				must(t, tx.rollback())
				if got, err := w.Get(t.Context(), token); err != nil || string(got.Data) != name {
					t.Errorf("%s: got %q, %v", name, got.Data, err)
				}
			}
		})
	}
}

// lateFailure is a QueryFunc on a pool, whose statements all fail the first time as they do under
// serializable isolation: at the commit, when their rows have been read already.
type lateFailure struct {
	pool *pgxpool.Pool
	seen map[string]bool
}

func (f *lateFailure) query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if f.seen[sql] {
		return f.pool.Query(ctx, sql, args...)
	}
	f.seen[sql] = true
	tx, err := f.pool.Begin(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, sql, args...)
	return &lateFailureRows{rows, tx}, err
}

type lateFailureRows struct {
	pgx.Rows
	tx pgx.Tx
}

func (r *lateFailureRows) Close() {
	r.Rows.Close()
	_ = r.tx.Rollback(context.Background())
}

func (r *lateFailureRows) Err() error {
	return cmp.Or(r.Rows.Err(), error(&pgconn.PgError{Code: "40001", Message: "could not serialize access"}))
}

func TestAStatementThatFailsAtItsCommitIsRunAgainAsIfNothingHadBeen(t *testing.T) {
	t.Parallel()
	all := func(ctx context.Context, s *pgsession.Store, filter pgsession.Filter) (n int, err error) {
		for _, e := range s.All(ctx, filter) {
			n, err = n+1, errors.Join(err, e)
		}
		return n, err
	}
	for name, call := range map[string]func(ctx context.Context, s *pgsession.Store) (int, error){
		"create": func(ctx context.Context, s *pgsession.Store) (int, error) {
			_, _, err := s.Create(ctx, pgsession.Session{Data: []byte("0")})
			return 3, err
		},
		"get": func(ctx context.Context, s *pgsession.Store) (int, error) {
			got, err := s.Get(ctx, seeded("late", 1))
			return len(got.Data), err
		},
		"set": func(ctx context.Context, s *pgsession.Store) (int, error) {
			_, err := s.Set(ctx, seeded("late", 1), pgsession.Session{})
			return 3, err
		},
		"update": func(ctx context.Context, s *pgsession.Store) (calls int, err error) {
			_, err = s.Update(ctx, seeded("late", 1), func(s *pgsession.Session) error { calls++; return nil })
			return 2 + calls, err
		},
		"touch": func(ctx context.Context, s *pgsession.Store) (int, error) {
			_, err := s.Touch(ctx, seeded("late", 1))
			return 3, err
		},
		"renew": func(ctx context.Context, s *pgsession.Store) (int, error) {
			_, session, err := s.Renew(ctx, seeded("late", 1), pgsession.Renewal{Subject: "bob"})
			return len(session.Subject), err
		},
		"destroy": func(ctx context.Context, s *pgsession.Store) (int, error) {
			return s.Destroy(ctx, seeded("late", 1), seeded("late", 2), seeded("late", 3))
		},
		"revoke": func(ctx context.Context, s *pgsession.Store) (int, error) {
			return s.Revoke(ctx, pgsession.Revocation{Subject: "ada"})
		},
		"clear": func(ctx context.Context, s *pgsession.Store) (int, error) {
			n, err := s.Clear(ctx)
			return int(n), err
		},
		"count": func(ctx context.Context, s *pgsession.Store) (int, error) {
			n, err := s.Count(ctx, pgsession.Filter{})
			return int(n), err
		},
		"all": func(ctx context.Context, s *pgsession.Store) (int, error) { return all(ctx, s, pgsession.Filter{}) },
		"all of a subject": func(ctx context.Context, s *pgsession.Store) (int, error) {
			return all(ctx, s, pgsession.Filter{Subject: "ada"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := onPool(t, pgsession.Config{})
			w.seed(t, 3, "late", "ada", 3)
			flaky := &lateFailure{pool: w.admin, seen: map[string]bool{}}
			store, err := pgsession.New(flaky.query, pgsession.Config{Schema: w.schema})
			must(t, err)
			if n, err := call(t.Context(), store); n != 3 || err != nil {
				t.Errorf("%d, %v; want 3", n, err)
			}
			if len(flaky.seen) == 0 {
				t.Error("nothing failed")
			}
		})
	}
}
