package pgsession_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

// operations are all that a store can do with one session, or with all.
var operations = []struct {
	name  string
	token bool // of one session, and so its error names the id
	write bool
	call  func(ctx context.Context, s *pgsession.Store, token pgsession.Token) error
}{
	{"create", false, true, func(ctx context.Context, s *pgsession.Store, _ pgsession.Token) error {
		_, _, err := s.Create(ctx, pgsession.Session{})
		return err
	}},
	{"get", true, false, func(ctx context.Context, s *pgsession.Store, token pgsession.Token) error {
		_, err := s.Get(ctx, token)
		return err
	}},
	{"get", true, false, func(ctx context.Context, s *pgsession.Store, token pgsession.Token) error {
		_, err := s.GetFresh(ctx, token)
		return err
	}},
	{"get", true, false, func(ctx context.Context, s *pgsession.Store, token pgsession.Token) error {
		return s.View(ctx, token, func(pgsession.Session) error { return nil })
	}},
	{"set", true, true, func(ctx context.Context, s *pgsession.Store, token pgsession.Token) error {
		_, err := s.Set(ctx, token, pgsession.Session{Subject: "ada"})
		return err
	}},
	{"update", true, true, func(ctx context.Context, s *pgsession.Store, token pgsession.Token) error {
		_, err := s.Update(ctx, token, func(s *pgsession.Session) error {
			s.Data = append(s.Data, '1')
			return nil
		})
		return err
	}},
	{"touch", true, true, func(ctx context.Context, s *pgsession.Store, token pgsession.Token) error {
		_, err := s.Touch(ctx, token)
		return err
	}},
	{"all", false, false, func(ctx context.Context, s *pgsession.Store, _ pgsession.Token) (err error) {
		for _, e := range s.All(ctx, pgsession.Filter{}) {
			err = e
		}
		return err
	}},
	{"count", false, false, func(ctx context.Context, s *pgsession.Store, _ pgsession.Token) error {
		_, err := s.Count(ctx, pgsession.Filter{})
		return err
	}},
	{"revoke", false, true, func(ctx context.Context, s *pgsession.Store, _ pgsession.Token) error {
		_, err := s.Revoke(ctx, pgsession.Revocation{Subject: "nobody"})
		return err
	}},
	{"prune", false, true, func(ctx context.Context, s *pgsession.Store, _ pgsession.Token) error {
		_, err := s.Prune(ctx)
		return err
	}},
	{"migrate", false, false, func(ctx context.Context, s *pgsession.Store, _ pgsession.Token) error {
		return s.Migrate(ctx)
	}},
	{"destroy", true, true, func(ctx context.Context, s *pgsession.Store, token pgsession.Token) error {
		_, err := s.Destroy(ctx, token)
		return err
	}},
	{"clear", false, true, func(ctx context.Context, s *pgsession.Store, _ pgsession.Token) error {
		_, err := s.Clear(ctx)
		return err
	}},
}

// wantFailure fails the test unless err is a failure that says so: an Error of the operation, and not
// one of those that speak of the session. inDoubt says whether it must, or must not, be in doubt.
func wantFailure(t *testing.T, what, op string, err error, inDoubt bool) {
	t.Helper()
	var e *pgsession.Error
	if !errors.As(err, &e) || e.Op != op {
		t.Errorf("%s: %s failed with %v, want an Error of that operation", what, op, err)
	}
	for _, verdict := range []error{pgsession.ErrNotFound, pgsession.ErrRevoked, pgsession.ErrConflict, pgsession.ErrBusy} {
		if errors.Is(err, verdict) {
			t.Errorf("%s: %s takes it for %q: %v", what, op, verdict, err)
		}
	}
	if errors.Is(err, pgsession.ErrInDoubt) != inDoubt {
		t.Errorf("%s: %s: in doubt is %t, want %t: %v", what, op, !inDoubt, inDoubt, err)
	}
}

// direct are the pools that do not go through PgBouncer, and so notice themselves what happens.
func direct() (list []door) {
	for _, d := range doors {
		if d.kind == pooled && !strings.HasPrefix(d.name, "PgBouncer") {
			list = append(list, d)
		}
	}
	return list
}

func TestAnErrorNamesItsOperationAndSessionAndNeverTheToken(t *testing.T) {
	t.Parallel()
	const secret pgsession.Token = "s3cr3t-t0k3n"
	everyStore(t, pgsession.Config{}, func(t *testing.T, w *way) {
		id := w.id(t, secret)
		elsewhere, err := pgsession.New(w.query, pgsession.Config{Schema: w.schema, Table: "missing", SkipMigrate: true})
		must(t, err)
		for _, op := range operations {
			err := op.call(t.Context(), elsewhere, secret)
			wantError(t, op.name, err, pgsession.ErrNotSetUp)
			wantFailure(t, "not set up", op.name, err, false)
			if e := new(pgsession.Error); op.token && errors.As(err, &e) && e.ID != id {
				t.Errorf("%s: the error is of the session %q, want %q", op.name, e.ID, id)
			}
			text := fmt.Sprintf("%v %+v %#v", err, err, err)
			if strings.Contains(text, string(secret)) || op.token != strings.Contains(text, string(id)) {
				t.Errorf("%s: the error names the token, or not the session: %s", op.name, text)
			}
		}
	})
}

func TestATableThatIsGoneIsNotSetUp(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{
		"table": `drop table {table} cascade`, "column": `alter table {table} drop column idle_timeout cascade`,
		"function": `drop function {schema}.session_get`, "schema": `drop schema {schema} cascade`,
	} {
		w := onPool(t, pgsession.Config{})
		w.exec(t, damage)
		_, err := w.Get(t.Context(), "any")
		wantError(t, "without its "+name, err, pgsession.ErrNotSetUp)
	}
}

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

func TestAContextThatEndedBeforeSendsNothing(t *testing.T) {
	t.Parallel()
	everyStore(t, pgsession.Config{}, func(t *testing.T, w *way) {
		_, err := w.Set(t.Context(), "kept", pgsession.Session{})
		must(t, err)
		before := w.row(t, "kept")
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		late, cancel := context.WithDeadline(t.Context(), time.Now())
		defer cancel()
		for _, ctx := range []context.Context{cancelled, late} {
			for _, op := range operations {
				err := op.call(ctx, w.store, "kept")
				wantError(t, op.name, err, ctx.Err())
				wantFailure(t, "ended before", op.name, err, false)
			}
		}
		if after := w.row(t, "kept"); after != before {
			t.Errorf("%s was changed to %s", before, after)
		}
	})
}

func TestAContextThatEndsDuringAWriteIsToldAsSuch(t *testing.T) {
	t.Parallel()
	cfg := pgsession.Config{LockTimeout: -1, TouchInterval: time.Microsecond}
	everyPool(t, cfg, func(t *testing.T, w *way) {
		_, err := w.Set(t.Context(), "locked", pgsession.Session{})
		must(t, err)
		tx := begin(t, w.admin)
		_, err = w.store.WithQuery(tx.query).Set(t.Context(), "locked", pgsession.Session{Data: []byte("holder")})
		must(t, err)
		for _, op := range operations {
			if !op.token || !op.write {
				continue
			}
			for _, want := range []error{context.Canceled, context.DeadlineExceeded} {
				ctx, cancel := context.WithCancel(t.Context())
				if errors.Is(want, context.DeadlineExceeded) {
					ctx, cancel = context.WithTimeout(ctx, 100*time.Millisecond) // must truly pass
				}
				answer := make(chan error)
				go func() { answer <- op.call(ctx, w.store, "locked") }()
				if errors.Is(want, context.Canceled) {
					w.awaitWaiting(t, 1)
					cancel()
				}
				err := <-answer
				cancel()
				wantError(t, op.name, err, want)
				// Where PostgreSQL itself has told that it cancelled the statement there is no doubt.
				var state interface{ SQLState() string }
				wantFailure(t, "ended during", op.name, err, !errors.As(err, &state))
				eventually(t, "the statement is over", func() bool { return w.waiting(t) == 0 })
			}
		}
		must(t, tx.rollback())
		if _, err := w.Set(t.Context(), "locked", pgsession.Session{}); err != nil {
			t.Errorf("the next call: %v", err)
		}
	})
}

func TestAPoolWithoutAFreeConnectionIsWaitedForAsLongAsTheContextAllows(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	_, err := w.Set(t.Context(), "kept", pgsession.Session{})
	must(t, err)
	config, err := pgxpool.ParseConfig(pgtest.URL(t))
	must(t, err)
	config.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	must(t, err)
	defer pool.Close()
	queries := map[string]pgsession.QueryFunc{"pool": pool.Query}
	take := map[string]func() func(){"pool": func() func() {
		conn, err := pool.Acquire(t.Context())
		must(t, err)
		return conn.Release
	}}
	for _, driver := range []string{"pgx", "postgres"} {
		db := openDB(t, driver, pgtest.URL(t))
		db.SetMaxOpenConns(1)
		queries[driver] = pgsession.FromSQL(db)
		take[driver] = func() func() {
			conn, err := db.Conn(t.Context())
			must(t, err)
			return func() { _ = conn.Close() }
		}
	}
	for name, query := range queries {
		store, err := pgsession.New(query, pgsession.Config{Schema: w.schema})
		must(t, err)
		release := take[name]()
		for _, op := range operations {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond) // must truly pass
			err := op.call(ctx, store, "kept")
			cancel()
			wantError(t, name+": "+op.name, err, context.DeadlineExceeded)
			// Nothing was sent, but no driver says so; an update fails at its reading.
			wantFailure(t, name, op.name, err, op.write && op.name != "update")
		}
		release()
		if _, err := store.Get(t.Context(), "kept"); err != nil {
			t.Errorf("%s: the next call: %v", name, err)
		}
	}
}

func TestAPoolThatItsOwnerClosedSendsNothing(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"pool", "pgx", "postgres"} {
		var query pgsession.QueryFunc
		if driver == "pool" {
			pool, err := pgxpool.New(t.Context(), pgtest.URL(t))
			must(t, err)
			query = pool.Query
			pool.Close()
		} else {
			db := openDB(t, driver, pgtest.URL(t))
			query = pgsession.FromSQL(db)
			must(t, db.Close())
		}
		store, err := pgsession.New(query, pgsession.Config{})
		must(t, err)
		for _, op := range operations {
			wantFailure(t, driver, op.name, op.call(t.Context(), store, "any"), false)
		}
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
			where a.wait_event_type = 'Lock' and position($1 in a.query) > 0`, w.schema)
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

func TestARefusalOfTheDatabaseIsItsOwnError(t *testing.T) {
	t.Parallel()
	for _, refusal := range []struct {
		name, state string
		begin, end  string // of the refusal, by an administrator
		locked      bool   // needs the session locked
		all         bool   // also of reads
	}{
		{
			"read only", "25006", `alter database {database} set default_transaction_read_only = on`,
			`alter database {database} reset default_transaction_read_only`, false, false,
		},
		{
			"statement timeout", "57014", `alter database {database} set statement_timeout = '200ms'`,
			`alter database {database} reset statement_timeout`, true, false,
		},
		{
			"out of connections", "53300", `alter database {database} connection limit 0`,
			`alter database {database} connection limit -1`, false, true,
		},
		{
			"disk full", "53100", `
			create function {schema}.refuse() returns trigger language plpgsql as $$
			begin raise exception using errcode = 'disk_full'; end $$;
			create trigger refuse before insert or update or delete on {table} execute function {schema}.refuse()`,
			`drop trigger refuse on {table}`, false, false,
		},
	} {
		t.Run(refusal.name, func(t *testing.T) {
			t.Parallel()
			address := pgtest.Database(t)
			admin := pgtest.Connect(t, address)
			run := func(w *way, statements string) {
				_, err := admin.Exec(t.Context(), strings.ReplaceAll(w.fill(statements), "{database}",
					admin.Config().ConnConfig.Database), pgx.QueryExecModeSimpleProtocol)
				must(t, err)
			}
			// Connection limits do not bind superusers.
			role, url := pgtest.Role(t)
			roleAddress, err := postgres.WithDatabase(url, admin.Config().ConnConfig.Database)
			must(t, err)
			for _, d := range direct() {
				cfg := pgsession.Config{AppRole: role, AdminRole: role, LockTimeout: -1, TouchInterval: time.Microsecond}
				w := enter(t, doors[0], admin, address, cfg)
				_, err := w.Set(t.Context(), "kept", pgsession.Session{Subject: "nobody"})
				must(t, err)
				var holder transaction
				if refusal.locked {
					holder = begin(t, admin)
					_, err := w.store.WithQuery(holder.query).Set(t.Context(), "kept", pgsession.Session{})
					must(t, err)
				}
				before := w.row(t, "kept")
				run(w, refusal.begin)
				query, _ := d.open(t, roleAddress) // a new pool, on which the refusal is in force
				store, err := pgsession.New(query, pgsession.Config{
					Schema: w.schema, LockTimeout: -1, TouchInterval: time.Microsecond, SkipMigrate: true,
				})
				must(t, err)
				for _, op := range operations {
					if !refusal.all && !op.write || refusal.locked && !op.token && op.name != "clear" && op.name != "revoke" {
						if err := op.call(t.Context(), store, "kept"); err != nil && op.name != "migrate" {
							t.Errorf("%s: %s: %v; want it to work", d.name, op.name, err)
						}
						continue
					}
					if op.name == "prune" && refusal.name == "disk full" {
						continue // has nothing to write
					}
					err := op.call(t.Context(), store, "kept")
					wantSQLState(t, d.name+": "+op.name, err, refusal.state)
					wantFailure(t, d.name, op.name, err, false)
				}
				if after := w.row(t, "kept"); after != before {
					t.Errorf("%s: %s was changed to %s", d.name, before, after)
				}
				run(w, refusal.end)
				if refusal.locked {
					must(t, holder.rollback())
				}
				if _, err := store.Get(t.Context(), "kept"); err != nil {
					t.Errorf("%s: the next call: %v", d.name, err)
				}
			}
		})
	}
}
