package pgsession_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// catcher is a hook that keeps what it gets.
type catcher struct {
	mu    sync.Mutex
	seen  map[pgsession.ID]int
	calls int
	last  []pgsession.PrunedSession
	err   error
}

func (c *catcher) catch(_ context.Context, sessions []pgsession.PrunedSession) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil {
		c.seen = map[pgsession.ID]int{}
	}
	for _, s := range sessions {
		c.seen[s.ID]++
	}
	c.calls++
	c.last = sessions
	return c.err
}

func (c *catcher) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

// counts are how many sessions were seen, and how often the one seen most.
func (c *catcher) counts() (sessions, most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.seen), slices.Max(append(slices.Collect(maps.Values(c.seen)), 0))
}

func TestAHookGetsWhatHasExpiredAndNothingElse(t *testing.T) {
	t.Parallel()
	columns := []pgsession.Column{{Name: "ip", Type: "inet"}}
	everyPool(t, pgsession.Config{Columns: columns}, func(t *testing.T, w *way) {
		var c catcher
		hooked := setUp(t, w.query, pgsession.Config{
			Schema: w.schema, Columns: columns, Cleanup: pgsession.Cleanup{OnPrune: c.catch, BatchSize: 4},
		})
		w.expire(t, 10, "expired")
		w.seed(t, 3, "alive", "ada", 1)
		w.exec(t, `update {table} as t set prune_after = now() - interval '1 minute' where t.subject = 'ada'`)
		w.seed(t, 2, "ended", "bob", 1)
		_, err := w.Destroy(t.Context(), seeded("ended", 1), seeded("ended", 2))
		must(t, err)
		w.age(t, 7*time.Minute, seeded("ended", 1), seeded("ended", 2))
		token, _ := w.create(t, pgsession.Session{Subject: "carol", Data: []byte("\x00data"), Columns: map[string]any{"ip": "10.0.0.1"}})
		w.age(t, 25*time.Hour, token)
		if n, err := hooked.Prune(t.Context()); n != 13 || err != nil {
			t.Errorf("pruned %d, %v; want 10 and carol's sessions and 2 tombstones", n, err)
		}
		if n, most := c.counts(); n != 11 || most != 1 || c.seen[w.id(t, token)] != 1 {
			t.Errorf("the hook got %d sessions, one of them %d times", n, most)
		}
		if n := w.rows(t); n != 3 {
			t.Errorf("%d rows are left", n)
		}
		w.create(t, pgsession.Session{})
		w.exec(t, `insert into {table} (version, created_at, expires_at, prune_after, codec, id, subject, data, ip)
			values (7, now() - interval '2 h', now() - interval '1 h', now() - interval '1 h', 0, 'one', 'carol', 'data', '10.0.0.1'),
			       (8, now() - interval '2 h', now() - interval '1 h', now() - interval '1 h', 777, 'bad', 'carol', 'data', null)`)
		if n, err := hooked.Prune(t.Context()); n != 2 || err != nil {
			t.Errorf("pruned %d, %v", n, err)
		}
		got := map[pgsession.ID]pgsession.PrunedSession{}
		for _, s := range c.last {
			got[s.ID] = s
		}
		one, bad := got["one"], got["bad"]
		if one.Subject != "carol" || string(one.Data) != "data" || one.Columns["ip"] != "10.0.0.1" || one.Version != 7 || one.Err != nil {
			t.Errorf("the hook got %+v", one)
		}
		if !errors.Is(bad.Err, pgsession.ErrCodec) || bad.Data != nil {
			t.Errorf("of what cannot be decoded the hook got %+v", bad)
		}
	})
}

func TestWhatAHookRefusesIsDueAgain(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	var c catcher
	c.fail(errors.New("not now"))
	hooked := setUp(t, w.query, pgsession.Config{Schema: w.schema, Cleanup: pgsession.Cleanup{OnPrune: c.catch, Lease: time.Hour}})
	w.expire(t, 5, "s")
	var late int
	n, err := hooked.Prune(t.Context())
	if n != 0 || !errors.Is(err, c.err) {
		t.Errorf("pruned %d, %v", n, err)
	}
	// Two were refused alone, and come later; that they both were ended the prune.
	if status, err := hooked.CleanupStatus(t.Context()); err != nil || status.Due != 3 || status.Lag <= 0 || status.Pruned != 0 {
		t.Errorf("the status is %+v, %v", status, err)
	}
	w.scan(t, &late, `select count(*) from {table} as t where t.prune_after between now() + interval '50 s' and now() + interval '70 s'`)
	if late != 2 || c.calls != 5 { // with 5, 2, 1, 1 and 3
		t.Errorf("%d come in a minute; the hook was called %d times", late, c.calls)
	}
	// The next prune tries it with one.
	if _, err := hooked.Prune(t.Context()); err == nil || c.calls != 6 || len(c.last) != 1 {
		t.Errorf("%v; the hook was called %d times, with %d sessions at last", err, c.calls, len(c.last))
	}
	c.fail(nil)
	w.exec(t, `update {table} set prune_after = now()`)
	if n, err := hooked.Prune(t.Context()); n != 5 || err != nil || w.rows(t) != 0 {
		t.Errorf("pruned %d, %v", n, err)
	}
	if status, err := hooked.CleanupStatus(t.Context()); err != nil || status.Due != 0 || status.Pruned != 5 || status.LastPruned != 5 {
		t.Errorf("the status is %+v, %v", status, err)
	}
}

func TestWhatAHookOfAnInstanceThatDiedHadComesAgainAfterTheLease(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	var c catcher
	cleanup := pgsession.Cleanup{OnPrune: c.catch, Lease: time.Hour}
	hooked := setUp(t, w.query, pgsession.Config{Schema: w.schema, Cleanup: cleanup})
	w.expire(t, 5, "s")
	// It died, as far as the database knows.
	w.exec(t, `select count(*) from {schema}.session_claim(p_lease => 3600)`)
	if n, err := hooked.Prune(t.Context()); n != 0 || err != nil || w.rows(t) != 5 {
		t.Errorf("within the lease: pruned %d, %v", n, err)
	}
	// One of them begins anew meanwhile, one was ended, and one is gone.
	_, err := hooked.Set(t.Context(), seeded("s", 1), pgsession.Session{Data: []byte("new")})
	must(t, err)
	_, err = hooked.Destroy(t.Context(), seeded("s", 2))
	must(t, err)
	w.exec(t, `delete from {table} where id = $1`, string(w.id(t, seeded("s", 3))))
	w.exec(t, `update {table} set prune_after = now() - interval '1 second' where expires_at < now() and revoked_at is null`)
	if n, err := hooked.Prune(t.Context()); n != 2 || err != nil {
		t.Errorf("after the lease: pruned %d, %v; want 2", n, err)
	}
	if _, err := hooked.Get(t.Context(), seeded("s", 1)); err != nil {
		t.Errorf("the one that began anew: %v", err)
	}
	// A confirmation that comes late does not take another session.
	w.expire(t, 1, "late")
	late := setUp(t, w.query, pgsession.Config{Schema: w.schema, Cleanup: pgsession.Cleanup{
		OnPrune: func(ctx context.Context, _ []pgsession.PrunedSession) error {
			_, err := hooked.Set(ctx, seeded("late", 1), pgsession.Session{Data: []byte("new")})
			return err
		},
	}})
	if n, err := late.Prune(t.Context()); n != 0 || err != nil {
		t.Errorf("pruned %d, %v", n, err)
	}
	if got, err := hooked.Get(t.Context(), seeded("late", 1)); err != nil || string(got.Data) != "new" {
		t.Errorf("got %+v, %v", got, err)
	}
	// One that panics has failed.
	w.expire(t, 1, "panic")
	broken := setUp(t, w.query, pgsession.Config{Schema: w.schema, Cleanup: pgsession.Cleanup{
		OnPrune: func(context.Context, []pgsession.PrunedSession) error { panic("oh") },
	}})
	if _, err := broken.Prune(t.Context()); err == nil {
		t.Error("a hook that panics has not failed")
	}
}

func TestWhoHasNoHookLeavesExpiredSessionsToThoseWhoDo(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	var c catcher
	hooked := setUp(t, w.query, pgsession.Config{Schema: w.schema, Cleanup: pgsession.Cleanup{OnPrune: c.catch}})
	_, err := hooked.Prune(t.Context())
	must(t, err)
	w.expire(t, 5, "s")
	_, err = w.store.Prune(t.Context())
	wantError(t, "a prune without a hook", err, pgsession.ErrBusy)
	w.exec(t, `call {schema}.session_prune_all()`)
	if n := w.rows(t); n != 5 {
		t.Errorf("%d rows are left", n)
	}
	status, err := hooked.CleanupStatus(t.Context())
	if err != nil || status.Hook.IsZero() || status.Due != 5 || status.JobRun.IsZero() {
		t.Errorf("the status is %+v, %v", status, err)
	}
	// A day later there is nobody left who wants to see them.
	w.exec(t, `update {schema}.session_cleanup set hooked_at = now() - interval '25 hours'`)
	if n, err := w.store.Prune(t.Context()); n != 5 || err != nil {
		t.Errorf("pruned %d, %v", n, err)
	}
}

func TestOfFourInstancesWithHooksThatFailEachSessionIsSeen(t *testing.T) {
	t.Parallel()
	const sessions = 400
	w := onPool(t, pgsession.Config{})
	w.expire(t, sessions, "s")
	var c catcher
	var failures int
	for i := range 4 {
		w.tick(t, pgtest.Pool(t).Query, pgsession.Config{Cleanup: pgsession.Cleanup{
			BatchSize: 30, Lease: 250 * time.Millisecond,
			OnPrune: func(ctx context.Context, batch []pgsession.PrunedSession) error {
				_ = c.catch(ctx, batch)
				c.mu.Lock()
				defer c.mu.Unlock()
				if c.calls%3 == i%3 {
					failures++
					return fmt.Errorf("%d fails", i)
				}
				return nil
			},
		}})
	}
	eventually(t, "all are gone", func() bool { return w.rows(t) == 0 })
	if n, most := c.counts(); n != sessions || failures > 0 && most < 2 {
		t.Errorf("%d sessions were seen, one %d times, after %d failures", n, most, failures)
	}
}

func TestCloseEndsAHookAndWaitsForIt(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	w.expire(t, 1, "s")
	began, ended := make(chan struct{}), false
	store := w.tick(t, w.query, pgsession.Config{Cleanup: pgsession.Cleanup{
		OnPrune: func(ctx context.Context, _ []pgsession.PrunedSession) error {
			close(began)
			<-ctx.Done()
			ended = true
			return nil // says that it is done; the store cannot confirm it any more
		},
	}})
	<-began
	must(t, store.Close())
	if !ended || w.rows(t) != 1 {
		t.Errorf("the hook has ended: %v; %d rows are left", ended, w.rows(t))
	}
}

// What was claimed is deleted, and nothing that took its place: that was not seen.
func TestConfirmSparesWhatWasBegunAnewAndHasExpiredToo(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{Audit: audited})
	w.expire(t, 1, "gone")
	w.exec(t, `create table {schema}.claimed as select c.id, c.version from {schema}.session_claim() as c where c.id is not null`)
	w.exec(t, `select {schema}.session_set(c.id, '') from {schema}.claimed as c`)
	w.exec(t, `update {table} set expires_at = now() - interval '1 second'`)
	var confirmed, expired int
	w.scan(t, &confirmed, `select {schema}.session_confirm(json_build_object(c.id, c.version)::text) from {schema}.claimed as c`)
	w.scan(t, &expired, `select count(*) from {schema}.session_events where kind = 'expired'`)
	if n := w.rows(t); n != 1 || confirmed != 0 || expired != 1 { // the one that was replaced
		t.Errorf("%d were confirmed, %d rows are left, %d are recorded as expired", confirmed, n, expired)
	}
}
