package keymutex_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/pgsession/pgsession/internal/keymutex"
)

func TestHoldersOfOneKeyTakeTurns(t *testing.T) {
	t.Parallel()
	var m keymutex.Mutex[string]
	counters := map[string]*int{"a": new(int), "b": new(int)} // unguarded: the race detector watches
	var group sync.WaitGroup
	for key, n := range counters {
		for range 20 {
			group.Go(func() {
				for range 50 {
					unlock, err := m.Lock(t.Context(), key)
					if err != nil {
						t.Error(err)
						return
					}
					*n++
					unlock()
				}
			})
		}
	}
	group.Wait()
	for key, n := range counters {
		if *n != 1000 {
			t.Errorf("%s was counted to %d, want 1000", key, *n)
		}
	}
}

func TestWaitingEndsWithTheContextAndHarmsNobody(t *testing.T) {
	t.Parallel()
	var m keymutex.Mutex[int]
	unlock, err := m.Lock(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Lock(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Fatalf("waiting with a context that has ended: %v", err)
	}
	other, err := m.Lock(ctx, 2) // free, so there is nothing to wait for: either answer would do
	if err == nil {
		other()
	}
	unlock()
	unlock, err = m.Lock(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}
