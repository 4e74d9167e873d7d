package pgsession_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
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

// crowd runs f n times at once, and returns when all are done.
func crowd(n int, f func(i int)) {
	var group sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		group.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	group.Wait()
}

// wantSQLState fails the test unless err is PostgreSQL's error of that code.
func wantSQLState(t *testing.T, what string, err error, code string) {
	t.Helper()
	var e interface{ SQLState() string } // both drivers'
	if !errors.As(err, &e) || e.SQLState() != code {
		t.Errorf("%s: the error is %v, want SQLSTATE %s", what, err, code)
	}
}

// onTwoPools is a way, and a second store on the same table with a pool of its own.
func onTwoPools(t *testing.T, cfg pgsession.Config) (*way, *pgsession.Store) {
	t.Helper()
	w := onPool(t, cfg)
	cfg.Schema = w.schema
	return w, setUp(t, pgtest.Pool(t).Query, cfg)
}

func TestFiftySetsOfANewTokenMakeOneSession(t *testing.T) {
	t.Parallel()
	everyStore(t, pgsession.Config{}, func(t *testing.T, w *way) {
		const token = pgsession.Token("new")
		var versions sync.Map
		crowd(50, func(i int) {
			s, err := w.Set(t.Context(), token, pgsession.Session{Data: []byte(strconv.Itoa(i))})
			if err != nil {
				t.Error(err)
			}
			if other, taken := versions.LoadOrStore(s.Version, i); taken {
				t.Errorf("sets %d and %d both made version %d", i, other, s.Version)
			}
		})
		got, err := w.Get(t.Context(), token)
		must(t, err)
		last, _ := versions.Load(got.Version)
		if string(got.Data) != fmt.Sprint(last) {
			t.Errorf("version %d holds %s, want what set %v wrote", got.Version, got.Data, last)
		}
		if n, err := w.Count(t.Context(), pgsession.Filter{}); n != 1 || err != nil {
			t.Errorf("%d sessions, %v; want 1", n, err)
		}
	})
}

// holders lock a session in a transaction, in the ways in which that happens.
var holders = map[string]func(t *testing.T, tx *pgsession.Tx, w *way, query pgsession.QueryFunc, id pgsession.ID){
	"by a set": func(t *testing.T, tx *pgsession.Tx, _ *way, _ pgsession.QueryFunc, _ pgsession.ID) {
		_, err := tx.Set(t.Context(), "locked", pgsession.Session{Data: []byte("held")})
		must(t, err)
	},
	// Bulk operations lock rows, and no ids.
	"by a revocation": func(t *testing.T, tx *pgsession.Tx, _ *way, _ pgsession.QueryFunc, id pgsession.ID) {
		_, err := tx.Revoke(t.Context(), pgsession.Revocation{IDs: []pgsession.ID{id}})
		must(t, err)
	},
	"by an operator": func(t *testing.T, _ *pgsession.Tx, w *way, query pgsession.QueryFunc, id pgsession.ID) {
		rows, err := query(t.Context(), w.fill(`select from {table} where id = $1 for update`), string(id))
		must(t, err)
		rows.Close()
		must(t, rows.Err())
	},
}

func TestALockedSessionIsWaitedForOrSkippedOrBusy(t *testing.T) {
	t.Parallel()
	everyStore(t, pgsession.Config{}, func(t *testing.T, w *way) {
		const token = pgsession.Token("locked")
		// Should a call wait for ever, this tells it from a call that was busy.
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := w.Set(ctx, token, pgsession.Session{})
		must(t, err)
		before := w.row(t, token)
		stores := map[pgsession.LockMode]*pgsession.Store{}
		for mode := pgsession.LockWait; mode <= pgsession.LockFail; mode++ {
			stores[mode] = setUp(t, w.query, pgsession.Config{
				Schema: w.schema, Lock: mode, LockTimeout: 20 * time.Millisecond, TouchInterval: time.Microsecond,
			})
		}
		for name, hold := range holders {
			tx := begin(t, w.admin)
			hold(t, w.store.WithQuery(tx.query), w, tx.query, w.id(t, token))
			for mode, want := range map[pgsession.LockMode]error{
				pgsession.LockWait: pgsession.ErrBusy, pgsession.LockSkip: nil, pgsession.LockFail: pgsession.ErrBusy,
			} {
				_, err := stores[mode].Set(ctx, token, pgsession.Session{Data: []byte("late")})
				if !errors.Is(err, want) {
					t.Errorf("locked %s, set in mode %d: %v, want %v", name, mode, err, want)
				}
				if _, err = stores[mode].Touch(ctx, token); !errors.Is(err, want) {
					t.Errorf("locked %s, touch in mode %d: %v, want %v", name, mode, err, want)
				}
				// An update that was skipped would be a lost one.
				_, err = stores[mode].Update(ctx, token, func(s *pgsession.Session) error { s.Data = nil; return nil })
				wantError(t, "locked "+name+", update", err, pgsession.ErrBusy)
			}
			must(t, tx.rollback())
			if after := w.row(t, token); after != before {
				t.Fatalf("locked %s: %s was changed to %s", name, before, after)
			}
		}
		for mode, store := range stores {
			if _, err := store.Set(ctx, token, pgsession.Session{Subject: "set" + strconv.Itoa(int(mode))}); err != nil {
				t.Errorf("unlocked, set in mode %d: %v", mode, err)
			}
		}
	})
}

func TestASessionThatIsBeingCreatedIsLockedToo(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tx := begin(t, w.admin)
	_, err := w.store.WithQuery(tx.query).Set(ctx, "new", pgsession.Session{Data: []byte("first")})
	must(t, err)
	for mode, want := range map[pgsession.LockMode]error{
		pgsession.LockWait: pgsession.ErrBusy, pgsession.LockSkip: nil, pgsession.LockFail: pgsession.ErrBusy,
	} {
		store := setUp(t, w.query, pgsession.Config{Schema: w.schema, Lock: mode, LockTimeout: 20 * time.Millisecond})
		if _, err := store.Set(ctx, "new", pgsession.Session{}); !errors.Is(err, want) {
			t.Errorf("set in mode %d: %v, want %v", mode, err, want)
		}
		_, err := store.Destroy(ctx, "new")
		wantError(t, "destroy", err, pgsession.ErrBusy)
	}
	must(t, tx.commit())
	if got, err := w.Get(ctx, "new"); err != nil || string(got.Data) != "first" {
		t.Errorf("got %q, %v", got.Data, err)
	}
}

func TestDestroyOfALockedSessionIsBusy(t *testing.T) {
	t.Parallel()
	for name, hold := range holders {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := onPool(t, pgsession.Config{LockTimeout: 20 * time.Millisecond})
			ctx, cancel := context.WithTimeout(t.Context(), patience/3)
			defer cancel()
			_, err := w.Set(ctx, "locked", pgsession.Session{})
			must(t, err)
			other, _ := w.create(t, pgsession.Session{})
			tx := begin(t, w.admin)
			hold(t, w.store.WithQuery(tx.query), w, tx.query, w.id(t, "locked"))
			n, err := w.Destroy(ctx, other, "locked")
			wantError(t, "destroy", err, pgsession.ErrBusy)
			must(t, tx.rollback())
			if live, err := w.Count(t.Context(), pgsession.Filter{}); n != 0 || live != 2 || err != nil {
				t.Errorf("%d sessions destroyed, %d live, %v; want all or none", n, live, err)
			}
		})
	}
}

func TestAWriterWaitsForTheLockAndThenSeesWhatWasWritten(t *testing.T) {
	t.Parallel()
	for _, lockTimeout := range []time.Duration{-1, time.Hour} {
		w, other := onTwoPools(t, pgsession.Config{LockTimeout: lockTimeout, TouchInterval: time.Microsecond})
		token, loaded := w.create(t, pgsession.Session{})
		tx := begin(t, w.admin)
		_, err := w.store.WithQuery(tx.query).Set(t.Context(), token, pgsession.Session{Data: []byte("first")})
		must(t, err)
		var group sync.WaitGroup
		group.Go(func() {
			there, err := w.Set(t.Context(), token, loaded)
			if !errors.Is(err, pgsession.ErrConflict) || string(there.Data) != "first" {
				t.Errorf("the set that waited: %q, %v; want the conflict", there.Data, err)
			}
		})
		group.Go(func() {
			if _, err := other.Touch(t.Context(), token); err != nil {
				t.Errorf("the touch that waited: %v", err)
			}
		})
		w.awaitWaiting(t, 2)
		must(t, tx.commit())
		group.Wait()
	}
}

func TestASetThatBeganBeforeADestroyBringsNothingBack(t *testing.T) {
	t.Parallel()
	enders := map[string]func(tx *pgsession.Tx, token pgsession.Token, id pgsession.ID) (int, error){
		"destroy": func(tx *pgsession.Tx, token pgsession.Token, _ pgsession.ID) (int, error) {
			return tx.Destroy(t.Context(), token)
		},
		"revoke by id": func(tx *pgsession.Tx, _ pgsession.Token, id pgsession.ID) (int, error) {
			return tx.Revoke(t.Context(), pgsession.Revocation{IDs: []pgsession.ID{id}})
		},
		"revoke by subject": func(tx *pgsession.Tx, _ pgsession.Token, _ pgsession.ID) (int, error) {
			return tx.Revoke(t.Context(), pgsession.Revocation{Subject: "ada"})
		},
	}
	for _, tombstone := range []time.Duration{time.Minute, -1} {
		w := onPool(t, pgsession.Config{Tombstone: tombstone})
		for name, end := range enders {
			token, loaded := w.create(t, pgsession.Session{Subject: "ada"})
			loaded.Data = []byte("late")
			want := pgsession.ErrRevoked
			if tombstone < 0 {
				want = pgsession.ErrNotFound
			}
			tx := begin(t, w.admin)
			n, err := end(w.store.WithQuery(tx.query), token, loaded.ID)
			must(t, err)
			var group sync.WaitGroup
			group.Go(func() {
				_, err := w.Set(t.Context(), token, loaded)
				wantError(t, name+": a set that waited", err, want)
			})
			w.awaitWaiting(t, 1)
			must(t, tx.commit())
			group.Wait()
			if _, err := w.Get(t.Context(), token); n != 1 || !errors.Is(err, pgsession.ErrNotFound) {
				t.Errorf("%s: ended %d sessions, and then a get: %v", name, n, err)
			}
		}
	}
}

func TestNoRaceBringsAnEndedSessionBack(t *testing.T) {
	t.Parallel()
	tries := 10_000
	if testing.Short() {
		tries = 1_000
	}
	w, other := onTwoPools(t, pgsession.Config{TouchInterval: time.Microsecond})
	w.seed(t, tries, "raced", "ada", 10)
	w.exec(t, `update {table} as t set subject = t.id where t.id < 'U'`) // of one's own, for a third of them
	var late, early atomic.Int64
	crowd(4, func(worker int) {
		for i := worker + 1; i <= tries; i += 4 {
			token := seeded("raced", i)
			id, _ := w.store.ID(token)
			ended := make(chan error, 1)
			go func() {
				var err error
				switch {
				case id < "U":
					_, err = other.Revoke(t.Context(), pgsession.Revocation{Subject: string(id)})
				case i%2 == 0:
					_, err = other.Revoke(t.Context(), pgsession.Revocation{IDs: []pgsession.ID{id}})
				default:
					_, err = other.Destroy(t.Context(), token)
				}
				ended <- err
			}()
			var err error
			switch session := (pgsession.Session{Subject: string(id), Data: []byte("late")}); i % 5 {
			case 0, 1: // whatever is there
				_, err = w.Set(t.Context(), token, session)
			case 2: // as it was loaded
				session.Version = 1
				_, err = w.Set(t.Context(), token, session)
			case 3:
				_, err = w.Update(t.Context(), token, func(s *pgsession.Session) error { *s = session; return nil })
			case 4:
				_, err = w.Touch(t.Context(), token)
			}
			switch {
			case err == nil:
				early.Add(1)
			case errors.Is(err, pgsession.ErrRevoked), errors.Is(err, pgsession.ErrNotFound):
				late.Add(1)
			default:
				t.Errorf("try %d: %v", i, err)
			}
			if err := <-ended; err != nil {
				t.Errorf("try %d: %v", i, err)
			}
		}
	})
	var rows, live int
	w.scan(t, &rows, `select count(*) from {table}`)
	w.scan(t, &live, `select count(*) from {table} as t where t.revoked_at is null`)
	if rows != tries || live != 0 {
		t.Errorf("of %d ended sessions %d are back; %d rows", tries, live, rows)
	}
	if late.Load() == 0 || early.Load() == 0 {
		t.Errorf("%d writes came before the end and %d after: there was no race", early.Load(), late.Load())
	}
}

func TestTouchesTakeNothingBackThatASetWrote(t *testing.T) {
	t.Parallel()
	w, other := onTwoPools(t, pgsession.Config{TouchInterval: time.Microsecond})
	token, s := w.create(t, pgsession.Session{})
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			for ctx.Err() == nil {
				if _, err := other.Touch(t.Context(), token); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 200 {
		s.Data = []byte(strconv.Itoa(i))
		var err error
		if s, err = w.Set(t.Context(), token, s); err != nil {
			t.Fatal(err)
		}
		got, err := w.Get(t.Context(), token)
		if err != nil || string(got.Data) != string(s.Data) || got.Version != s.Version {
			t.Errorf("set %s version %d, got %s version %d, %v", s.Data, s.Version, got.Data, got.Version, err)
		}
	}
	stop()
	group.Wait()
}

func TestAThousandIncrementsFromFourStoresAreAThousand(t *testing.T) {
	t.Parallel()
	const stores, goroutines, increments = 4, 100, 10
	w := onPool(t, pgsession.Config{})
	token, _ := w.create(t, pgsession.Session{Data: []byte("0")})
	all := make([]*pgsession.Store, stores)
	for i := range all {
		all[i] = setUp(t, pgtest.Pool(t).Query, pgsession.Config{Schema: w.schema})
	}
	crowd(goroutines, func(i int) {
		for range increments {
			_, err := all[i%stores].Update(t.Context(), token, func(s *pgsession.Session) error {
				n, err := strconv.Atoi(string(s.Data))
				s.Data = []byte(strconv.Itoa(n + 1))
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
	})
	if got, err := w.Get(t.Context(), token); err != nil || string(got.Data) != strconv.Itoa(goroutines*increments) {
		t.Errorf("counted %s, %v; want %d", got.Data, err, goroutines*increments)
	}
}

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
	done  [12]atomic.Int64
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
	}
	switch {
	case err == nil:
		m.done[kind].Add(1)
	case errors.Is(err, pgsession.ErrNotFound), errors.Is(err, pgsession.ErrRevoked), errors.Is(err, pgsession.ErrConflict):
	default:
		t.Error(err)
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
				session := pgsession.Session{Subject: []string{"ada", ""}[i%2]}
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
