package pgsession_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

func TestAServerThatIsDownIsAnErrorUntilItIsBack(t *testing.T) {
	t.Parallel()
	server := pgtest.PrivateServer(t, postgres.Options{})
	admin := pgtest.Connect(t, server.URL())
	var ways []*way
	for _, d := range direct() {
		w := enter(t, d, admin, server.URL(), pgsession.Config{})
		_, err := w.Set(t.Context(), "kept", pgsession.Session{Subject: "ada"})
		must(t, err)
		ways = append(ways, w)
	}
	must(t, server.Shutdown(t.Context()))
	for i, w := range ways {
		name := direct()[i].name
		for _, op := range operations {
			// A connection that was open may have taken the statement: that is what doubt is for.
			err := op.call(t.Context(), w.store, "kept")
			wantFailure(t, name+", going down", op.name, err, errors.Is(err, pgsession.ErrInDoubt) && op.write)
		}
		for _, op := range operations {
			// database/sql does not tell a connection that failed from one that it lost before.
			doubt := op.write && op.name != "update" && strings.HasPrefix(name, "sql.")
			wantFailure(t, name+", down", op.name, op.call(t.Context(), w.store, "kept"), doubt)
		}
	}
	must(t, server.Restart(t.Context()))
	for i, w := range ways {
		if got, err := w.Get(t.Context(), "kept"); err != nil || got.Subject != "ada" {
			t.Errorf("%s, up again: %+v, %v", direct()[i].name, got, err)
		}
	}
	// Each connection that was open breaks one call at most.
	must(t, server.Restart(t.Context()))
	for i, w := range ways {
		name, broken := direct()[i].name, 0
		for {
			got, err := w.Get(t.Context(), "kept")
			if err == nil && got.Subject == "ada" {
				break
			}
			wantFailure(t, name+", restarted", "get", err, false)
			if broken++; broken > 4 {
				t.Fatalf("%s, restarted: %d calls failed in a row", name, broken)
			}
		}
		for _, op := range operations {
			if err := op.call(t.Context(), w.store, "kept"); err != nil {
				t.Errorf("%s, restarted: %s: %v", name, op.name, err)
			}
		}
	}
}

func TestAServerKilledDuringAWriteLeavesItInDoubt(t *testing.T) {
	t.Parallel()
	server := pgtest.PrivateServer(t, postgres.Options{})
	admin := pgtest.Connect(t, server.URL())
	var group sync.WaitGroup
	var ways []*way
	for _, d := range direct() {
		w := enter(t, d, admin, server.URL(), pgsession.Config{LockTimeout: -1})
		_, err := w.Set(t.Context(), "kept", pgsession.Session{Data: []byte("before")})
		must(t, err)
		ways = append(ways, w)
		holder, err := pgx.Connect(t.Context(), server.URL())
		must(t, err)
		t.Cleanup(func() { _ = holder.Close(context.Background()) })
		tx, err := holder.Begin(t.Context())
		must(t, err)
		_, err = w.store.WithQuery(tx.Query).Set(t.Context(), "kept", pgsession.Session{Data: []byte("holder")})
		must(t, err)
		group.Go(func() {
			_, err := w.Set(t.Context(), "kept", pgsession.Session{Data: []byte("after")})
			wantFailure(t, d.name+", killed", "set", err, true)
		})
		w.awaitWaiting(t, 1)
	}
	must(t, server.Kill(t.Context()))
	group.Wait()
	must(t, server.Restart(t.Context()))
	for i, w := range ways {
		if got, err := w.Get(t.Context(), "kept"); err != nil || string(got.Data) != "before" {
			t.Errorf("%s, up again: %+v, %v", direct()[i].name, got, err)
		}
	}
}

func TestAWriteWhoseAnswerIsLostIsInDoubtAndDone(t *testing.T) {
	t.Parallel()
	config, err := pgx.ParseConfig(pgtest.URL(t))
	must(t, err)
	admin := pgtest.Pool(t)
	for _, d := range direct() {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			proxy, err := postgres.NewProxy(net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port))))
			must(t, err)
			defer func() { _ = proxy.Close() }()
			address, err := postgres.WithAddress(pgtest.URL(t), proxy.Address())
			must(t, err)
			w := enter(t, d, admin, address, pgsession.Config{Schema: pgtest.Schema(t), LockTimeout: -1})
			for name, lose := range map[string]func(cancel context.CancelFunc){
				"swallowed": func(cancel context.CancelFunc) {
					if cancel(); d.name == "sql.DB, lib pq" {
						proxy.Reset() // lib/pq goes on waiting, for the server to confirm that it cancelled
					}
				},
				"reset": func(context.CancelFunc) { proxy.Reset() },
			} {
				token, _ := w.create(t, pgsession.Session{})
				tx := begin(t, admin)
				_, err := w.store.WithQuery(tx.query).Set(t.Context(), token, pgsession.Session{Data: []byte("holder")})
				must(t, err)
				ctx, cancel := context.WithCancel(t.Context())
				answer := make(chan error)
				go func() {
					_, err := w.Set(ctx, token, pgsession.Session{Data: []byte(name)})
					answer <- err
				}()
				w.awaitWaiting(t, 1)
				proxy.Swallow()
				must(t, tx.commit())
				var got pgsession.Session
				direct := setUp(t, admin.Query, pgsession.Config{Schema: w.schema})
				eventually(t, "the write is done", func() bool {
					got, err = direct.Get(t.Context(), token)
					return err == nil && string(got.Data) == name
				})
				lose(cancel)
				err = <-answer
				wantFailure(t, name+" by "+d.name, "set", err, true)
				if ctx.Err() != nil {
					wantError(t, name, err, context.Canceled)
				}
				cancel()
				proxy.Forward()
				eventually(t, "the next call works", func() bool {
					_, err := w.Get(t.Context(), token)
					return err == nil
				})
			}
		})
	}
}

func TestAWriteWhoseBackendIsTerminatedIsNoSilentSuccess(t *testing.T) {
	t.Parallel()
	everyPool(t, pgsession.Config{LockTimeout: -1}, func(t *testing.T, w *way) {
		token, _ := w.create(t, pgsession.Session{})
		tx := begin(t, w.admin)
		_, err := w.store.WithQuery(tx.query).Set(t.Context(), token, pgsession.Session{Data: []byte("holder")})
		must(t, err)
		answer := make(chan error)
		go func() {
			_, err := w.Set(t.Context(), token, pgsession.Session{Data: []byte("written")})
			answer <- err
		}()
		w.awaitWaiting(t, 1)
		w.exec(t, `select pg_terminate_backend(a.pid) from pg_stat_activity as a
			where `+pgtest.Waits+` and position($1 in a.query) > 0`, w.schema)
		// Sent again on another connection, as lib/pq has database/sql do, it waits until the holder ends.
		must(t, tx.rollback())
		err = <-answer
		got, getErr := w.Get(t.Context(), token)
		must(t, getErr)
		switch {
		case err == nil && string(got.Data) != "written":
			t.Errorf("the write succeeded, and there is %q", got.Data)
		case err != nil:
			wantFailure(t, "terminated", "set", err, errors.Is(err, pgsession.ErrInDoubt))
			if !errors.Is(err, pgsession.ErrInDoubt) {
				wantSQLState(t, "terminated", err, "57P01")
			}
			if len(got.Data) != 0 {
				t.Errorf("the write failed with %v, and there is %q", err, got.Data)
			}
		}
	})
}
