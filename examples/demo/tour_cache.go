package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/pgsession/pgsession"
)

// impatience is how long the tour waits for what takes milliseconds as a rule.
const impatience = 20 * time.Second

// cached reads one session many times, from the database and from the memory of server B.
func (t *tour) cached(ctx context.Context, s *step) error {
	if err := t.awaitLive(ctx); err != nil {
		return err
	}
	const misses, hits = 100, 100_000
	token, store := t.laptop.token(t.b), t.b.store
	began := time.Now()
	for range misses {
		if _, err := store.GetFresh(ctx, token); err != nil {
			return err
		}
	}
	miss := time.Since(began) / misses

	look := func(session pgsession.Session) error {
		if session.Subject != "ada" {
			return errors.New("it is " + session.Subject + "'s session")
		}
		return nil
	}
	before := store.Stats().Cache.Hits
	began = time.Now()
	for range hits {
		if err := store.View(ctx, token, look); err != nil {
			return err
		}
	}
	hit := time.Since(began) / hits
	expect(s, "whether the cache answered", true, store.Stats().Cache.Hits-before > hits*9/10)
	s.say("From the database: %d µs. From the cache of server B: %d ns.", miss.Microseconds(), hit.Nanoseconds())
	return nil
}

// propagate changes the session on server A, and looks when server B, which has it cached, shows that.
func (t *tour) propagate(ctx context.Context, s *step) error {
	token := t.laptop.token(t.a)
	var delays []time.Duration
	for i := range 50 {
		if _, err := t.b.store.Get(ctx, token); err != nil {
			return err
		}
		changed, err := t.a.app.sessions.Update(ctx, token, func(s *session) error {
			s.Value.Visits += 1 - i%2*2 // and back again
			return nil
		})
		if err != nil {
			return err
		}
		delay, err := t.seen(ctx, token, changed.Version)
		if err != nil {
			return err
		}
		delays = append(delays, delay)
	}
	slices.Sort(delays)
	s.say("50 changes by server A, each of a session that server B has in its cache. From the moment that A's call "+
		"returned until B showed the change: %s as a rule, %s at most.", duration(delays[25]), duration(delays[49]))
	return nil
}

// deafen ends the connections by which the servers hear of changes.
func (t *tour) deafen(ctx context.Context, s *step) error {
	token := t.laptop.token(t.a)
	if _, err := t.b.store.Get(ctx, token); err != nil {
		return err
	}
	killed, err := t.db.killListeners(ctx)
	if err != nil {
		return err
	}
	expect(s, "whether there were listeners to kill", true, killed >= 2)
	changed, err := t.a.app.sessions.Update(ctx, token, func(s *session) error { s.Value.Visits++; return nil })
	if err != nil {
		return err
	}
	stale, err := t.seen(ctx, token, changed.Version)
	if err != nil {
		return err
	}
	_, err = t.a.app.sessions.Update(ctx, token, func(s *session) error { s.Value.Visits--; return nil })
	if err != nil {
		return err
	}
	began := time.Now()
	if err := t.awaitLive(ctx); err != nil {
		return err
	}
	s.say("%d connections killed. The next change was seen by server B after %s: whoever cannot prove that it hears "+
		"reads the database. %s later both heard again.", killed, duration(stale), duration(time.Since(began)))
	return nil
}

// seen waits until server B shows a version, and returns how long that took.
func (t *tour) seen(ctx context.Context, token pgsession.Token, version int64) (time.Duration, error) {
	began := time.Now()
	for time.Since(began) < impatience {
		session, err := t.b.store.Get(ctx, token)
		if err != nil {
			return 0, err
		}
		if session.Version >= version {
			return time.Since(began), nil
		}
	}
	return 0, errors.New("server B goes on serving what it has")
}

// told waits until both servers have heard of all that was committed before: notifications are heard in
// the order of their commits. One that does not hear reads the database.
func (t *tour) told(ctx context.Context) error {
	for _, server := range []*instance{t.a, t.b} {
		last := pgsession.ID("the last for " + server.name)
		heard := make(chan struct{}, 1)
		stop := server.store.Subscribe(func(e pgsession.Event) {
			if e.ID == last {
				heard <- struct{}{}
			}
		})
		defer stop()
		if err := t.db.notify(ctx, last); err != nil {
			return err
		}
		for waiting := true; waiting && server.store.Stats().Cache.Live; {
			select {
			case <-heard:
				waiting = false
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

func (t *tour) awaitLive(ctx context.Context) error {
	began := time.Now()
	for !t.a.store.Stats().Cache.Live || !t.b.store.Stats().Cache.Live {
		if time.Since(began) > impatience {
			return errors.New("the servers do not hear of changes")
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
