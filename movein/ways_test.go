package movein_test

import (
	"database/sql"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/lib/pq"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
	"github.com/pgsession/pgsession/movein"
)

// The ways that a store's statements travel, with the default isolation that is hardest.
func TestEveryWayIn(t *testing.T) {
	t.Parallel()
	ways := map[string]func(t *testing.T, url string) pgsession.QueryFunc{
		"lib/pq": func(t *testing.T, url string) pgsession.QueryFunc {
			t.Helper()
			db, err := sql.Open("postgres", url)
			must(t, err)
			t.Cleanup(func() { _ = db.Close() })
			return pgsession.FromSQL(db)
		},
		"PgBouncer": func(t *testing.T, url string) pgsession.QueryFunc {
			t.Helper()
			config, err := pgx.ParseConfig(url)
			must(t, err)
			url, err = postgres.WithDatabase(pgtest.Bouncer(t), config.Database)
			must(t, err)
			return connectWith(t, url, pgx.QueryExecModeExec)
		},
	}
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
		pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	} {
		ways[mode.String()] = func(t *testing.T, url string) pgsession.QueryFunc {
			t.Helper()
			return connectWith(t, url, mode)
		}
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, pgsession.Config{}, 12)
			w.exec(t, `do $$ begin execute format(
				'alter database %I set default_transaction_isolation to serializable', current_database()); end $$`)
			w.query = way(t, w.url)
			w.open(t, pgsession.Config{})
			importer := w.importer(t, movein.Options{BatchSize: 5})
			wantData(t, importer.Through(), token(1), "data 1")
			if n, err := importer.Through().Destroy(t.Context(), token(1), token(2)); n != 2 || err != nil {
				t.Errorf("Destroy: %d, %v; want 2", n, err)
			}
			var group sync.WaitGroup
			for range 3 {
				group.Go(func() {
					if _, err := importer.Copy(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			group.Wait()
			wantProgress(t, importer, movein.Progress{Total: 10, Present: 10})
			wantData(t, w.store, token(3), "data 3")
			wantData(t, w.store, token(12), "data 12")
		})
	}
}

func connectWith(t *testing.T, url string, mode pgx.QueryExecMode) pgsession.QueryFunc {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	must(t, err)
	config.ConnConfig.DefaultQueryExecMode = mode
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	must(t, err)
	t.Cleanup(pool.Close)
	return pool.Query
}

func TestTheApplicationsRoleIsEnough(t *testing.T) {
	t.Parallel()
	app, url := pgtest.Role(t)
	w := newWorld(t, pgsession.Config{AppRole: app}, 3)
	w.importer(t, movein.Options{}) // the deploy job
	w.exec(t, `grant select, update, delete on {old} to `+pgx.Identifier{app}.Sanitize())

	config, err := pgx.ParseConfig(w.url)
	must(t, err)
	url, err = postgres.WithDatabase(url, config.Database)
	must(t, err)
	w.query = connectWith(t, url, pgx.QueryExecModeCacheStatement)
	w.store, err = pgsession.New(w.query, pgsession.Config{AppRole: app})
	must(t, err)
	importer := w.importer(t, movein.Options{})
	if n, err := importer.Through().Destroy(t.Context(), token(1)); n != 1 || err != nil {
		t.Errorf("Destroy: %d, %v; want 1", n, err)
	}
	wantProgress(t, importer, movein.Progress{Total: 2, Copied: 2})
}
