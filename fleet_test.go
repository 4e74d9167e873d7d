package pgsession_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

// fleet is some instances of one application on one server, that work on a few sessions and keep a
// history of it.
type fleet struct {
	guarantee
	server  *postgres.Server
	admin   *pgxpool.Pool
	members []*member
	epoch   time.Time // what the history's times count from

	mu     sync.Mutex
	known  []*known
	wanted [5]*known // the sessions that are in use
	deeds  []deed
	wide   []wideEnd
}

// member is one instance. Its statements and its listener's connections each have a network of their
// own.
type member struct {
	*pgsession.Store
	number         int
	pool           *pgxpool.Pool
	queries, hears *postgres.Proxy
	notifies       bool // all it writes, in the same transaction
}

// known is a session of which somebody has the token.
type known struct {
	number   int
	token    pgsession.Token
	id       pgsession.ID
	subject  string
	wanders  bool // from subject to subject
	created  deed
	previous *known // whose place it took
	gone     atomic.Bool
}

// wideEnd is a deed that ended all sessions, or all of a subject.
type wideEnd struct {
	deed
	subject string
}

// subjects are whose the sessions are.
var subjects = []string{"ada", "bob"}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	const maxAge, liveness = 1500 * time.Millisecond, 300 * time.Millisecond
	f := &fleet{guarantee: guarantee{maxAge: maxAge}, epoch: time.Now()}
	// Its log would be long: all that goes wrong is in it.
	f.server = pgtest.PrivateServer(t, postgres.Options{Log: io.Discard})
	f.admin = pgtest.Connect(t, f.server.URL())
	setUp(t, f.admin.Query, pgsession.Config{})
	for number, change := range []func(*pgsession.Config){
		func(*pgsession.Config) {},
		// Each touch goes to the database, and what it answers to the cache.
		func(cfg *pgsession.Config) { cfg.TouchInterval = time.Microsecond },
		func(cfg *pgsession.Config) { cfg.Notify = pgsession.NotifyInTx },
		func(cfg *pgsession.Config) { cfg.Cache.WhenNotLive = pgsession.ServeUntilMaxAge },
	} {
		m := &member{number: number, queries: f.network(t), hears: f.network(t)}
		m.pool = pgtest.Connect(t, f.through(t, m.queries))
		cfg := pgsession.Config{Listen: listenFor(f.through(t, m.hears))}
		cfg.Cache.MaxAge, cfg.Cache.Liveness = maxAge, liveness
		change(&cfg)
		m.notifies = cfg.Notify == pgsession.NotifyInTx
		m.Store = setUp(t, m.pool.Query, cfg)
		f.members = append(f.members, m)
		if cfg.Cache.WhenNotLive == pgsession.ServeUntilMaxAge {
			f.liveness = append(f.liveness, 0)
		} else {
			f.liveness = append(f.liveness, liveness)
		}
	}
	return f
}

// network is a proxy to the server.
func (f *fleet) network(t *testing.T) *postgres.Proxy {
	t.Helper()
	return proxyTo(t, f.server.URL())
}

func proxyTo(t *testing.T, address string) *postgres.Proxy {
	t.Helper()
	server, err := pgx.ParseConfig(address)
	must(t, err)
	proxy, err := postgres.NewProxy(net.JoinHostPort(server.Host, strconv.Itoa(int(server.Port))))
	must(t, err)
	t.Cleanup(func() { _ = proxy.Close() })
	return proxy
}

func (f *fleet) through(t *testing.T, proxy *postgres.Proxy) string {
	t.Helper()
	address, err := postgres.WithAddress(f.server.URL(), proxy.Address())
	must(t, err)
	return address
}

// history is all that was done, in deeds of one session each.
func (f *fleet) history() []deed {
	f.mu.Lock()
	defer f.mu.Unlock()
	history := f.deeds
	for _, w := range f.wide {
		for _, k := range f.known {
			if k.created.begin >= w.end || w.subject != "" && w.subject != k.subject && !k.wanders {
				continue
			}
			d := w.deed
			d.session = k.number
			if k.created.end > w.begin || w.subject != "" && k.wanders {
				d.outcome = inDoubt // whether it was one of them
			}
			history = append(history, d)
		}
	}
	return history
}

// caller is a goroutine of an application's instance.
type caller struct {
	*member
	fleet *fleet
	rand  *rand.Rand
	name  string
	wrote int
	deeds []deed
	wide  []wideEnd
}

func (f *fleet) caller(m *member, seed, number uint64) *caller {
	return &caller{
		member: m, fleet: f, rand: rand.New(rand.NewPCG(seed, number)), name: fmt.Sprint(m.number, ".", number),
	}
}

// work calls one method after the other, until the time has come.
func (c *caller) work(until time.Time) {
	for time.Now().Before(until) {
		c.step()
		time.Sleep(rand.N(time.Millisecond)) // what an application does with what it read
	}
	c.fleet.mu.Lock()
	defer c.fleet.mu.Unlock()
	c.fleet.deeds = append(c.fleet.deeds, c.deeds...)
	c.fleet.wide = append(c.fleet.wide, c.wide...)
}

func (c *caller) step() {
	k := c.choose()
	if k == nil {
		return
	}
	for range c.rand.IntN(6) {
		c.read(k)
	}
	switch n := c.rand.IntN(1000); {
	case n < 450:
		c.read(k)
	case n < 500:
		c.readFresh(k)
	case n < 680:
		c.set(k)
	case n < 770:
		c.update(k)
	case n < 870:
		c.touch(k)
	case n < 980:
		c.transaction(k)
	case n < 988:
		c.end(k, func(ctx context.Context) error { _, err := c.Destroy(ctx, k.token); return err })
	case n < 994:
		c.end(k, func(ctx context.Context) error {
			_, err := c.Revoke(ctx, pgsession.Revocation{IDs: []pgsession.ID{k.id}})
			return err
		})
	case n < 998:
		c.endMany(subjects[c.rand.IntN(len(subjects))])
	default:
		c.endMany("")
	}
	// What somebody has just changed is what is read next.
	for range 3 {
		c.read(k)
	}
}

// choose chooses a session, or makes a new one in the place of one that has ended.
func (c *caller) choose() *known {
	f := c.fleet
	place := c.rand.IntN(len(f.wanted))
	f.mu.Lock()
	k := f.wanted[place]
	f.mu.Unlock()
	if k == nil || k.gone.Load() && c.rand.IntN(4) == 0 {
		return c.create(place, k)
	}
	if k.previous != nil && c.rand.IntN(20) == 0 {
		return k.previous
	}
	return k
}

func (c *caller) create(place int, previous *known) *known {
	k := &known{subject: subjects[c.rand.IntN(len(subjects))], wanders: c.rand.IntN(4) == 0, previous: previous}
	ctx, cancel := c.patience()
	defer cancel()
	d := c.begin(writes)
	d.data = c.newData()
	token, s, err := c.Create(ctx, pgsession.Session{Subject: k.subject, Data: []byte(d.data)})
	if err != nil {
		return nil // if it was made, nobody has the token
	}
	k.token, k.id = token, s.ID
	f := c.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	k.number = len(f.known)
	d.session, d.version = k.number, s.Version
	k.created = c.finish(d)
	f.known = append(f.known, k)
	f.wanted[place] = k
	return k
}

// patience is how long a call may take.
func (c *caller) patience() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 400*time.Millisecond)
}

// impatience is patience that may end at any moment of the call.
func (c *caller) impatience() (context.Context, context.CancelFunc) {
	if c.rand.IntN(5) > 0 {
		return c.patience()
	}
	return context.WithTimeout(context.Background(), time.Duration(c.rand.Int64N(int64(4*time.Millisecond))))
}

func (c *caller) now() time.Duration { return time.Since(c.fleet.epoch) }

func (c *caller) begin(a action) deed {
	return deed{instance: c.number, action: a, begin: c.now()}
}

func (c *caller) finish(d deed) deed {
	d.end = c.now()
	c.deeds = append(c.deeds, d)
	return d
}

func (c *caller) newData() string {
	c.wrote++
	return fmt.Sprint(c.name, ".", c.wrote)
}

func (c *caller) read(k *known) {
	ctx, cancel := c.patience()
	defer cancel()
	if c.rand.IntN(4) == 0 {
		d := c.begin(reads)
		s, err := c.Get(ctx, k.token)
		c.finishRead(d, k, s.Version, string(s.Data), err)
		return
	}
	var version int64
	var data string
	d := c.begin(reads)
	err := c.View(ctx, k.token, func(s pgsession.Session) error {
		version, data = s.Version, string(s.Data)
		return nil
	})
	c.finishRead(d, k, version, data, err)
}

func (c *caller) readFresh(k *known) {
	ctx, cancel := c.patience()
	defer cancel()
	d := c.begin(readsFresh)
	s, err := c.GetFresh(ctx, k.token)
	c.finishRead(d, k, s.Version, string(s.Data), err)
}

func (c *caller) finishRead(d deed, k *known, version int64, data string, err error) {
	d.session, d.version, d.data = k.number, version, data
	switch {
	case errors.Is(err, pgsession.ErrNotFound):
		d.outcome = missing
		k.gone.Store(true)
	case err != nil:
		d.outcome = failed
	}
	c.finish(d)
}

// finishWrite takes what a write returned.
func (c *caller) finishWrite(d deed, k *known, version int64, err error) {
	d.session, d.version, d.notifies = k.number, version, c.notifies
	switch {
	case errors.Is(err, pgsession.ErrUnpublished):
		d.outcome = unpublished
	case errors.Is(err, pgsession.ErrInDoubt):
		d.outcome = inDoubt
	case err != nil:
		d.outcome = failed
	}
	if d.outcome != done && d.outcome != unpublished {
		d.version = 0
	}
	c.finish(d)
}

// content is what a caller writes.
func (c *caller) content(k *known, data string) pgsession.Session {
	s := pgsession.Session{Subject: k.subject, Data: []byte(data)}
	if k.wanders {
		s.Subject = subjects[c.rand.IntN(len(subjects))]
	}
	return s
}

func (c *caller) set(k *known) {
	ctx, cancel := c.impatience()
	defer cancel()
	d := c.begin(writes)
	d.data = c.newData()
	s, err := c.Set(ctx, k.token, c.content(k, d.data))
	c.finishWrite(d, k, s.Version, err)
}

func (c *caller) update(k *known) {
	ctx, cancel := c.impatience()
	defer cancel()
	d := c.begin(writes)
	d.data = c.newData()
	s, err := c.Update(ctx, k.token, func(s *pgsession.Session) error {
		s.Data = []byte(d.data)
		return nil
	})
	c.finishWrite(d, k, s.Version, err)
}

func (c *caller) touch(k *known) {
	ctx, cancel := c.impatience()
	defer cancel()
	_, _ = c.Touch(ctx, k.token) // what it does to the cache is seen by reads
}

func (c *caller) end(k *known, call func(context.Context) error) {
	ctx, cancel := c.impatience()
	defer cancel()
	d := c.begin(ends)
	c.finishEnd(d, k, call(ctx))
}

func (c *caller) finishEnd(d deed, k *known, err error) {
	d.session, d.notifies = k.number, true
	switch {
	case errors.Is(err, pgsession.ErrInDoubt):
		d.outcome = inDoubt
	case err != nil:
		d.outcome = failed
	}
	if d.outcome != failed {
		k.gone.Store(true)
	}
	c.finish(d)
}

// endMany ends all sessions of a subject, or all.
func (c *caller) endMany(subject string) {
	ctx, cancel := c.impatience()
	defer cancel()
	d := c.begin(ends)
	var err error
	if subject == "" {
		_, err = c.Clear(ctx)
	} else {
		_, err = c.Revoke(ctx, pgsession.Revocation{Subject: subject})
	}
	d.end, d.notifies = c.now(), true
	if err != nil {
		d.outcome = inDoubt // it works in batches, of which some may be done
	}
	c.wide = append(c.wide, wideEnd{d, subject})
}

// transaction is one of the caller's.
func (c *caller) transaction(k *known) {
	ctx, cancel := c.impatience()
	defer cancel()
	tx, err := c.pool.Begin(ctx)
	if err != nil {
		return
	}
	inside := c.WithQuery(tx.Query)
	var deeds []deed
	var errs []error // of the statements
	for range 1 + c.rand.IntN(3) {
		d := deed{instance: c.number, session: k.number, begin: c.now(), inTx: true, notifies: true}
		switch c.rand.IntN(20) {
		case 0:
			d.action = ends
			_, err = inside.Destroy(ctx, k.token)
		case 1, 2, 3:
			_, err = inside.Touch(ctx, k.token)
			d.action = reads
		default:
			// What the transaction wrote before is nothing that anybody else will see.
			for i := range deeds {
				if deeds[i].action == writes {
					deeds[i].outcome, deeds[i].version = failed, 0
				}
			}
			d.action, d.data = writes, c.newData()
			var s pgsession.Session
			s, err = inside.Set(ctx, k.token, c.content(k, d.data))
			d.version = s.Version
		}
		if errors.Is(err, pgsession.ErrRevoked) || errors.Is(err, pgsession.ErrNotFound) {
			err, d.outcome = nil, failed // no error of the database's
		}
		errs = append(errs, err)
		if d.action != reads {
			deeds = append(deeds, d)
		}
	}
	outcome := failed
	if err = errors.Join(errs...); err == nil && c.rand.IntN(4) > 0 {
		switch err = tx.Commit(ctx); {
		case err == nil:
			outcome = done
		case !errors.Is(err, pgx.ErrTxCommitRollback):
			outcome = inDoubt
		}
	} else {
		over, cancel := c.patience()
		_ = tx.Rollback(over) // or the connection is lost, which comes to the same
		cancel()
	}
	for _, d := range deeds {
		if d.outcome != failed {
			d.outcome = outcome
		}
		if d.outcome == failed || d.outcome == inDoubt {
			d.version = 0
		} else if d.action == ends {
			k.gone.Store(true)
		}
		c.finish(d)
	}
}
