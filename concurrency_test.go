package pgsession_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// crowd runs f n times at once, and returns when all are done.
func crowd(n int, f func(i int)) {
	var group sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		group.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	group.Wait()
}

// onTwoPools is a way, and a second store on the same table with a pool of its own.
func onTwoPools(t *testing.T, cfg pgsession.Config) (*way, *pgsession.Store) {
	t.Helper()
	w := onPool(t, cfg)
	cfg.Schema = w.schema
	return w, setUp(t, pgtest.Pool(t).Query, cfg)
}

func TestFiftySetsOfANewTokenMakeOneSession(t *testing.T) {
	t.Parallel()
	everyStore(t, pgsession.Config{}, func(t *testing.T, w *way) {
		const token = pgsession.Token("new")
		var versions sync.Map
		crowd(50, func(i int) {
			s, err := w.Set(t.Context(), token, pgsession.Session{Data: []byte(strconv.Itoa(i))})
			if err != nil {
				t.Error(err)
			}
			if other, taken := versions.LoadOrStore(s.Version, i); taken {
				t.Errorf("sets %d and %d both made version %d", i, other, s.Version)
			}
		})
		got, err := w.Get(t.Context(), token)
		must(t, err)
		last, _ := versions.Load(got.Version)
		if string(got.Data) != fmt.Sprint(last) {
			t.Errorf("version %d holds %s, want what set %v wrote", got.Version, got.Data, last)
		}
		if n, err := w.Count(t.Context(), pgsession.Filter{}); n != 1 || err != nil {
			t.Errorf("%d sessions, %v; want 1", n, err)
		}
	})
}

func TestTouchesTakeNothingBackThatASetWrote(t *testing.T) {
	t.Parallel()
	w, other := onTwoPools(t, pgsession.Config{TouchInterval: time.Microsecond})
	token, s := w.create(t, pgsession.Session{})
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			for ctx.Err() == nil {
				if _, err := other.Touch(t.Context(), token); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 200 {
		s.Data = []byte(strconv.Itoa(i))
		var err error
		if s, err = w.Set(t.Context(), token, s); err != nil {
			t.Fatal(err)
		}
		got, err := w.Get(t.Context(), token)
		if err != nil || string(got.Data) != string(s.Data) || got.Version != s.Version {
			t.Errorf("set %s version %d, got %s version %d, %v", s.Data, s.Version, got.Data, got.Version, err)
		}
	}
	stop()
	group.Wait()
}

func TestAThousandIncrementsFromFourStoresAreAThousand(t *testing.T) {
	t.Parallel()
	const stores, goroutines, increments = 4, 100, 10
	w := onPool(t, pgsession.Config{})
	token, _ := w.create(t, pgsession.Session{Data: []byte("0")})
	all := make([]*pgsession.Store, stores)
	for i := range all {
		all[i] = setUp(t, pgtest.Pool(t).Query, pgsession.Config{Schema: w.schema})
	}
	crowd(goroutines, func(i int) {
		for range increments {
			_, err := all[i%stores].Update(t.Context(), token, func(s *pgsession.Session) error {
				n, err := strconv.Atoi(string(s.Data))
				s.Data = []byte(strconv.Itoa(n + 1))
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
	})
	if got, err := w.Get(t.Context(), token); err != nil || string(got.Data) != strconv.Itoa(goroutines*increments) {
		t.Errorf("counted %s, %v; want %d", got.Data, err, goroutines*increments)
	}
}
