package pgsession_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

func TestAllAndCountMindTheFilter(t *testing.T) {
	t.Parallel()
	const tenant = "Tenant's \"id\""
	cfg := pgsession.Config{Columns: []pgsession.Column{{Name: "ip", Type: "inet"}, {Name: tenant, Type: "int"}}}
	everyWay(t, cfg, func(t *testing.T, w *way) {
		for _, s := range []pgsession.Session{
			{Subject: "ada", Columns: map[string]any{"ip": "10.0.0.1", tenant: 1}},
			{Subject: "ada", Columns: map[string]any{"ip": "10.0.0.2", tenant: 1}, Data: []byte("2")},
			{Subject: "ada"},
			{Subject: "bob", Columns: map[string]any{"ip": "10.0.0.1", tenant: 2}},
			{},
		} {
			w.create(t, s)
		}
		for _, gone := range []string{"expired", "ended"} { // which no filter finds
			token, _ := w.create(t, pgsession.Session{Subject: "ada", IdleTimeout: time.Hour})
			if gone == "expired" {
				w.age(t, time.Hour, token)
			} else if _, err := w.Destroy(t.Context(), token); err != nil {
				t.Fatal(err)
			}
		}
		for _, filter := range []struct {
			pgsession.Filter
			want int
			err  error
		}{
			{pgsession.Filter{}, 5, nil},
			{pgsession.Filter{Subject: "ada"}, 3, nil},
			{pgsession.Filter{Subject: "nobody"}, 0, nil},
			{pgsession.Filter{Columns: map[string]any{"ip": "10.0.0.1"}}, 2, nil},
			{pgsession.Filter{Columns: map[string]any{"ip": "10.0.0.1/32", tenant: 2}}, 1, nil},
			{pgsession.Filter{Columns: map[string]any{"ip": nil}}, 2, nil},
			{pgsession.Filter{Subject: "ada", Columns: map[string]any{tenant: 1}}, 2, nil},
			{pgsession.Filter{Subject: "bob", Columns: map[string]any{"ip": nil}}, 0, nil},
			{pgsession.Filter{Columns: map[string]any{"ip": struct{}{}}}, 0, pgsession.ErrInvalid},
			{pgsession.Filter{Columns: map[string]any{"a\x00b": 1}}, 0, pgsession.ErrInvalid},
		} {
			n, err := w.Count(t.Context(), filter.Filter)
			if int(n) != filter.want || !errors.Is(err, filter.err) {
				t.Errorf("%+v: counted %d, %v; want %d, %v", filter.Filter, n, err, filter.want, filter.err)
			}
			var last pgsession.ID
			found := 0
			for s, err := range w.All(t.Context(), filter.Filter) {
				if err == nil && s.ID <= last {
					t.Errorf("%+v: %s comes after %s", filter.Filter, s.ID, last)
				} else if !errors.Is(err, filter.err) {
					t.Errorf("%+v: %v, want %v", filter.Filter, err, filter.err)
				} else if err == nil {
					last = s.ID
					found++
				}
			}
			if found != filter.want {
				t.Errorf("%+v: found %d, want %d", filter.Filter, found, filter.want)
			}
		}
	})
}

// Not parallel: it measures the heap of the process.
func TestAllStreamsAHundredThousandSessionsInBoundedMemory(t *testing.T) {
	const sessions, size, bound = 100_000, 2_000, 16 << 20
	w := onPool(t, pgsession.Config{})
	w.seed(t, sessions, "many", "", size)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, most, n, bytes := heap(), uint64(0), 0, 0
	var last pgsession.ID
	for session, err := range w.All(t.Context(), pgsession.Filter{}) {
		if err != nil || session.ID <= last {
			t.Fatalf("%s after %s, %v", session.ID, last, err)
		}
		last = session.ID
		bytes += len(session.Data)
		if n++; n%9_999 == 0 {
			most = max(most, heap())
		}
	}
	if n != sessions || bytes != sessions*size {
		t.Errorf("%d sessions, %d bytes; want %d and %d", n, bytes, sessions, sessions*size)
	}
	if most > before+bound {
		t.Errorf("the heap grew from %d to %d; want %d at most", before, most, before+bound)
	}
}

func TestAPageOfAllIsBoundedByItsBytesAndHoldsNoConnection(t *testing.T) {
	t.Parallel()
	const mega = 1 << 20
	w := onPool(t, pgsession.Config{})
	w.seed(t, 21, "large", "ada", mega)
	w.exec(t, `update {table} as t set data = convert_to(repeat('x', 6 << 20), 'UTF8') where t.id = $1`,
		string(w.id(t, seeded("large", 1))))
	pool := pgtest.Pool(t)
	var largest, pages atomic.Int64
	store := setUp(t, func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
		rows, err := pool.Query(ctx, sql, args...)
		return &weighedRows{Rows: rows, closed: func(bytes int64) {
			largest.Store(max(largest.Load(), bytes))
			pages.Add(1)
		}}, err
	}, pgsession.Config{Schema: w.schema})
	for _, filter := range []pgsession.Filter{{}, {Subject: "ada"}} {
		pages.Store(0)
		largest.Store(0)
		n := 0
		for s, err := range store.All(t.Context(), filter) {
			must(t, err)
			if n++; len(s.Data) < mega {
				t.Errorf("%d bytes of data", len(s.Data))
			}
			if busy := pool.Stat().AcquiredConns(); busy != 0 {
				t.Fatalf("%d connections are held while a session is yielded", busy)
			}
		}
		// One of 6 MiB alone; 20 of 1 MiB, four a page, and perhaps a page less full beside the large
		// one; and the empty page.
		if n != 21 || pages.Load() < 7 || pages.Load() > 8 || largest.Load() > 7*mega || largest.Load() < 6*mega {
			t.Errorf("%d sessions in %d pages, the largest of %d bytes", n, pages.Load(), largest.Load())
		}
	}
	pages.Store(0)
	for _, err := range store.All(t.Context(), pgsession.Filter{}) {
		must(t, err)
		break
	}
	if pages.Load() != 1 {
		t.Errorf("broken off at once, %d pages were read", pages.Load())
	}
}

// weighedRows tells how many bytes all its rows had.
type weighedRows struct {
	pgx.Rows
	bytes  int64
	closed func(bytes int64)
}

func (r *weighedRows) Scan(dest ...any) error {
	for _, value := range r.RawValues() {
		r.bytes += int64(len(value))
	}
	return r.Rows.Scan(dest...)
}

func (r *weighedRows) Close() {
	if r.Rows.Close(); r.closed != nil {
		r.closed(r.bytes)
		r.closed = nil
	}
}

func TestACorruptSessionInTheMiddleOfAllIsAnErrorOfItsOwn(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		w.seed(t, 5, "row", "", 1)
		corrupt := map[pgsession.ID]bool{w.id(t, seeded("row", 2)): true, w.id(t, seeded("row", 4)): true}
		for id := range corrupt {
			w.exec(t, `update {table} as t set codec = 77 where t.id = $1::text`, string(id))
		}
		found := 0
		for s, err := range w.All(t.Context(), pgsession.Filter{}) {
			found++
			switch {
			case !corrupt[s.ID] && (err != nil || string(s.Data) != "x"):
				t.Errorf("a sound session: %+v, %v", s, err)
			case corrupt[s.ID]:
				wantError(t, "a corrupt session", err, pgsession.ErrCodec)
				if !reflect.DeepEqual(s, pgsession.Session{ID: s.ID}) || !strings.Contains(fmt.Sprint(err), string(s.ID)) {
					t.Errorf("a corrupt session: %+v, %v", s, err)
				}
			}
		}
		if n, err := w.Count(t.Context(), pgsession.Filter{}); found != 5 || n != 5 || err != nil {
			t.Errorf("found %d sessions, counted %d, %v; want 5", found, n, err)
		}
	})
}

func TestAllGoesOnWhileSessionsComeAndGo(t *testing.T) {
	t.Parallel()
	const sessions = 3000 // three pages
	w := onPool(t, pgsession.Config{Tombstone: -1})
	w.seed(t, sessions, "stay", "", 1)
	seen := map[pgsession.ID]int{}
	for s, err := range w.All(t.Context(), pgsession.Filter{}) {
		must(t, err)
		if seen[s.ID]++; len(seen)%500 == 0 {
			w.seed(t, 50, fmt.Sprint("come", len(seen), "-"), "", 1)
			if _, err := w.Destroy(t.Context(), seeded("stay", len(seen)/500)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := 10; i <= sessions; i++ {
		if n := seen[w.id(t, seeded("stay", i))]; n != 1 {
			t.Errorf("session %d was there all along and seen %d times", i, n)
		}
	}
}

func TestAllEndsWithTheContext(t *testing.T) {
	t.Parallel()
	everyStore(t, pgsession.Config{}, func(t *testing.T, w *way) {
		w.seed(t, 2500, "row", "", 1)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		n, last := 0, error(nil)
		for _, err := range w.All(ctx, pgsession.Filter{}) {
			if last != nil {
				t.Fatalf("after %v came another", last)
			}
			if last = err; err == nil {
				n++
			}
			if n == 1500 {
				cancel()
			}
		}
		wantError(t, "all", last, context.Canceled)
		if n != 2000 {
			t.Errorf("%d sessions, want the two pages that were begun", n)
		}
	})
}
