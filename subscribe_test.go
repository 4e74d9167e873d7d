package pgsession_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
)

// diary keeps the events of a handler.
type diary struct {
	mu     sync.Mutex
	events []pgsession.Event
}

func (d *diary) note(e pgsession.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = append(d.events, e)
}

func (d *diary) count(kind pgsession.EventKind) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// has waits for an event, and forgets all.
func (d *diary) has(t *testing.T, want pgsession.Event) {
	t.Helper()
	eventually(t, fmt.Sprintf("the event %+v", want), func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		i := slices.IndexFunc(d.events, func(e pgsession.Event) bool {
			return e.Kind == want.Kind && e.ID == want.ID && (want.Version == 0 || e.Version == want.Version) &&
				e.SubjectHash == want.SubjectHash && slices.Equal(e.Except, want.Except)
		})
		if i >= 0 {
			d.events = nil
		}
		return i >= 0
	})
}

func TestSubscribersHearOfEveryKindOfChange(t *testing.T) {
	t.Parallel()
	store, pool, _ := listening(t, nil)
	var here, there diary
	stop := store.Subscribe(here.note)
	other := setUp(t, pool.Query, fastListening(pool.Config().ConnString()))
	other.Subscribe(there.note)
	awaitLive(t, store)
	awaitLive(t, other)
	ctx := t.Context()
	both := func(e pgsession.Event) {
		t.Helper()
		here.has(t, e)
		there.has(t, e)
	}
	create := func() (pgsession.Token, pgsession.Session) {
		token, s, err := store.Create(ctx, pgsession.Session{Subject: "ada"})
		must(t, err)
		return token, s
	}
	token, s := create()
	s.Data = []byte("1")
	s, err := store.Set(ctx, token, s)
	must(t, err)
	both(pgsession.Event{Kind: pgsession.EventUpdated, ID: s.ID, Version: s.Version})
	old := s.ID
	token, s, err = other.Renew(ctx, token, pgsession.Renewal{})
	must(t, err)
	both(pgsession.Event{Kind: pgsession.EventRenewed, ID: old, Version: s.Version})
	_, err = other.Destroy(ctx, token)
	must(t, err)
	both(pgsession.Event{Kind: pgsession.EventDestroyed, ID: s.ID})
	_, s = create()
	_, err = other.Revoke(ctx, pgsession.Revocation{IDs: []pgsession.ID{s.ID}})
	must(t, err)
	both(pgsession.Event{Kind: pgsession.EventRevoked, ID: s.ID})
	_, s = create()
	create()
	_, err = other.Revoke(ctx, pgsession.Revocation{Subject: "ada", Except: []pgsession.ID{s.ID}})
	must(t, err)
	both(pgsession.Event{Kind: pgsession.EventSubjectRevoked, SubjectHash: pgsession.HashSubject("ada"), Except: []pgsession.ID{s.ID}})
	_, err = other.Clear(ctx)
	must(t, err)
	both(pgsession.Event{Kind: pgsession.EventCleared})
	exec(t, pool, `select pg_notify('pgsession.session', '{"v":1,"changed":{"in doubt":0}}')`)
	both(pgsession.Event{Kind: pgsession.EventUpdated, ID: "in doubt"})
	for i, unknown := range []string{"?", `{"v":2,"changed":{}}`, `{"v":1,"renamed":["x"]}`, `{"v":1}`, `{"v":1,"changed":[["x",1]]}`, `{"v":1,"changed":{"x":"1"}}`, `{"v":1,"subject":"x"}`, `{"v":1,"cleared":true} x`} {
		exec(t, pool, "select pg_notify('pgsession.session', $1)", unknown)
		both(pgsession.Event{Kind: pgsession.EventMissed})
		if n := store.Stats().Notify.Unknown; n != int64(i+1) {
			t.Errorf("%s: %d notifications were unknown, want %d", unknown, n, i+1)
		}
	}
	terminate(t, pool, "pgsession listener")
	both(pgsession.Event{Kind: pgsession.EventMissed})

	awaitLive(t, store)
	awaitLive(t, other)
	stop()
	stop()
	create()
	before := here.count(pgsession.EventCleared)
	_, err = other.Clear(ctx)
	must(t, err)
	there.has(t, pgsession.Event{Kind: pgsession.EventCleared})
	if n := here.count(pgsession.EventCleared); n != before {
		t.Error("a handler was called after its subscription had ended")
	}
	store.Subscribe(nil)()
	must(t, store.Close())
	store.Subscribe(func(pgsession.Event) { t.Error("called after Close") })()
}

func TestASlowHandlerDelaysNobodyAndIsToldOfItsGap(t *testing.T) {
	t.Parallel()
	// A machine that is busy elsewhere must not cost the listener its connection, and with it some of these.
	store, pool, _ := listening(t, func(_ string, cfg *pgsession.Config) { cfg.Cache.Liveness = 30 * time.Second })
	awaitLive(t, store)
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	defer release()
	var slow, quick diary
	store.Subscribe(func(e pgsession.Event) {
		<-hold
		slow.note(e)
	})
	panics := 0
	store.Subscribe(func(e pgsession.Event) {
		quick.note(e)
		panics++
		panic("a handler's own")
	})
	const events = 5000
	for i := range 10 {
		exec(t, pool, `select pg_notify('pgsession.session', '{"v":1,"changed":{"' || i || '":' || (random() * 1e9)::int8 || '}}')
			from generate_series(1, $1) as i`, events/10)
		eventually(t, "the quick one has heard some", func() bool { return quick.count(pgsession.EventUpdated) >= (i+1)*events/10 })
	}
	eventually(t, "the quick one has heard all", func() bool { return quick.count(pgsession.EventUpdated) == events })
	if n := quick.count(pgsession.EventMissed); n != 0 {
		t.Errorf("the quick one missed some: %d", n)
	}
	release()
	eventually(t, "the slow one knows of its gap", func() bool { return slow.count(pgsession.EventMissed) > 0 })
	if n := slow.count(pgsession.EventUpdated); n >= events {
		t.Errorf("the slow one has %d events", n)
	}
	_, _, err := store.Create(t.Context(), pgsession.Session{Data: []byte("1")})
	must(t, err)
	_, err = store.Clear(t.Context())
	must(t, err)
	slow.has(t, pgsession.Event{Kind: pgsession.EventCleared})
	if !store.Stats().Notify.Live {
		awaitLive(t, store)
	}
}

func TestAHandlerMayStopItselfAndClose(t *testing.T) {
	t.Parallel()
	store, _, _ := listening(t, nil)
	var stop func()
	var mu sync.Mutex
	calls := 0
	mu.Lock()
	stop = store.Subscribe(func(pgsession.Event) {
		mu.Lock()
		defer mu.Unlock()
		calls++
		stop()
	})
	mu.Unlock()
	awaitLive(t, store)
	for range 3 {
		_, err := store.Clear(t.Context())
		must(t, err)
	}
	eventually(t, "it was called", func() bool { mu.Lock(); defer mu.Unlock(); return calls > 0 })
	must(t, store.Close())
	if calls != 1 {
		t.Errorf("called %d times", calls)
	}
}
