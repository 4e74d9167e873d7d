package pgsession_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
)

// picky is a hook that fails for some sessions, and counts.
type picky struct {
	catcher
	refuses map[pgsession.ID]bool
	panics  bool
	sizes   []int // of the batches, in the order of the calls
}

var errPicky = errors.New("this one cannot be archived")

func (p *picky) catch(ctx context.Context, sessions []pgsession.PrunedSession) error {
	err := p.catcher.catch(ctx, sessions)
	p.sizes = append(p.sizes, len(sessions))
	refuses := slices.ContainsFunc(sessions, func(s pgsession.PrunedSession) bool { return p.refuses[s.ID] })
	clear(sessions) // they are the hook's
	if refuses && p.panics {
		panic(errPicky)
	} else if refuses {
		return errPicky
	}
	return err
}

func (w *way) ofIDs(t *testing.T, prefix string, numbers ...int) map[pgsession.ID]bool {
	t.Helper()
	ids := map[pgsession.ID]bool{}
	for _, n := range numbers {
		ids[w.id(t, seeded(prefix, n))] = true
	}
	return ids
}

func TestASessionThatTheHookFailsForKeepsNoOther(t *testing.T) {
	t.Parallel()
	quarter := make([]int, 25)
	for i := range quarter {
		quarter[i] = 2*i + 1
	}
	for name, test := range map[string]struct {
		culprits []int
		panics   bool
		batch    int
	}{
		"the first":          {[]int{100}, false, 1000},
		"the last":           {[]int{1}, false, 7},
		"two side by side":   {[]int{99, 100}, false, 1000},
		"several":            {[]int{1, 2, 30, 31, 32, 77, 100}, false, 7},
		"several, by panics": {[]int{1, 2, 30, 31, 32, 77, 100}, true, 1000},
		"a quarter":          {quarter, false, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := onPool(t, pgsession.Config{})
			w.expire(t, 100, "s")
			hook := &picky{refuses: w.ofIDs(t, "s", test.culprits...), panics: test.panics}
			hooked := setUp(t, w.query, pgsession.Config{Schema: w.schema, Cleanup: pgsession.Cleanup{
				OnPrune: hook.catch, BatchSize: test.batch,
			}})
			prunes := 0
			for ; w.rows(t) > len(test.culprits) && prunes < 60; prunes++ {
				_, err := hooked.Prune(t.Context())
				if err == nil && prunes == 0 || err != nil && !test.panics && !errors.Is(err, errPicky) {
					t.Errorf("prune %d: %v", prunes, err)
				}
			}
			if prunes > 1 && (name == "the first" || name == "the last") {
				t.Errorf("%d prunes for one culprit", prunes)
			}
			var gone, late int
			w.scan(t, &gone, `select 100 - count(*) from {table}`)
			w.scan(t, &late, `select count(*) from {table} as t where t.prune_after between now() + interval '30 s' and now() + interval '2 min'`)
			if gone != 100-len(test.culprits) || late != len(test.culprits) {
				t.Errorf("%d are gone, %d come later, after %d prunes", gone, late, prunes)
			}
			if n, _ := hook.counts(); n != 100 {
				t.Errorf("%d were seen", n)
			}
			// Once the hook is mended they go too.
			hook.refuses = nil
			w.exec(t, `update {table} set prune_after = now()`)
			if n, err := hooked.Prune(t.Context()); n != int64(len(test.culprits)) || err != nil {
				t.Errorf("mended: pruned %d, %v", n, err)
			}
		})
	}
}

func TestWhatAHookFailsForComesLaterEachTime(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	w.expire(t, 1, "s")
	hook := &picky{refuses: w.ofIDs(t, "s", 1)}
	hooked := setUp(t, w.query, pgsession.Config{Schema: w.schema, Cleanup: pgsession.Cleanup{OnPrune: hook.catch}})
	for _, test := range []struct{ expired, later string }{
		{"1 minute", "1 minute"}, {"1 hour", "15 minutes"}, {"8 hours", "2 hours"}, {"30 days", "1 day"},
	} {
		w.exec(t, `update {table} set expires_at = now() - $1::text::interval, prune_after = now() - interval '1 second'`, test.expired)
		_, err := hooked.Prune(t.Context())
		wantError(t, "prune", err, errPicky)
		var seconds, want float64
		w.scan(t, &seconds, `select extract(epoch from t.prune_after - now())::float8 from {table} as t`)
		w.scan(t, &want, `select extract(epoch from $1::text::interval)::float8`, test.later)
		if seconds < want-30 || seconds > want+30 {
			t.Errorf("expired for %s: comes in %v seconds, want %s", test.expired, seconds, test.later)
		}
	}
}

func TestAHookThatAlwaysFailsIsCalledRarely(t *testing.T) {
	t.Parallel()
	const sessions = 1000
	w := onPool(t, pgsession.Config{})
	w.expire(t, sessions, "s")
	hook := &picky{}
	hook.fail(errPicky)
	hooked := setUp(t, w.query, pgsession.Config{Schema: w.schema, Cleanup: pgsession.Cleanup{
		OnPrune: hook.catch, BatchSize: sessions,
	}})
	for i, most := range []int{12, 1, 1, 1} { // log2 of 1,000 and two; then one session
		hook.sizes = nil
		_, err := hooked.Prune(t.Context())
		wantError(t, "prune", err, errPicky)
		if n := len(hook.sizes); n > most {
			t.Errorf("prune %d: %d calls, with %v sessions; want %d at most", i, n, hook.sizes, most)
		}
	}
	if n := w.rows(t); n != sessions {
		t.Errorf("%d rows are left", n)
	}
	// What it did not see alone is due, and comes in growing batches once it works.
	hook.fail(nil)
	hook.sizes = nil
	n, err := hooked.Prune(t.Context())
	if n < sessions-5 || err != nil {
		t.Errorf("pruned %d, %v", n, err)
	}
	if len(hook.sizes) < 5 || !slices.Equal(hook.sizes[:5], []int{1, 2, 4, 8, 16}) {
		t.Errorf("in batches of %v", hook.sizes)
	}
	hook.sizes = nil
	w.expire(t, 600, "more")
	if _, err := hooked.Prune(t.Context()); err != nil || slices.Max(hook.sizes) != 600 {
		t.Errorf("%v, in batches of %v", err, hook.sizes)
	}
}

// One that hangs takes the lease of its whole batch: nothing is known but that the batch was too much.
func TestASessionThatTheHookHangsForIsFound(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	w.expire(t, 40, "s")
	hangs := w.ofIDs(t, "s", 17)
	hooked := setUp(t, w.query, pgsession.Config{Schema: w.schema, Cleanup: pgsession.Cleanup{
		Lease: 100 * time.Millisecond,
		OnPrune: func(ctx context.Context, sessions []pgsession.PrunedSession) error {
			if slices.ContainsFunc(sessions, func(s pgsession.PrunedSession) bool { return hangs[s.ID] }) {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		},
	}})
	eventually(t, "all others are gone, and it comes later", func() bool {
		_, _ = hooked.Prune(t.Context())
		var late int
		w.scan(t, &late, `select count(*) from {table} as t where t.prune_after > now() + interval '30 s'`)
		return w.rows(t) == 1 && late == 1
	})
}

func TestAPruneThatIsCalledOffBlamesNobody(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	w.expire(t, 1, "s")
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	hooked := setUp(t, w.query, pgsession.Config{Schema: w.schema, Cleanup: pgsession.Cleanup{
		Lease: time.Hour,
		OnPrune: func(ctx context.Context, _ []pgsession.PrunedSession) error {
			calls++
			cancel()
			<-ctx.Done()
			return ctx.Err()
		},
	}})
	_, err := hooked.Prune(ctx)
	wantError(t, "prune", err, context.Canceled)
	var leased int
	w.scan(t, &leased, `select count(*) from {table} as t where t.prune_after > now() + interval '50 min'`)
	if calls != 1 || leased != 1 {
		t.Errorf("%d calls; %d come after the lease", calls, leased)
	}
}
