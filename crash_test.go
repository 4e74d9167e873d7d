package pgsession_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

// What was acknowledged before the server was killed is there when it is back, and the schema is whole,
// whatever was under way: sets, ends, prunes with and without a hook, and Setups.
func TestAServerThatIsKilledLosesNothingThatWasAcknowledged(t *testing.T) {
	t.Parallel()
	server := pgtest.PrivateServer(t, postgres.Options{Fsync: true})
	const writers, kills = 4, 2
	type known struct {
		acked, sent int // the value last acknowledged, and last sent
		ended       bool
	}
	state := map[pgsession.Token]*known{}
	schemas := 0
	for kill := range kills {
		pool := pgtest.Connect(t, server.URL())
		w := &way{see: pool.Query, schema: "pgsession", table: "pgsession.session"}
		store := setUp(t, pool.Query, pgsession.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		var mu sync.Mutex
		acks := make(chan struct{}, 1000)
		for i := range writers {
			group.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					token := pgsession.Token(fmt.Sprintf("kill %d writer %d session %d", kill, i, n/4))
					mu.Lock()
					k := state[token]
					if k == nil {
						k = &known{}
						state[token] = k
					}
					k.sent = n + 1
					mu.Unlock()
					var err error
					if n%16 == 15 {
						mu.Lock()
						k.ended = true // maybe; an acknowledgement makes it certain, below
						mu.Unlock()
						if _, err = store.Destroy(ctx, token); err == nil {
							mu.Lock()
							k.acked = -1
							mu.Unlock()
						}
					} else if _, err = store.Set(ctx, token, pgsession.Session{Data: fmt.Append(nil, n+1)}); err == nil {
						mu.Lock()
						k.acked = n + 1
						mu.Unlock()
					}
					if err != nil {
						return
					}
					select {
					case acks <- struct{}{}:
					default:
					}
				}
			})
		}
		group.Go(func() { // prunes, every other one by a hook
			hooked := storeOf(t, pool.Query, pgsession.Config{Cleanup: pgsession.Cleanup{
				Mode: pgsession.CleanupOff, BatchSize: 7,
				OnPrune: func(context.Context, []pgsession.PrunedSession) error { return nil },
			}})
			for ctx.Err() == nil {
				rows, err := pool.Query(ctx, `
					insert into pgsession.session (version, created_at, expires_at, prune_after, codec, id, data)
					select 1, now(), now() - interval '1 h', now() - interval '1 h', 0, 'expired ' || gen_random_uuid(), ''
					  from generate_series(1, 50)`)
				if err != nil {
					return
				}
				rows.Close()
				if kill%2 == 0 {
					_, err = hooked.Prune(ctx)
				} else {
					_, err = store.Prune(ctx)
				}
				if err != nil && !errors.Is(err, pgsession.ErrBusy) {
					return
				}
			}
		})
		first := schemas
		group.Go(func() { // Setups, of a schema each
			for ctx.Err() == nil {
				mu.Lock()
				schema := fmt.Sprintf("s%d", schemas)
				schemas++
				mu.Unlock()
				other, err := pgsession.New(pool.Query, pgsession.Config{
					Schema: schema, Cleanup: withoutCleanup, Logger: slog.New(slog.DiscardHandler),
				})
				must(t, err)
				err = other.Setup(ctx)
				_ = other.Close()
				if err != nil {
					return
				}
			}
		})
		timeout := time.NewTimer(2 * time.Minute)
		for range 200 {
			select {
			case <-acks:
			case <-timeout.C:
				t.Fatal("the writers do not come on")
			}
		}
		eventually(t, "some Setups are done", func() bool { mu.Lock(); defer mu.Unlock(); return schemas > first+2 })
		must(t, server.Kill(t.Context()))
		cancel()
		group.Wait()
		must(t, server.Restart(t.Context()))

		pool = pgtest.Connect(t, server.URL())
		w.see = pool.Query
		checked := storeOf(t, pool.Query, pgsession.Config{SkipMigrate: true, Cleanup: withoutCleanup})
		must(t, checked.Setup(t.Context()))
		w.store = checked
		exec(t, pool, "update pgsession.session_cleanup set hooked_at = null")
		for token, k := range state {
			got, err := checked.GetFresh(t.Context(), token)
			switch {
			case k.acked == -1 || k.ended && errors.Is(err, pgsession.ErrNotFound):
				if err == nil {
					t.Errorf("%s was ended, and is there", token)
				}
			case k.acked == 0 && errors.Is(err, pgsession.ErrNotFound):
			case err != nil:
				t.Errorf("%s was set to %d: %v", token, k.acked, err)
			default:
				if s := string(got.Data); s != fmt.Sprint(k.acked) && s != fmt.Sprint(k.sent) {
					t.Errorf("%s is %s; %d was acknowledged, %d was sent", token, s, k.acked, k.sent)
				}
			}
		}
		for i := range schemas {
			cfg := pgsession.Config{Schema: fmt.Sprintf("s%d", i), Cleanup: withoutCleanup}
			there := value[bool](t, pool, "select to_regnamespace($1) is not null", cfg.Schema)
			skip := cfg
			skip.SkipMigrate = true
			if err := storeOf(t, pool.Query, skip).Setup(t.Context()); there != (err == nil) {
				t.Errorf("the schema %s is there: %v, and Setup says: %v", cfg.Schema, there, err)
			}
			if i >= schemas-1 {
				useAll(t, setUp(t, pool.Query, cfg), nil)
			}
		}
		_, err := checked.Prune(t.Context())
		must(t, err)
		if n := value[int](t, pool, "select count(*) from pgsession.session where expires_at < now() and prune_after < now()"); n != 0 {
			t.Errorf("%d expired sessions are left", n)
		}
	}
}
