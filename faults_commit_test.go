package pgsession_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

// commits is a server whose commits can be made to wait: for a synchronous standby that is not there.
// Until they go on, what they have committed is seen by nobody, and its locks are held.
type commits struct {
	server *postgres.Server
	admin  *pgxpool.Pool
}

func newCommits(t *testing.T) commits {
	t.Helper()
	server := pgtest.PrivateServer(t, postgres.Options{})
	return commits{server, pgtest.Connect(t, server.URL())}
}

// waiting is how many wait.
func (c commits) waiting(t *testing.T) int {
	t.Helper()
	return value[int](t, c.admin, "select count(*) from pg_stat_activity where wait_event = 'SyncRep'")
}

// hold makes commits wait. When it returns it has taken effect.
func (c commits) hold(t *testing.T) {
	t.Helper()
	exec(t, c.admin, "alter system set synchronous_standby_names = 'nobody'")
	exec(t, c.admin, "select pg_reload_conf()")
	probe := dial(t, c.server.URL(), nil)
	ctx, cancel := context.WithCancel(t.Context())
	committed := make(chan error, 1)
	commit := func() {
		_, err := probe.Exec(ctx, "comment on schema public is 'probe'")
		committed <- err
	}
	go commit()
	eventually(t, "commits wait", func() bool {
		select {
		case err := <-committed:
			must(t, err)
			go commit()
		default:
		}
		return value[bool](t, c.admin, fmt.Sprintf(
			"select coalesce(wait_event = 'SyncRep', false) from pg_stat_activity where pid = %d", probe.PgConn().PID()))
	})
	cancel()
	wantError(t, "the probe", <-committed, context.Canceled)
	eventually(t, "the probe is gone", func() bool { return c.waiting(t) == 0 })
}

// release lets commits go on.
func (c commits) release(t *testing.T) {
	t.Helper()
	exec(t, c.admin, "alter system reset synchronous_standby_names")
	exec(t, c.admin, "select pg_reload_conf()")
	eventually(t, "commits go on", func() bool { return c.waiting(t) == 0 })
}

// network is what a pool dials by.
type network struct {
	down    atomic.Bool
	refused atomic.Int64
}

// pool is one of connections that are not closed when the network is down, but made no more.
func (n *network) pool(t *testing.T, address string) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(address)
	must(t, err)
	dial := config.ConnConfig.DialFunc
	config.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if n.down.Load() {
			n.refused.Add(1)
			return nil, errors.New("the network is down")
		}
		return dial(ctx, network, address)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	must(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// A write whose context ends during its commit is carried out in the end, and so all instances must
// see it, the writer's too: also where they have read the session since, and what they read was right
// at that time.
func TestAWriteCutOffDuringItsCommitIsSeenByAllOnceItIsCommitted(t *testing.T) {
	t.Parallel()
	c := newCommits(t)
	b := setUp(t, c.admin.Query, fastListening(c.server.URL()))
	for _, test := range []struct {
		name   string
		mode   pgsession.NotifyMode
		inTx   bool
		orphan bool // the server does not learn that the caller has left
	}{
		{"grouped", pgsession.NotifyGrouped, false, false},
		{"grouped, orphaned", pgsession.NotifyGrouped, false, true},
		{"in the transaction", pgsession.NotifyInTx, false, false},
		{"in the transaction, orphaned", pgsession.NotifyInTx, false, true},
		{"in the caller's", pgsession.NotifyGrouped, true, false},
		{"in the caller's, orphaned", pgsession.NotifyGrouped, true, true},
	} {
		t.Run(test.name, func(t *testing.T) { // one after the other: they hold the server's commits
			var n network
			pool := n.pool(t, c.server.URL())
			cfg := fastListening(c.server.URL())
			cfg.Notify = test.mode
			a := setUp(t, pool.Query, cfg)
			token, s, err := a.Create(t.Context(), pgsession.Session{Data: []byte("old")})
			must(t, err)
			shows := func(what string, store *pgsession.Store, data string, cached bool) {
				t.Helper()
				eventually(t, what, func() bool {
					hits := store.Stats().Cache.Hits
					got, err := store.Get(t.Context(), token)
					return err == nil && string(got.Data) == data && (!cached || store.Stats().Cache.Hits > hits)
				})
			}
			shows("the writer has it", a, "old", true)
			shows("the other one has it", b, "old", true)

			c.hold(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s.Data = []byte("new")
			wrote := make(chan error)
			if test.inTx {
				tx, err := pool.Begin(t.Context())
				must(t, err)
				_, err = a.WithQuery(tx.Query).Set(t.Context(), token, s)
				must(t, err)
				go func() { wrote <- tx.Commit(ctx) }()
			} else {
				go func() {
					_, err := a.Set(ctx, token, s)
					wrote <- err
				}()
			}
			eventually(t, "it is being committed", func() bool { return c.waiting(t) == 1 })
			n.down.Store(test.orphan)
			cancel()
			err = <-wrote
			wantError(t, "the write", err, context.Canceled)
			if !test.inTx {
				wantError(t, "the write", err, pgsession.ErrInDoubt)
			}
			if test.orphan {
				eventually(t, "the server was not told", func() bool { return n.refused.Load() > 0 })
				n.down.Store(false)
				// Where the write notifies, no other notification passes before it is committed, and no beat.
				cached := test.mode == pgsession.NotifyGrouped && !test.inTx
				shows("the writer has read it again", a, "old", cached)
				shows("the other one has, too", b, "old", cached)
				if n := c.waiting(t); n != 1 {
					t.Fatalf("%d commits wait", n)
				}
				c.release(t)
			}
			shows("the writer has what it wrote", a, "new", false)
			shows("the other one has it", b, "new", false)
			shows("the writer has it in memory", a, "new", !test.inTx) // its fence may stay, if it heard nothing for a while
			shows("the other one has it in memory", b, "new", true)
			if !test.orphan {
				c.release(t)
			}
		})
	}
}
