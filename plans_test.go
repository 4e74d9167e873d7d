package pgsession_test

import (
	"errors"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// A statement of a function is planned once for each connection, maybe while the table is empty: then all indexes
// look alike, and a scan of one as a whole as cheap as a look at one row.
func TestNoCallReadsWhatBecameOfOtherSessions(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	type session struct {
		token pgsession.Token
		pgsession.Session
	}
	var expire func(pgsession.ID) error
	calls := []struct {
		name string
		call func(s pgsession.Sessions, mine, kept session) error
	}{
		{"get", func(s pgsession.Sessions, mine, _ session) error { _, err := s.Get(ctx, mine.token); return err }},
		{"set", func(s pgsession.Sessions, mine, _ session) error {
			_, err := s.Set(ctx, mine.token, pgsession.Session{Subject: mine.Subject, Data: []byte("{}")})
			return err
		}},
		{"login", func(s pgsession.Sessions, mine, _ session) error {
			_, err := s.Set(ctx, mine.token, pgsession.Session{Subject: mine.Subject + "'s other name"})
			return err
		}},
		{"create", func(s pgsession.Sessions, mine, _ session) error {
			_, _, err := s.Create(ctx, pgsession.Session{Subject: mine.Subject, Data: []byte("{}")})
			return err
		}},
		{"patch", func(s pgsession.Sessions, mine, _ session) error {
			_, err := s.Patch(ctx, mine.token, []byte(`{"a": 1}`))
			return err
		}},
		{"touch", func(s pgsession.Sessions, mine, _ session) error { _, err := s.Touch(ctx, mine.token); return err }},
		{"renew", func(s pgsession.Sessions, mine, _ session) error {
			token, _, err := s.Renew(ctx, mine.token, pgsession.Renewal{})
			if err == nil {
				_, err = s.Get(ctx, token)
			}
			if err == nil {
				_, err = s.Get(ctx, mine.token)
			}
			if errors.Is(err, pgsession.ErrNotFound) { // without a grace
				err = nil
			}
			return err
		}},
		{"destroy", func(s pgsession.Sessions, mine, _ session) error { _, err := s.Destroy(ctx, mine.token); return err }},
		{"destroy of two", func(s pgsession.Sessions, mine, kept session) error {
			_, err := s.Destroy(ctx, mine.token, kept.token)
			return err
		}},
		{"destroy of a renewed one", func(s pgsession.Sessions, mine, _ session) error {
			if _, _, err := s.Renew(ctx, mine.token, pgsession.Renewal{}); err != nil {
				return err
			}
			_, err := s.Destroy(ctx, mine.token)
			return err
		}},
		{"revoke by id", func(s pgsession.Sessions, mine, _ session) error {
			_, err := s.Revoke(ctx, pgsession.Revocation{IDs: []pgsession.ID{mine.ID}})
			return err
		}},
		{"revoke of a renewed one", func(s pgsession.Sessions, mine, kept session) error {
			if _, _, err := s.Renew(ctx, mine.token, pgsession.Renewal{}); err != nil {
				return err
			}
			_, err := s.Revoke(ctx, pgsession.Revocation{IDs: []pgsession.ID{mine.ID, kept.ID}})
			return err
		}},
		{"revoke by subject", func(s pgsession.Sessions, mine, kept session) error {
			_, err := s.Revoke(ctx, pgsession.Revocation{Subject: mine.Subject, Except: []pgsession.ID{kept.ID}})
			return err
		}},
		{"revoke by subject and id", func(s pgsession.Sessions, mine, kept session) error {
			_, err := s.Revoke(ctx, pgsession.Revocation{
				Subject: mine.Subject, IDs: []pgsession.ID{mine.ID}, Except: []pgsession.ID{kept.ID},
			})
			return err
		}},
		{"a use of a renewed one after its grace", func(s pgsession.Sessions, mine, _ session) error {
			_, _, err := s.Renew(ctx, mine.token, pgsession.Renewal{})
			if err == nil {
				err = expire(mine.ID)
			}
			if err == nil {
				_, err = s.Touch(ctx, mine.token)
			}
			if errors.Is(err, pgsession.ErrRenewed) || errors.Is(err, pgsession.ErrNotFound) {
				err = nil
			}
			return err
		}},
		{"list", func(s pgsession.Sessions, mine, _ session) error {
			for _, err := range s.All(ctx, pgsession.Filter{Subject: mine.Subject}) {
				if err != nil {
					return err
				}
			}
			return nil
		}},
		{"count", func(s pgsession.Sessions, mine, _ session) error {
			_, err := s.Count(ctx, pgsession.Filter{Subject: mine.Subject})
			return err
		}},
	}
	for name, cfg := range map[string]pgsession.Config{
		"plain":   {TouchInterval: time.Microsecond},
		"limited": {TouchInterval: time.Microsecond, MaxPerSubject: 10, Audit: pgsession.Audit{Table: true}},
		"strict":  {TouchInterval: time.Microsecond, RenewGrace: -1, Tombstone: -1},
	} {
		w := onPool(t, cfg)
		w.exec(t, "vacuum analyze {table}") // it is known to be empty, rather than not known
		conn := dial(t, pgtest.URL(t), map[string]string{
			"plan_cache_mode": "force_generic_plan",
			"enable_seqscan":  "off", // for the test's own statements
		})
		tx, err := conn.Begin(ctx)
		must(t, err)
		inside := w.store.WithQuery(tx.Query)
		expire = func(id pgsession.ID) error {
			_, err := tx.Exec(ctx, w.fill(`update {table} set expires_at = '2000-01-01' where id = $1`), string(id))
			return err
		}
		read := func() int {
			return value[int](t, tx, `
				select sum(pg_stat_get_xact_tuples_returned(c.oid) + pg_stat_get_xact_tuples_fetched(c.oid))::int4
				  from pg_class as c
				 where c.oid = $1::regclass or c.oid in (select i.indexrelid from pg_index as i where i.indrelid = $1::regclass)`,
				w.table)
		}
		round := func(check func(name string, read int)) {
			for _, c := range calls {
				var both [2]session
				for n := range both {
					both[n].token, both[n].Session, err = inside.Create(ctx, pgsession.Session{
						Subject: c.name, Codec: pgsession.CodecJSON, Data: []byte("{}"),
					})
					must(t, err)
				}
				before := read()
				if err := c.call(inside, both[0], both[1]); err != nil {
					t.Fatalf("%s, %s: %v", name, c.name, err)
				}
				check(c.name, read()-before)
			}
			for _, function := range []string{"session_prune(100)", "session_claim(100)"} {
				before := read()
				_, err := tx.Exec(ctx, w.fill("select count(*) from {schema}."+function))
				must(t, err)
				check(function, read()-before)
			}
			_, err := tx.Exec(ctx, w.fill(`delete from {table}`))
			must(t, err)
		}
		round(func(string, int) {})
		const others = 1000
		_, err = tx.Exec(ctx, w.fill(`
			insert into {table} (version, created_at, expires_at, prune_after, codec, id, subject, revoked_at, renewed_to)
			select 1, now(), now() + '1 day', now() + '1 day', 0, 'was ' || i, case when i % 2 = 0 then 'ada' end, now(),
			       case when i % 3 > 0 then 'is ' || i end
			  from generate_series(1, $1::int4) as i`), others)
		must(t, err)
		round(func(call string, n int) {
			if call == "get" && n == 0 {
				t.Errorf("%s: the server does not count", name)
			}
			if n > others/10 {
				t.Errorf("%s: %s reads %d rows and entries of indexes", name, call, n)
			}
		})
		must(t, tx.Rollback(ctx))
	}
}
