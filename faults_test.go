package pgsession_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

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
		_, _, err := s.Create(ctx, pgsession.Session{Data: []byte("1")})
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
			s.Data, s.Codec = append(s.Data, '1'), pgsession.CodecOpaque // a patch may have made it JSON
			return nil
		})
		return err
	}},
	{"patch", true, true, func(ctx context.Context, s *pgsession.Store, token pgsession.Token) error {
		_, err := s.Patch(ctx, token, []byte(`{"patched": true}`))
		if errors.Is(err, pgsession.ErrCodec) {
			err = nil // the update before it made the data no JSON
		}
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
	{"renew", true, true, func(ctx context.Context, s *pgsession.Store, token pgsession.Token) error {
		_, _, err := s.Renew(ctx, token, pgsession.Renewal{})
		return err
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
