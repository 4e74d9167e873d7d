package pgsession_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// logins are all the ways in which a session becomes a subject's.
var logins = map[string]func(t *testing.T, w *way, subject string) (pgsession.Token, error){
	"create": func(t *testing.T, w *way, subject string) (pgsession.Token, error) {
		token, _, err := w.Create(t.Context(), pgsession.Session{Subject: subject})
		return token, err
	},
	"set of a new one": func(t *testing.T, w *way, subject string) (pgsession.Token, error) {
		token := pgsession.Token(t.Name() + fmt.Sprint(time.Now().UnixNano()))
		_, err := w.Set(t.Context(), token, pgsession.Session{Subject: subject})
		return token, err
	},
	"set of an anonymous one": func(t *testing.T, w *way, subject string) (pgsession.Token, error) {
		token, s := w.create(t, pgsession.Session{})
		s.Subject = subject
		_, err := w.Set(t.Context(), token, s)
		return token, err
	},
	"set in place of an expired one": func(t *testing.T, w *way, subject string) (pgsession.Token, error) {
		token, _ := w.create(t, pgsession.Session{IdleTimeout: time.Hour})
		w.age(t, 2*time.Hour, token)
		_, err := w.Set(t.Context(), token, pgsession.Session{Subject: subject})
		return token, err
	},
	"update of another one's": func(t *testing.T, w *way, subject string) (pgsession.Token, error) {
		prefix := fmt.Sprint(t.Name(), time.Now().UnixNano(), " ")
		w.seed(t, 1, prefix, "other "+subject, 1)
		token := seeded(prefix, 1)
		_, err := w.Update(t.Context(), token, func(s *pgsession.Session) error { s.Subject = subject; return nil })
		return token, err
	},
	"renew": func(t *testing.T, w *way, subject string) (pgsession.Token, error) {
		token, _ := w.create(t, pgsession.Session{})
		next, _, err := w.Renew(t.Context(), token, pgsession.Renewal{Subject: subject})
		if err != nil {
			return token, err
		}
		return next, nil
	},
}

func TestALimitHoldsHoweverASessionBecomesTheSubjects(t *testing.T) {
	t.Parallel()
	for name, overflow := range map[string]pgsession.Overflow{
		"reject": pgsession.OverflowReject, "oldest": pgsession.OverflowEvictOldest, "idlest": pgsession.OverflowEvictIdlest,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := pgsession.Config{MaxPerSubject: 2, Overflow: overflow, TouchInterval: time.Microsecond}
			everyWay(t, cfg, func(t *testing.T, w *way) {
				ctx := t.Context()
				// The first is the oldest, the second the idlest. All are aged at once: each time costs a
				// cache the wait for a beat.
				var firsts, seconds []pgsession.Token
				hows := slices.Sorted(maps.Keys(logins))
				for _, how := range hows {
					first, _ := w.create(t, pgsession.Session{Subject: how})
					second, _ := w.create(t, pgsession.Session{Subject: how})
					firsts, seconds = append(firsts, first), append(seconds, second)
				}
				w.age(t, 3*time.Minute, firsts...)
				w.age(t, 2*time.Minute, seconds...)
				w.exec(t, `update {table} set version = version - 600000000`)
				for i, how := range hows {
					_, err := w.Touch(ctx, firsts[i])
					must(t, err)
					// What is the subject's already is none more.
					seconds[i], _ = w.renew(t, seconds[i], how)
				}
				w.exec(t, `update {table} set version = version - 600000000, expires_at = expires_at - interval '2 minutes'
					where id = any (array(select jsonb_array_elements_text($1::jsonb)))`, w.ids(t, seconds...))
				for i, how := range hows {
					first, second, login := firsts[i], seconds[i], logins[how]
					third, err := login(t, w, how)
					gone, want := pgsession.Token(""), error(nil)
					switch overflow {
					case pgsession.OverflowReject:
						want = pgsession.ErrTooManySessions
					case pgsession.OverflowEvictOldest:
						gone = first
					case pgsession.OverflowEvictIdlest:
						gone = second
					}
					if !errors.Is(err, want) {
						t.Errorf("%s: %v, want %v", how, err, want)
					}
					for _, token := range []pgsession.Token{first, second, third} {
						if token == "" { // of a Create that was rejected
							continue
						}
						s, err := w.Get(ctx, token)
						live := err == nil && s.Subject == how
						if shall := token != gone && (token != third || want == nil); live != shall {
							t.Errorf("%s: got %+v, %v; want it live: %v", how, s, err, shall)
						}
					}
					if n, err := w.Count(ctx, pgsession.Filter{Subject: how}); n != 2 || err != nil {
						t.Errorf("%s: %d sessions, %v", how, n, err)
					}
				}
				for range 3 {
					w.create(t, pgsession.Session{}) // nobody has no limit
				}
				if n := w.store.Stats().Evicted; overflow != pgsession.OverflowReject && n != int64(len(logins)) {
					t.Errorf("%d evictions were counted", n)
				}
			})
		})
	}
}

func TestALowerLimitIsReachedAtTheNextLogin(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{MaxPerSubject: 3, Overflow: pgsession.OverflowEvictOldest, Tombstone: -1})
	w.seed(t, 100, "before", "ada", 1)
	e := listenTo(t, pgtest.URL(t), channelOf(w.schema, "session"))
	_, err := w.Set(t.Context(), seeded("before", 7), pgsession.Session{Subject: "ada", Data: []byte("no login")})
	must(t, err)
	if n, err := w.Count(t.Context(), pgsession.Filter{Subject: "ada"}); n != 100 || err != nil {
		t.Errorf("%d sessions, %v", n, err)
	}
	e.heard(t)
	w.create(t, pgsession.Session{Subject: "ada"})
	if n, err := w.Count(t.Context(), pgsession.Filter{Subject: "ada"}); n != 3 || err != nil {
		t.Errorf("%d sessions, %v", n, err)
	}
	evicted := 0
	for _, payload := range e.heard(t) {
		if !strings.HasPrefix(payload, `{"v":1,"revoked":{`) {
			t.Errorf("heard %s", payload)
		}
		evicted += strings.Count(payload, `": `)
	}
	if evicted != 98 {
		t.Errorf("%d evictions were notified, want 98", evicted)
	}
}

func TestALoginThatCannotCountIsRefused(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"repeatable read", "serializable"} {
		w := isolated(t, level, pgsession.Config{MaxPerSubject: 2})
		for how, login := range logins {
			_, err := login(t, w, how)
			wantError(t, level+": "+how, err, pgsession.ErrInvalid)
			wantSQLState(t, level+": "+how, err, "25000")
		}
		token, s := w.create(t, pgsession.Session{}) // what is no login works
		s.Data = []byte("1")
		_, err := w.Set(t.Context(), token, s)
		must(t, err)
		_, _, err = w.Renew(t.Context(), token, pgsession.Renewal{})
		must(t, err)
	}
}

func TestAnEvictionThatWaitsForARenewalEndsTheSession(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{MaxPerSubject: 1, Overflow: pgsession.OverflowEvictOldest})
	token, _ := w.create(t, pgsession.Session{Subject: "ada"})
	tx := w.begin(t)
	token, _, err := w.store.WithQuery(tx.query).Renew(t.Context(), token, pgsession.Renewal{})
	must(t, err)
	answer := make(chan error)
	go func() {
		_, _, err := w.Create(t.Context(), pgsession.Session{Subject: "ada"})
		answer <- err
	}()
	w.awaitWaiting(t, 1)
	must(t, tx.commit())
	must(t, <-answer)
	_, err = w.Get(t.Context(), token)
	wantError(t, "get of what was renewed", err, pgsession.ErrNotFound)
	if n, err := w.Count(t.Context(), pgsession.Filter{Subject: "ada"}); n != 1 || err != nil {
		t.Errorf("%d sessions, %v", n, err)
	}
}

func TestLoginsOfOneSubjectAreNotTakenForWritesOfOneSession(t *testing.T) {
	t.Parallel()
	for name, lock := range map[string]pgsession.LockMode{"skip": pgsession.LockSkip, "fail": pgsession.LockFail} {
		w := onPool(t, pgsession.Config{MaxPerSubject: 2, Overflow: pgsession.OverflowEvictOldest, Lock: lock})
		tx := w.begin(t)
		_, _, err := w.store.WithQuery(tx.query).Create(t.Context(), pgsession.Session{Subject: "ada"})
		must(t, err)
		answer := make(chan error)
		go func() {
			_, err := w.Set(t.Context(), "another", pgsession.Session{Subject: "ada"})
			answer <- err
		}()
		w.awaitWaiting(t, 1)
		must(t, tx.commit())
		must(t, <-answer)
		if _, err := w.Get(t.Context(), "another"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestALoginWaitsForNoLongerThanTheLockTimeout(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{
		MaxPerSubject: 1, Overflow: pgsession.OverflowEvictOldest, LockTimeout: 50 * time.Millisecond,
	})
	held, s := w.create(t, pgsession.Session{Subject: "ada"})
	tx := w.begin(t)
	s.Data = []byte("held")
	_, err := w.store.WithQuery(tx.query).Set(t.Context(), held, s)
	must(t, err)
	for how, login := range logins {
		_, err := login(t, w, "ada")
		wantError(t, how, err, pgsession.ErrBusy)
	}
	must(t, tx.commit())
	_, err = w.Get(t.Context(), held)
	must(t, err)
}

func TestAnEvictedSessionIsServedNowhere(t *testing.T) {
	t.Parallel()
	cfg := func(_ string, cfg *pgsession.Config) {
		cfg.MaxPerSubject, cfg.Overflow = 1, pgsession.OverflowEvictOldest
	}
	store, pool, _ := listening(t, cfg)
	other := setUp(t, pool.Query, fastListening(pool.Config().ConnString()))
	awaitLive(t, store)
	awaitLive(t, other)
	ctx := t.Context()
	token, s, err := store.Create(ctx, pgsession.Session{Subject: "ada"})
	must(t, err)
	var heard diary
	other.Subscribe(heard.note)
	for i := range 20 {
		for _, from := range []*pgsession.Store{store, other} {
			_, err := from.Get(ctx, token)
			must(t, err)
		}
		old, oldID := token, s.ID
		if i%2 == 0 {
			token, s, err = store.Create(ctx, pgsession.Session{Subject: "ada"})
			must(t, err)
		} else {
			tx := begin(t, pool)
			token, s, err = store.WithQuery(tx.query).Create(ctx, pgsession.Session{Subject: "ada"})
			must(t, err)
			must(t, tx.commit())
		}
		_, err = store.Get(ctx, old)
		wantError(t, "get where it was evicted", err, pgsession.ErrNotFound)
		heard.has(t, pgsession.Event{Kind: pgsession.EventRevoked, ID: oldID})
		_, err = other.Get(ctx, old)
		wantError(t, "get elsewhere", err, pgsession.ErrNotFound)
	}
}

func TestNoMomentSeesMoreThanTheLimit(t *testing.T) {
	t.Parallel()
	const limit = 5
	for name, overflow := range map[string]pgsession.Overflow{
		"reject": pgsession.OverflowReject, "evict": pgsession.OverflowEvictOldest,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// All at once, as far as the race detector can follow: it knows 8,128 goroutines.
			logins, workers := 10_000, 5000
			if testing.Short() || overflow == pgsession.OverflowReject {
				logins, workers = 1000, 8
			}
			w, other := onTwoPools(t, pgsession.Config{MaxPerSubject: limit, Overflow: overflow, LockTimeout: time.Minute})
			ctx, stop := context.WithCancel(t.Context())
			var watch sync.WaitGroup
			var looks, most int
			conn := dial(t, pgtest.URL(t), nil)
			watch.Go(func() {
				for pause := time.NewTicker(time.Millisecond); ctx.Err() == nil; <-pause.C {
					var n int
					err := conn.QueryRow(t.Context(), w.fill(`select count(*) from {table} as t
						where t.subject = 'ada' and t.revoked_at is null and t.expires_at > clock_timestamp()`)).Scan(&n)
					if err != nil {
						t.Error(err)
						return
					}
					looks++
					most = max(most, n)
				}
			})
			var done atomic.Int64
			stores := []*pgsession.Store{w.store, other}
			crowd(workers, func(worker int) {
				for i := range logins / workers {
					store := stores[(worker+i)%2]
					token, _, err := store.Create(t.Context(), pgsession.Session{Subject: "ada"})
					switch {
					case overflow == pgsession.OverflowReject && errors.Is(err, pgsession.ErrTooManySessions):
						// Somebody logs out.
						for s, err := range store.All(t.Context(), pgsession.Filter{Subject: "ada"}) {
							if err == nil {
								_, err = store.Revoke(t.Context(), pgsession.Revocation{IDs: []pgsession.ID{s.ID}})
							}
							if err != nil {
								t.Error(err)
							}
							break
						}
					case err != nil:
						t.Error(err)
					case (worker+i)%10 == 0:
						// What has another id is not one more.
						if _, _, err = store.Renew(t.Context(), token, pgsession.Renewal{}); err != nil && !errors.Is(err, pgsession.ErrRevoked) {
							t.Error(err)
						}
						done.Add(1)
					default:
						done.Add(1)
					}
				}
			})
			stop()
			watch.Wait()
			t.Logf("%d logins, looked at %d times, %d live at most", done.Load(), looks, most)
			if most != limit || looks < 10 {
				t.Errorf("%d sessions were live at a moment, in %d looks; want %d", most, looks, limit)
			}
		})
	}
}

func TestEveryoneIsRevokedWhenToldSo(t *testing.T) {
	t.Parallel()
	everyStore(t, pgsession.Config{}, func(t *testing.T, w *way) {
		ctx := t.Context()
		mine, s := w.create(t, pgsession.Session{Subject: "admin"})
		mine, _ = w.renew(t, mine, "")
		for _, subject := range []string{"", "ada", "bob"} {
			w.create(t, pgsession.Session{Subject: subject})
		}
		for what, bad := range map[string]pgsession.Revocation{
			"nobody": {}, "no ids": {IDs: []pgsession.ID{}}, "all but": {Except: []pgsession.ID{s.ID}},
			"everyone and a subject": {Everyone: true, Subject: "ada"}, "everyone and ids": {Everyone: true, IDs: []pgsession.ID{}},
			"everyone but an id that cannot be": {Everyone: true, Except: []pgsession.ID{""}},
		} {
			n, err := w.Revoke(ctx, bad)
			wantError(t, what, err, pgsession.ErrInvalid)
			if n != 0 {
				t.Errorf("%s: revoked %d", what, n)
			}
		}
		_, err := w.store.WithQuery(w.query).Revoke(ctx, pgsession.Revocation{Everyone: true})
		wantError(t, "in a transaction", err, pgsession.ErrInvalid)
		if n, err := w.Count(ctx, pgsession.Filter{}); n != 4 || err != nil {
			t.Fatalf("%d sessions, %v", n, err)
		}
		if n, err := w.Revoke(ctx, pgsession.Revocation{Everyone: true, Except: []pgsession.ID{s.ID}}); n != 3 || err != nil {
			t.Errorf("revoked %d, %v; want 3", n, err)
		}
		_, err = w.Get(ctx, mine) // by the id that it had before
		must(t, err)
		if n, err := w.Revoke(ctx, pgsession.Revocation{Everyone: true}); n != 1 || err != nil {
			t.Errorf("revoked %d, %v; want 1", n, err)
		}
		_, err = w.Get(ctx, mine)
		wantError(t, "get", err, pgsession.ErrNotFound)
	})
}
