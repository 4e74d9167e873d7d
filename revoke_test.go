package pgsession_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
)

func TestRevokeEndsWhatItNames(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		type revocation struct {
			name string
			pgsession.Revocation
			want string // the sessions that are left
			err  error
		}
		revocations := func(ids func(names ...string) []pgsession.ID) []revocation {
			return []revocation{
				{"nothing", pgsession.Revocation{}, "a1 a2 a3 b1 x1", pgsession.ErrInvalid},
				{"no ids", pgsession.Revocation{IDs: []pgsession.ID{}}, "a1 a2 a3 b1 x1", pgsession.ErrInvalid},
				{"all but some of nobody", pgsession.Revocation{Except: ids("a1")}, "a1 a2 a3 b1 x1", pgsession.ErrInvalid},
				{"ids", pgsession.Revocation{IDs: ids("a1", "x1", "missing", "a1")}, "a2 a3 b1", nil},
				{"a subject", pgsession.Revocation{Subject: "ada"}, "b1 x1", nil},
				{"a subject but some", pgsession.Revocation{Subject: "ada", Except: ids("a2", "missing")}, "a2 b1 x1", nil},
				{"ids of a subject", pgsession.Revocation{Subject: "ada", IDs: ids("a1", "b1", "x1")}, "a2 a3 b1 x1", nil},
				{"no ids of a subject", pgsession.Revocation{Subject: "ada", IDs: []pgsession.ID{}}, "a1 a2 a3 b1 x1", nil},
				{"ids but some", pgsession.Revocation{IDs: ids("a1", "a2"), Except: ids("a2")}, "a2 a3 b1 x1", nil},
				{"a subject of nothing", pgsession.Revocation{Subject: "nobody"}, "a1 a2 a3 b1 x1", nil},
			}
		}
		for i := range revocations(func(...string) []pgsession.ID { return nil }) {
			token := func(name string) pgsession.Token { return pgsession.Token(fmt.Sprint(name, " of ", i)) }
			ids := func(names ...string) (list []pgsession.ID) {
				for _, name := range names {
					list = append(list, w.id(t, token(name)))
				}
				return list
			}
			revoke := revocations(ids)[i]
			for name, subject := range map[string]string{"a1": "ada", "a2": "ada", "a3": "ada", "b1": "bob", "x1": ""} {
				_, err := w.Set(t.Context(), token(name), pgsession.Session{Subject: subject})
				must(t, err)
			}
			n, err := w.Revoke(t.Context(), revoke.Revocation)
			var left []string
			for _, name := range []string{"a1", "a2", "a3", "b1", "x1"} {
				if _, err := w.Get(t.Context(), token(name)); err == nil {
					left = append(left, name)
				}
			}
			if got := strings.Join(left, " "); got != revoke.want || n != 5-len(left) || !errors.Is(err, revoke.err) {
				t.Errorf("%s: %d, %v, and left %s; want %s, %v", revoke.name, n, err, got, revoke.want, revoke.err)
			}
			if n, err := w.Revoke(t.Context(), revoke.Revocation); n != 0 || !errors.Is(err, revoke.err) {
				t.Errorf("%s, again: %d, %v", revoke.name, n, err)
			}
			_, err = w.Revoke(t.Context(), pgsession.Revocation{IDs: ids("a1", "a2", "a3", "b1", "x1")})
			must(t, err)
		}
	})
}

func TestManyAreRevokedInBatches(t *testing.T) {
	t.Parallel()
	const sessions = 25_000
	for name, revocation := range map[string]func(w *way) (r pgsession.Revocation){
		"by subject": func(*way) pgsession.Revocation { return pgsession.Revocation{Subject: "ada"} },
		"by id": func(w *way) (r pgsession.Revocation) {
			for i := range sessions {
				r.IDs = append(r.IDs, w.id(t, seeded("row", i+1)))
			}
			return r
		},
	} {
		w := onPool(t, pgsession.Config{})
		w.seed(t, sessions, "row", "ada", 1)
		w.seed(t, 1, "other", "bob", 1)
		if n, err := w.Revoke(t.Context(), revocation(w)); n != sessions || err != nil {
			t.Errorf("%s: revoked %d, %v; want %d", name, n, err, sessions)
		}
		var batches, largest int
		w.scan(t, &batches, `select count(distinct t.revoked_at) from {table} as t`)
		w.scan(t, &largest, `select max(n) from (select count(*) as n from {table} as t where t.revoked_at is not null
			group by t.revoked_at) as b`)
		if batches != 3 || largest != 10_000 {
			t.Errorf("%s: in %d batches of up to %d, want 3 and 10,000", name, batches, largest)
		}
		if n, err := w.Count(t.Context(), pgsession.Filter{}); n != 1 || err != nil {
			t.Errorf("%s: %d sessions are left, %v; want the other's", name, n, err)
		}
	}
}

func TestNothingSlipsThroughARevocationBySubject(t *testing.T) {
	t.Parallel()
	w, other := onTwoPools(t, pgsession.Config{})
	var mu sync.Mutex
	since := map[pgsession.ID]int64{} // when each became ada's, in microseconds
	ctx, stop := context.WithCancel(t.Context())
	var creators sync.WaitGroup
	for range 4 {
		creators.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				// Half are born as hers, half become hers, as at a login.
				session := pgsession.Session{Subject: []string{"ada", ""}[i%2], Data: []byte("1")}
				token, session, err := w.Create(t.Context(), session)
				if err == nil && i%2 == 1 {
					session, err = w.Update(t.Context(), token, func(s *pgsession.Session) error { s.Subject = "ada"; return nil })
				}
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				since[session.ID] = session.Version
				mu.Unlock()
			}
		})
	}
	for range 200 {
		_, err := other.Revoke(t.Context(), pgsession.Revocation{Subject: "ada"})
		must(t, err)
	}
	stop()
	creators.Wait()

	// A pass of a revocation takes its time with the subject locked, and all that it ends have it. So
	// each session was ended by the first pass after it became hers, or there was none.
	ended := map[pgsession.ID]int64{}
	rows, err := w.admin.Query(t.Context(), w.fill(`
		select t.id, (date_part('epoch', t.revoked_at) * 1000000)::int8 from {table} as t where t.revoked_at is not null`))
	must(t, err)
	var id pgsession.ID
	var at int64
	_, err = pgx.ForEachRow(rows, []any{&id, &at}, func() error { ended[id] = at; return nil })
	must(t, err)
	passes := slices.Compact(slices.Sorted(maps.Values(ended)))
	for id, since := range since {
		i, _ := slices.BinarySearch(passes, since)
		switch end, gone := ended[id]; {
		case i == len(passes) && gone:
			t.Errorf("%s became hers at %d, after the last revocation, and was ended at %d", id, since, end)
		case i < len(passes) && end != passes[i]:
			t.Errorf("%s became hers at %d, was revoked at %d, and ended at %d", id, since, passes[i], end)
		}
	}
	if len(passes) < 10 || len(since) < 100 {
		t.Errorf("%d revocations met %d sessions: there was no race", len(passes), len(since))
	}
	live, err := w.Count(t.Context(), pgsession.Filter{})
	must(t, err)
	if n, err := other.Revoke(t.Context(), pgsession.Revocation{Subject: "ada"}); int64(n) != live || err != nil {
		t.Errorf("the last revocation ended %d of %d, %v", n, live, err)
	}
}

func TestARevocationWaitsForALoginThatIsUnderWay(t *testing.T) {
	t.Parallel()
	w, other := onTwoPools(t, pgsession.Config{})
	anonymous, _ := w.create(t, pgsession.Session{})
	logins := map[string]func(tx *pgsession.Tx) error{
		"create": func(tx *pgsession.Tx) error {
			_, _, err := tx.Create(t.Context(), pgsession.Session{Subject: "ada"})
			return err
		},
		"set": func(tx *pgsession.Tx) error {
			_, err := tx.Set(t.Context(), anonymous, pgsession.Session{Subject: "ada"})
			return err
		},
	}
	for name, login := range logins {
		tx := begin(t, w.admin)
		must(t, login(w.store.WithQuery(tx.query)))
		var group sync.WaitGroup
		group.Go(func() {
			if n, err := other.Revoke(t.Context(), pgsession.Revocation{Subject: "ada"}); n != 1 || err != nil {
				t.Errorf("%s: revoked %d sessions, %v; want 1", name, n, err)
			}
		})
		w.awaitWaiting(t, 1)
		must(t, tx.commit())
		group.Wait()
	}
}

func TestARevocationWaitsForALoginByRenew(t *testing.T) {
	t.Parallel()
	for what, cfg := range map[string]pgsession.Config{
		"no limit": {}, "a limit": {MaxPerSubject: 2, Overflow: pgsession.OverflowEvictOldest},
	} {
		w := onPool(t, cfg)
		old, _ := w.create(t, pgsession.Session{})
		tx := w.begin(t)
		token, _, err := w.store.WithQuery(tx.query).Renew(t.Context(), old, pgsession.Renewal{Subject: "ada"})
		must(t, err)
		revoked := make(chan int)
		go func() {
			n, err := w.Revoke(t.Context(), pgsession.Revocation{Subject: "ada"})
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
			revoked <- n
		}()
		w.awaitWaiting(t, 1)
		must(t, tx.commit())
		if n := <-revoked; n != 1 {
			t.Errorf("%s: revoked %d, want the login", what, n)
		}
		_, err = w.Get(t.Context(), token)
		wantError(t, what+": get", err, pgsession.ErrNotFound)
	}
}

func TestARevocationInATransactionTakesFewLocksHoweverManyItEnds(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	const sessions = 5000
	w.seed(t, sessions, "ada", "ada", 1)
	tx := w.begin(t)
	n, err := w.store.WithQuery(tx.query).Revoke(t.Context(), pgsession.Revocation{Subject: "ada"})
	if n != sessions || err != nil {
		t.Errorf("revoked %d, %v", n, err)
	}
	rows, err := tx.query(t.Context(), `
		select count(*), count(*) filter (where l.locktype = 'advisory') from pg_locks as l where l.pid = pg_backend_pid()`)
	must(t, err)
	var locks, advisory int
	_, err = pgx.ForEachRow(rows, []any{&locks, &advisory}, func() error { return nil })
	must(t, err)
	if locks > 50 || advisory != 1 {
		t.Errorf("%d locks are held, %d of them advisory", locks, advisory)
	}
	must(t, tx.commit())
	if n := w.live(t); n != 0 {
		t.Errorf("%d sessions are live", n)
	}
}

// No renewal makes one; who writes to the table by hand must not hang what follows it.
func TestACycleOfRenewalsIsNotFollowedForEver(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	w.exec(t, `
		insert into {table} (version, created_at, expires_at, prune_after, codec, id, revoked_at, renewed_to)
		select 1, now(), now() + '1 day', now() + '1 day', 0, i.id, now(), i.renewed_to
		  from (values ('a', 'b'), ('b', 'a'), ('c', 'c'), ('d', 'nobody')) as i(id, renewed_to)`)
	_, kept := w.create(t, pgsession.Session{Subject: "ada"})
	for _, revocation := range []pgsession.Revocation{
		{IDs: []pgsession.ID{"a", "c", "d", "a"}},
		{Subject: "ada", IDs: []pgsession.ID{"a", "c"}},
		{Subject: "ada", Except: []pgsession.ID{"b", "c", "d", kept.ID}},
		{Everyone: true, Except: []pgsession.ID{"b", "c", "d", kept.ID}},
	} {
		if n, err := w.Revoke(t.Context(), revocation); n != 0 || err != nil {
			t.Errorf("%+v ended %d, %v", revocation, n, err)
		}
	}
	if n, err := w.Revoke(t.Context(), pgsession.Revocation{Subject: "ada", Except: []pgsession.ID{"a"}}); n != 1 || err != nil {
		t.Errorf("ended %d, %v", n, err)
	}
}
