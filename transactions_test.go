package pgsession_test

import (
	"errors"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

func TestWritesInATransactionAreItsOwnUntilItCommits(t *testing.T) {
	t.Parallel()
	everyPool(t, pgsession.Config{TouchInterval: time.Microsecond}, func(t *testing.T, w *way) {
		ctx := t.Context()
		kept, keptBefore := w.create(t, pgsession.Session{Subject: "ada", Data: []byte("1")})
		gone, _ := w.create(t, pgsession.Session{Subject: "ada"})
		for _, end := range []string{"rollback", "commit"} {
			tx := w.begin(t)
			inside := w.store.WithQuery(tx.query)
			token, created, err := inside.Create(ctx, pgsession.Session{Subject: "bob", Data: []byte("1")})
			must(t, err)
			changed, err := inside.Set(ctx, kept, pgsession.Session{Subject: "ada", Data: []byte("2")})
			must(t, err)
			expiry, err := inside.Touch(ctx, kept)
			must(t, err)
			if n, err := inside.Destroy(ctx, gone); n != 1 || err != nil {
				t.Fatalf("destroyed %d, %v", n, err)
			}

			// view is what there is to see, of the created, the changed and the destroyed.
			view := func(s pgsession.Sessions, isCreated, isChanged bool) {
				t.Helper()
				got, err := s.Get(ctx, token)
				if isCreated != (err == nil) || !isCreated && !errors.Is(err, pgsession.ErrNotFound) {
					t.Errorf("%s: the created session: %+v, %v", end, got, err)
				} else if isCreated && !reflect.DeepEqual(got, created) {
					t.Errorf("%s: the created session is %+v, want %+v", end, got, created)
				}
				want := keptBefore
				if isChanged {
					want = changed
					want.ExpiresAt = expiry
				}
				if got, err = s.Get(ctx, kept); err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("%s: the changed session is %+v, %v; want %+v", end, got, err, want)
				}
				_, err = s.Get(ctx, gone)
				if isChanged != errors.Is(err, pgsession.ErrNotFound) {
					t.Errorf("%s: the destroyed session: %v", end, err)
				}
				live := 2 // the kept one, and the created or the not yet destroyed
				if n, err := s.Count(ctx, pgsession.Filter{}); err != nil || int(n) != live {
					t.Errorf("%s: counted %d, %v; want %d", end, n, err, live)
				}
				for s, err := range s.All(ctx, pgsession.Filter{}) {
					if live--; err != nil || (s.ID == created.ID) && !isCreated {
						t.Errorf("%s: all has %+v, %v", end, s, err)
					}
				}
				if live != 0 {
					t.Errorf("%s: all has %d sessions too few", end, live)
				}
			}
			view(inside, true, true)
			view(w.store, false, false)
			if end == "rollback" {
				must(t, tx.rollback())
				view(w.store, false, false)
			} else {
				must(t, tx.commit())
				view(w.store, true, true)
			}
		}
	})
}

func TestNoCallChangesTheSettingsOfItsTransaction(t *testing.T) {
	t.Parallel()
	const settings = `
		select string_agg(name || '=' || setting, E'\n' order by name) || current_user
		  from (select name, setting from pg_catalog.pg_settings
		        union all select 'pgsession.' || s, current_setting('pgsession.' || s, true)
		          from unnest(array['existing_functions']) as s) as s`
	cfg := pgsession.Config{TouchInterval: time.Microsecond, LockTimeout: 20 * time.Millisecond}
	everyPool(t, cfg, func(t *testing.T, w *way) {
		ctx := t.Context()
		cfg := cfg
		cfg.Schema = w.schema
		patient := setUp(t, w.query, pgsession.Config{Schema: w.schema, LockTimeout: -1})
		held, _ := w.create(t, pgsession.Session{})
		token, _ := w.create(t, pgsession.Session{Subject: "ada"})

		tx := w.begin(t)
		inside := &way{see: tx.query}
		for _, set := range []string{
			`search_path = 'nowhere'`, `lock_timeout = '12345ms'`, `enable_seqscan = on`, `statement_timeout = '1h'`,
		} {
			inside.exec(t, `set local `+set)
		}
		var before, after string
		inside.scan(t, &before, settings)
		s := w.store.WithQuery(tx.query)
		for _, call := range []struct {
			name string
			want error
			run  func() error
		}{
			{"create", nil, func() error { _, _, err := s.Create(ctx, pgsession.Session{Data: []byte("0")}); return err }},
			{"get", nil, func() error { _, err := s.Get(ctx, token); return err }},
			{"set", nil, func() error { _, err := s.Set(ctx, token, pgsession.Session{Subject: "bob"}); return err }},
			{"update", nil, func() error {
				_, err := s.Update(ctx, token, func(s *pgsession.Session) error { s.Data = nil; return nil })
				return err
			}},
			{"touch", nil, func() error { _, err := s.Touch(ctx, token); return err }},
			{"count", nil, func() error { _, err := s.Count(ctx, pgsession.Filter{Subject: "ada"}); return err }},
			{"all", nil, func() error {
				for _, err := range s.All(ctx, pgsession.Filter{}) {
					return err
				}
				return nil
			}},
			{"destroy", nil, func() error { _, err := s.Destroy(ctx, token); return err }},
			{"revoke", nil, func() error { _, err := s.Revoke(ctx, pgsession.Revocation{Subject: "bob"}); return err }},
			{"prune", nil, func() error { (&way{see: tx.query, schema: w.schema}).prune(t); return nil }},
			{"set of a locked session", pgsession.ErrBusy, func() error {
				holder := begin(t, w.admin)
				_, err := w.store.WithQuery(holder.query).Set(ctx, held, pgsession.Session{Data: []byte("held")})
				must(t, err)
				_, err = s.Set(ctx, held, pgsession.Session{})
				must(t, holder.rollback())
				return err
			}},
			{"set that waits", nil, func() error {
				holder := begin(t, w.admin)
				_, err := w.store.WithQuery(holder.query).Set(ctx, held, pgsession.Session{Data: []byte("held")})
				must(t, err)
				waited := make(chan error)
				go func() {
					_, err := patient.WithQuery(tx.query).Set(ctx, held, pgsession.Session{})
					waited <- err
				}()
				w.awaitWaiting(t, 1)
				must(t, holder.rollback())
				return <-waited
			}},
		} {
			if err := call.run(); !errors.Is(err, call.want) {
				t.Fatalf("%s: %v, want %v", call.name, err, call.want)
			}
			if inside.scan(t, &after, settings); after != before {
				t.Fatalf("%s changed the settings from\n%s\nto\n%s", call.name, before, after)
			}
		}
		must(t, tx.commit())
	})
}

func TestWhatIsNoErrorOfTheDatabaseLeavesATransactionUsable(t *testing.T) {
	t.Parallel()
	everyPool(t, pgsession.Config{MaxDataSize: 10, Lock: pgsession.LockFail}, func(t *testing.T, w *way) {
		ctx := t.Context()
		token, _ := w.create(t, pgsession.Session{})
		ended, _ := w.create(t, pgsession.Session{})
		_, err := w.Destroy(ctx, ended)
		must(t, err)
		held, _ := w.create(t, pgsession.Session{})
		holder := begin(t, w.admin)
		_, err = w.store.WithQuery(holder.query).Set(ctx, held, pgsession.Session{Data: []byte("held")})
		must(t, err)

		tx := w.begin(t)
		s := w.store.WithQuery(tx.query)
		for token, set := range map[pgsession.Token]struct {
			session pgsession.Session
			want    error
		}{
			"missing": {pgsession.Session{Version: 1}, pgsession.ErrNotFound},
			token:     {pgsession.Session{Version: 1}, pgsession.ErrConflict},
			ended:     {pgsession.Session{}, pgsession.ErrRevoked},
			held:      {pgsession.Session{}, pgsession.ErrBusy},
			"large":   {pgsession.Session{Data: make([]byte, 11)}, pgsession.ErrTooLarge},
			"invalid": {pgsession.Session{Subject: "\x00"}, pgsession.ErrInvalid},
		} {
			_, err := s.Set(ctx, token, set.session)
			wantError(t, "set", err, set.want)
			_, err = s.Get(ctx, "missing")
			wantError(t, "get", err, pgsession.ErrNotFound)
		}
		_, err = s.Set(ctx, token, pgsession.Session{Data: []byte("written")})
		must(t, err)
		must(t, tx.commit())
		if got, err := w.Get(ctx, token); err != nil || string(got.Data) != "written" {
			t.Errorf("got %q, %v", got.Data, err)
		}
	})
}

func TestAnErrorOfTheDatabaseEndsTheTransactionAndNotTheStore(t *testing.T) {
	t.Parallel()
	everyPool(t, pgsession.Config{}, func(t *testing.T, w *way) {
		ctx := t.Context()
		token, _ := w.create(t, pgsession.Session{})
		before := w.row(t, token)
		tx := w.begin(t)
		s := w.store.WithQuery(tx.query)
		_, err := s.Set(ctx, token, pgsession.Session{Data: []byte("lost")})
		must(t, err)
		_, err = s.Set(ctx, token, pgsession.Session{Columns: map[string]any{"unknown": 1}})
		wantError(t, "an unknown column", err, pgsession.ErrInvalid)
		wantSQLState(t, "an unknown column", err, "22023")
		_, err = s.Get(ctx, token)
		wantSQLState(t, "the next call", err, "25P02")
		if errors.Is(err, pgsession.ErrNotFound) {
			t.Error("a failed transaction is taken for a missing session")
		}
		must(t, tx.rollback())
		if after := w.row(t, token); after != before {
			t.Errorf("%s was changed to %s", before, after)
		}
		_, err = w.Get(ctx, token)
		must(t, err)
	})
}

func TestASavepointOutlivesAnErrorOfTheDatabase(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	err := pgx.BeginFunc(t.Context(), w.admin, func(tx pgx.Tx) error {
		err := pgx.BeginFunc(t.Context(), tx, func(savepoint pgx.Tx) error {
			_, err := w.store.WithQuery(savepoint.Query).Set(t.Context(), "x",
				pgsession.Session{Columns: map[string]any{"unknown": 1}})
			return err
		})
		wantSQLState(t, "an unknown column", err, "22023")
		_, err = w.store.WithQuery(tx.Query).Set(t.Context(), "y", pgsession.Session{})
		return err
	})
	must(t, err)
	_, err = w.Get(t.Context(), "y")
	must(t, err)
}

func TestADeadlockOfTheCallersIsTheCallers(t *testing.T) {
	t.Parallel()
	everyPool(t, pgsession.Config{LockTimeout: -1}, func(t *testing.T, w *way) {
		tokens := []pgsession.Token{"a", "b"}
		for _, token := range tokens {
			_, err := w.Set(t.Context(), token, pgsession.Session{})
			must(t, err)
		}
		var txs []transaction
		for i, token := range tokens {
			txs = append(txs, w.begin(t))
			_, err := w.store.WithQuery(txs[i].query).Set(t.Context(), token, pgsession.Session{Data: []byte("first")})
			must(t, err)
		}
		errs := make([]error, 2)
		var group sync.WaitGroup
		for i := range txs {
			group.Go(func() {
				_, errs[i] = w.store.WithQuery(txs[i].query).Set(t.Context(), tokens[1-i], pgsession.Session{Data: []byte("second")})
				if errs[i] != nil {
					errs[i] = errors.Join(errs[i], txs[i].rollback())
				}
			})
		}
		group.Wait()
		loser := 0
		if errs[0] == nil {
			loser = 1
		}
		wantSQLState(t, "one of two", errs[loser], "40P01")
		if errs[1-loser] != nil {
			t.Errorf("the other: %v", errs[1-loser])
		}
		must(t, txs[1-loser].commit())
		for _, token := range tokens {
			if got, err := w.Get(t.Context(), token); err != nil || len(got.Data) == 0 {
				t.Errorf("after the deadlock: %+v, %v", got, err)
			}
		}
	})
}

func TestRowsThatEndedGiveTheConnectionBack(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"pgx", "postgres"} {
		conn, err := openDB(t, driver, pgtest.URL(t)).Conn(t.Context())
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		query := pgsession.FromSQL(conn)
		for range 2 { // a second call would wait for ever, if the first one had kept its turn
			rows, err := query(t.Context(), "select 1")
			must(t, err)
			for rows.Next() {
			}
			must(t, rows.Err()) // as with pgx, nobody need close rows that were read to the end
		}
	}
}
