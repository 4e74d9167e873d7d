package pgsession_test

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

func TestADestroyOfManyKeepsTheLockOrderOfBulkOperations(t *testing.T) {
	t.Parallel()
	w, other := onTwoPools(t, pgsession.Config{LockTimeout: -1})
	// Three sessions in the order of their ids, of which the first transaction locks the second, and
	// another the third: the destruction stops at each.
	w.seed(t, 3, "in order", "", 0)
	var tokens []pgsession.Token
	for i := range 3 {
		tokens = append(tokens, seeded("in order", i+1))
	}
	slices.SortFunc(tokens, func(a, b pgsession.Token) int { return cmp.Compare(w.id(t, a), w.id(t, b)) })
	// To have an id's lock without its row's, lock it while there is no row.
	const away = `update {table} as t set id = t.id || '!' where t.id = $1::text`
	const back = `update {table} as t set id = $1::text where t.id = $1::text || '!'`
	var held []transaction
	for _, token := range tokens[1:] {
		w.exec(t, away, string(w.id(t, token)))
		tx := begin(t, pgtest.Pool(t))
		_, err := w.store.WithQuery(tx.query).Destroy(t.Context(), token)
		must(t, err)
		held = append(held, tx)
		w.exec(t, back, string(w.id(t, token)))
	}
	waitsFor := func() (key string) {
		_ = w.admin.QueryRow(t.Context(), `
			select l.classid || '/' || l.objid
			  from pg_locks as l join pg_stat_activity as a on a.pid = l.pid
			 where not l.granted and l.locktype = 'advisory' and position($1 in a.query) > 0`, w.schema).Scan(&key)
		return key // none: ""
	}
	var group sync.WaitGroup
	group.Go(func() {
		if n, err := w.Destroy(t.Context(), tokens...); err != nil {
			t.Errorf("destroyed %d: %v", n, err)
		}
	})
	eventually(t, "the destruction waits", func() bool { return waitsFor() != "" })
	second := waitsFor()
	must(t, held[0].commit())
	eventually(t, "it waits for the third", func() bool { return waitsFor() != "" && waitsFor() != second })
	var cleared atomic.Bool
	group.Go(func() {
		if n, err := other.Clear(t.Context()); err != nil {
			t.Errorf("cleared %d: %v", n, err)
		}
		cleared.Store(true)
	})
	eventually(t, "the clearing has begun", func() bool { return cleared.Load() || w.waiting(t) == 2 })
	must(t, held[1].commit())
	group.Wait()
	if n, err := w.Count(t.Context(), pgsession.Filter{}); n != 0 || err != nil {
		t.Errorf("%d sessions are left, %v", n, err)
	}
}

// A renewal gives a row another id while others wait for it, so that no order of ids keeps who waits for several from
// a deadlock.
func TestWhoWaitsForARowHoldsNoOther(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for name, end := range map[string]func(w *way, tokens []pgsession.Token) error{
		"destroy": func(w *way, tokens []pgsession.Token) error {
			_, err := w.Destroy(ctx, tokens...)
			return err
		},
		"revoke": func(w *way, tokens []pgsession.Token) error {
			_, err := w.Revoke(ctx, pgsession.Revocation{IDs: []pgsession.ID{w.id(t, tokens[0]), w.id(t, tokens[1])}})
			return err
		},
		"revoke everyone with these columns": func(w *way, _ []pgsession.Token) error {
			_, err := w.Revoke(ctx, pgsession.Revocation{Everyone: true, Columns: map[string]any{"ip": nil}})
			return err
		},
		"clear": func(w *way, _ []pgsession.Token) error {
			_, err := w.store.Clear(ctx)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := onPool(t, pgsession.Config{LockTimeout: -1, Columns: []pgsession.Column{{Name: "ip", Type: "inet"}}})
			w.seed(t, 2, "row", "", 0)
			tokens := []pgsession.Token{seeded("row", 1), seeded("row", 2)}
			slices.SortFunc(tokens, func(a, b pgsession.Token) int { return cmp.Compare(w.id(t, a), w.id(t, b)) })
			lock := func(query pgsession.QueryFunc, token pgsession.Token) error {
				rows, err := query(ctx, w.fill(`select from {table} as t where t.id = $1::text for update nowait`), string(w.id(t, token)))
				if err == nil {
					rows.Close()
					err = rows.Err()
				}
				return err
			}
			tx := begin(t, w.admin)
			must(t, lock(tx.query, tokens[1]))
			done := make(chan error, 1)
			go func() { done <- end(w, tokens) }()
			w.awaitWaiting(t, 1)
			if err := lock(w.admin.Query, tokens[0]); err != nil {
				t.Errorf("while it waits for the second: the first: %v", err)
			}
			must(t, tx.rollback())
			must(t, <-done)
			if n, err := w.Count(ctx, pgsession.Filter{}); n != 0 || err != nil {
				t.Errorf("%d sessions are left, %v", n, err)
			}
		})
	}
}

// What a trigger has no lock for is the caller's to know, and no reason to wait for a row again.
func TestARevocationTellsOfALockThatATriggerDidNotGet(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	w.seed(t, 2, "row", "", 0)
	w.exec(t, `create function {schema}.refuse() returns trigger language plpgsql as $$
		begin raise exception using errcode = 'lock_not_available', message = 'the trigger has no lock'; end $$`)
	w.exec(t, `create trigger refuse before update on {table} for each row execute function {schema}.refuse()`)
	ids := []pgsession.ID{w.id(t, seeded("row", 1)), w.id(t, seeded("row", 2))}
	_, err := w.Revoke(t.Context(), pgsession.Revocation{IDs: ids})
	wantError(t, "revoke", err, pgsession.ErrBusy)
	wantSQLState(t, "revoke", err, "55P03")
	if n := w.live(t); n != 2 {
		t.Errorf("%d sessions are live", n)
	}
}

func TestFortyThousandMixedCallsMeetNoDeadlock(t *testing.T) {
	t.Parallel()
	const workers = 8
	calls := 40_000
	if testing.Short() {
		calls = 4_000
	}
	admin, address := pgtest.Pool(t), pgtest.Database(t)
	for _, tombstone := range []time.Duration{-1, time.Second} {
		t.Run("tombstone "+tombstone.String(), func(t *testing.T) {
			cfg := pgsession.Config{Tombstone: tombstone, LockTimeout: time.Minute}
			if tombstone > 0 {
				cfg.MaxPerSubject, cfg.Overflow = 6, pgsession.OverflowEvictIdlest
			}
			w := enter(t, doors[0], pgtest.Connect(t, address), address, cfg)
			var mix mix
			crowd(workers, func(int) {
				for range calls / 2 / workers {
					mix.call(t, w)
				}
			})
			for kind := range mix.done {
				// A short run may meet too few live sessions for a kind that needs one.
				if mix.done[kind].Load() == 0 && !testing.Short() {
					t.Errorf("no call of kind %d succeeded", kind)
				}
			}
		})
	}
	database, err := pgx.ParseConfig(address)
	must(t, err)
	backends, deadlocks := 1, 0
	eventually(t, "all have left the database and reported", func() bool {
		must(t, admin.QueryRow(t.Context(), `
			select (select count(*) from pg_stat_activity where datname = $1), deadlocks
			  from pg_stat_database where datname = $1`, database.Database).Scan(&backends, &deadlocks))
		return backends == 0
	})
	if deadlocks != 0 {
		t.Errorf("%d deadlocks", deadlocks)
	}
}

// mix makes calls of all kinds on few sessions. Which they are changes slowly: with tombstones, those
// that were ended are of no more use.
type mix struct {
	calls atomic.Int64
	done  [14]atomic.Int64
}

func (m *mix) call(t *testing.T, w *way) {
	first := int(m.calls.Add(1) / 5)
	one := func() pgsession.Token { return seeded("mixed", first+rand.N(60)) }
	subject := func() string { return []string{"", "ada", "bob", "eve"}[rand.N(4)] }
	var tokens []pgsession.Token
	var ids []pgsession.ID
	for range 1 + rand.N(6) {
		tokens = append(tokens, one())
		id, _ := w.store.ID(tokens[len(tokens)-1])
		ids = append(ids, id)
	}
	ctx, kind, err := t.Context(), rand.N(len(m.done)), error(nil)
	if kind == 10 && rand.N(20) > 0 {
		kind = 0 // were all cleared as often, there would be nothing for the others
	}
	switch kind {
	case 0, 1, 2:
		_, err = w.Set(ctx, one(), pgsession.Session{Subject: subject(), Data: []byte(strconv.Itoa(rand.Int()))})
	case 3:
		_, err = w.Update(ctx, one(), func(s *pgsession.Session) error { s.Subject = subject(); return nil })
	case 4:
		_, err = w.Touch(ctx, one())
	case 5, 6:
		_, err = w.Destroy(ctx, tokens...)
	case 7:
		_, err = w.Revoke(ctx, pgsession.Revocation{IDs: ids})
	case 8:
		_, err = w.Revoke(ctx, pgsession.Revocation{Subject: "ada", Except: ids})
	case 9:
		_, err = w.Revoke(ctx, pgsession.Revocation{Subject: "bob", IDs: ids})
	case 10:
		_, err = w.store.Clear(ctx)
	case 11:
		_, err = w.store.Prune(ctx)
	case 12, 13:
		// The successor's token is used too, beside the old one.
		var token pgsession.Token
		if token, _, err = w.Renew(ctx, one(), pgsession.Renewal{Subject: subject()}); err == nil {
			_, err = w.Destroy(ctx, append(tokens, token)...)
		}
	}
	switch {
	case err == nil:
		m.done[kind].Add(1)
	case errors.Is(err, pgsession.ErrNotFound), errors.Is(err, pgsession.ErrRevoked), errors.Is(err, pgsession.ErrConflict):
	default:
		t.Error(err)
	}
}
