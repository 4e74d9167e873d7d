package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/pgsession/pgsession"
)

// contender is a rival that is open, with its sessions there. One that fails takes no further part.
type contender struct {
	rival
	at     place
	stores []sessionStore // the instances
	load   func(ctx context.Context, l load) (outcome, error)
	draw   func(d *draws) error // from now on, by these
	failed error
	close  []func()
}

// arena is where contenders meet: one server each of PostgreSQL and Redis.
type arena struct {
	url      string
	redis    []rival
	sessions int
	size     int // of a session
	clients  int // at most
	only     []string
}

// open opens all contenders, each with a schema and connections of its own. Ours is there twice: as it
// is used, by two instances whose caches are kept coherent, and as the others are, without a cache.
func (a arena) open(ctx context.Context, progress func(name string)) (all []*contender) {
	for i, r := range slices.Concat(postgresRivals, a.redis) {
		if !a.wants(r.name) {
			continue
		}
		progress(r.name)
		c := &contender{rival: r}
		all = append(all, c)
		c.failed = a.place(ctx, c, fmt.Sprintf("rival_%d", i))
		if c.failed == nil {
			c.failed = c.guardFor(fillPatience(a.sessions), func() error { return a.prepare(ctx, c) })
		}
	}
	return all
}

func (a arena) wants(name string) bool { return len(a.only) == 0 || slices.Contains(a.only, name) }

// place makes a schema and a pool.
func (a arena) place(ctx context.Context, c *contender, schema string) error {
	around, err := withSearchPath(a.url, schema)
	if err != nil {
		return err
	}
	if c.at, err = a.pool(ctx, c, around, a.clients); err != nil {
		return err
	}
	_, err = c.at.pool.Exec(ctx, "drop schema if exists "+schema+" cascade; create schema "+schema)
	return err
}

// pool is closed with the contender.
func (a arena) pool(ctx context.Context, c *contender, url string, connections int) (place, error) {
	at := place{url: url, clients: a.clients, clock: &clock{start: time.Now(), speed: 1}}
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return at, err
	}
	config.MaxConns = int32(connections)
	if at.pool, err = pgxpool.NewWithConfig(ctx, config); err == nil {
		c.close = append(c.close, at.pool.Close)
	}
	return at, err
}

// withSearchPath is the connection string with a schema of its own for what has none in its name.
func withSearchPath(connString, schema string) (string, error) {
	if !strings.Contains(connString, "://") {
		return connString + " options='-csearch_path=" + schema + "'", nil
	}
	u, err := url.Parse(connString)
	if err != nil {
		return "", errors.New("the connection string is not a URL")
	}
	query := u.Query()
	query.Set("options", "-csearch_path="+schema)
	u.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20")
	return u.String(), nil
}

func (a arena) prepare(ctx context.Context, c *contender) error {
	if c.setup != nil {
		if err := c.setup(ctx, c.at); err != nil {
			return err
		}
	}
	store, err := c.rival.open(ctx, c.at)
	if err != nil {
		return err
	}
	stores := []sessionStore{store}
	for len(stores) < c.instances {
		at, err := a.pool(ctx, c, c.at.url, a.clients)
		if err != nil {
			return err
		}
		if store, err = c.rival.open(ctx, at); err != nil {
			return err
		}
		stores = append(stores, store)
	}
	c.use(stores...)
	for _, s := range stores {
		if err := check(ctx, s, a.size); err != nil {
			return err
		}
	}
	if c.row == nil {
		return fillByWrites(ctx, store, a.sessions, a.size)
	}
	return c.fill(ctx, c.at, a.sessions, func(i int) ([]any, error) {
		return c.row(c.at.clock, key(i), sized(i, a.size), 0, filledFor)
	})
}

// filledFor is how long sessions live that are there from the start, unless they are touched.
const filledFor = time.Hour

// use is called with the instances of a store.
func (c *contender) use(stores ...sessionStore) {
	c.stores = stores
	for _, s := range stores {
		c.close = append(c.close, func() { _ = s.close() })
	}
	if node, ok := stores[0].(*nodeStore); ok {
		c.load = func(_ context.Context, l load) (outcome, error) { return node.run(l) }
		c.draw = node.prepare
		return
	}
	g := &generator{stores: stores}
	c.load = g.run
	c.draw = func(d *draws) error {
		g.draws = d
		return nil
	}
}

func (c *contender) isCached() bool { return c.name == oursName }

// end closes what it opened, the last first.
func (c *contender) end() {
	for _, f := range slices.Backward(c.close) {
		_ = c.guard(func() error { f(); return nil })
	}
}

// patience is how long a contender may be late before it counts as failed.
const patience = 20 * time.Second

// run runs a load. One who panics has failed, and so has one who does not return: its goroutines are
// left behind.
func (c *contender) run(ctx context.Context, l load) (o outcome, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.duration+patience/2)
	defer cancel()
	err = c.guardFor(l.duration+patience, func() error {
		var err error
		o, err = c.load(ctx, l)
		return err
	})
	return o, err
}

// guard is for what may take a while.
func (c *contender) guard(f func() error) error { return c.guardFor(fillPatience(0), f) }

// fillPatience is how long filling a table may take, and an index that is in no order.
func fillPatience(sessions int) time.Duration {
	return 2*time.Minute + time.Duration(sessions)*300*time.Microsecond
}

func (c *contender) guardFor(d time.Duration, f func() error) error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- fmt.Errorf("panic: %v", p)
			}
		}()
		done <- f()
	}()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("no answer in %v", d)
	}
}

// warm has each instance that caches load all sessions that will be asked for.
func (c *contender) warm(ctx context.Context, d *draws) error {
	group, groupCtx := errgroup.WithContext(ctx)
	for _, s := range c.stores {
		const readers = 4
		for r := range readers {
			group.Go(func() error {
				for n := r; n < len(d.keys); n += readers {
					if _, err := s.(ours).get(groupCtx, d.keys[n]); err != nil {
						return err
					}
				}
				return nil
			})
		}
	}
	return group.Wait()
}

func fillByWrites(ctx context.Context, store sessionStore, sessions, size int) error {
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for n := range sessions {
		group.Go(func() error { return store.write(groupCtx, key(n), sized(n, size)) })
	}
	return group.Wait()
}

// check checks that a store does what it is measured doing: what is read is what was written, and
// what was destroyed is gone.
func check(ctx context.Context, store sessionStore, size int) error {
	first, second := sized(-1, size), sized(-2, size)
	key, err := store.create(ctx, first)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	for _, step := range []struct {
		name string
		do   func() error
		want []byte // nil: not found
	}{
		{"create", func() error { return nil }, first},
		{"update", func() error { return store.write(ctx, key, second) }, second},
		{"touch", func() error { return store.touch(ctx, key, second) }, second},
		{"destroy", func() error { return store.destroy(ctx, key) }, nil},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		got, err := store.read(ctx, key)
		switch {
		case step.want == nil && errors.Is(err, pgsession.ErrNotFound):
		case err != nil:
			return fmt.Errorf("read after %s: %w", step.name, err)
		case !sameJSON(got, step.want):
			return fmt.Errorf("after %s %.60q was read, not %.60q", step.name, got, step.want)
		}
	}
	return nil
}

// sameJSON compares by meaning: a store for Node writes what it has parsed.
func sameJSON(a, b []byte) bool {
	var x, y map[string]any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return bytes.Equal(a, b)
	}
	return len(x) == len(y) && x["revision"] == y["revision"] && x["name"] == y["name"] && x["data"] == y["data"]
}
