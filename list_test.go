package pgsession_test

import (
	"context"
	"errors"
	"fmt"
	"math"
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

func TestPromotedColumnsKeepTheirValues(t *testing.T) {
	t.Parallel()
	at := time.Date(2030, 3, 31, 3, 30, 0, 123456000, time.FixedZone("", 2*60*60))
	values := []struct {
		pgType        string
		first, second any
		read          string
	}{
		{"boolean", true, false, "true"},
		{"smallint", int16(-32768), 7, "-32768"},
		{"integer", int32(-1), "7", "-1"},
		{"bigint", int64(math.MaxInt64), uint8(7), "9223372036854775807"},
		{"real", float32(0.1), 1e30, "0.1"},
		{"double precision", 0.1, math.Inf(-1), "0.1"},
		{"numeric", "12345678901234567890.123456789", math.NaN(), "12345678901234567890.123456789"},
		{"text", "å 'q' \"q\" \\ {x} \u2028", "", "å 'q' \"q\" \\ {x} \u2028"},
		{"varchar", "a", "b", "a"},
		{"bytea", []byte{0, 0xff, '\\'}, []byte{}, `\x00ff5c`},
		{"uuid", "6b1e0a7c-1d1f-4c7e-9a53-000000000001", "6b1e0a7c-1d1f-4c7e-9a53-000000000002", "6b1e0a7c-1d1f-4c7e-9a53-000000000001"},
		{"inet", "2001:db8::1", "10.0.0.1", "2001:db8::1"},
		{"cidr", "10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/8"},
		{"macaddr", "08:00:2b:01:02:03", "08:00:2b:01:02:04", "08:00:2b:01:02:03"},
		{"date", "2030-03-31", at.AddDate(0, 0, 1), "2030-03-31"},
		{"time", "03:30:00", "04:00:00", "03:30:00"},
		{"timestamp", "2030-03-31 03:30:00", at, "2030-03-31 03:30:00"},
		{"timestamptz", at, at.Add(time.Microsecond), "2030-03-31 01:30:00.123456+00"},
		{"interval", 90 * time.Minute, time.Microsecond, "01:30:00"},
		{"json", `{"a": [1]}`, `[]`, `{"a": [1]}`},
		{"jsonb", `{"a": [1]}`, `[]`, `{"a": [1]}`},
		{"text[]", `{a,"b c",NULL}`, `{}`, `{a,"b c",NULL}`},
		{"bytea[]", `{"\\x00ff"}`, `{}`, `{"\\x00ff"}`},
	}
	var cfg pgsession.Config
	first, second, null := map[string]any{}, map[string]any{}, map[string]any{}
	for _, v := range values {
		cfg.Columns = append(cfg.Columns, pgsession.Column{Name: "my " + v.pgType, Type: v.pgType})
		first["my "+v.pgType], second["my "+v.pgType], null["my "+v.pgType] = v.first, v.second, nil
	}
	everyWay(t, cfg, func(t *testing.T, w *way) {
		ctx := t.Context()
		_, s := w.create(t, pgsession.Session{})
		if !reflect.DeepEqual(s.Columns, null) {
			t.Errorf("columns of a new session that names none: %v, want NULLs", s.Columns)
		}
		token, created := w.create(t, pgsession.Session{Columns: first})
		got, err := w.Get(ctx, token)
		must(t, err)
		if !reflect.DeepEqual(got, withData(created)) {
			t.Errorf("created %+v, got %+v", created, got)
		}
		for _, v := range values {
			name := "my " + v.pgType
			text, _ := got.Columns[name].(string)
			if text != v.read {
				t.Errorf("%s: wrote %v, read %v; want %s", v.pgType, v.first, got.Columns[name], v.read)
			}
			if n, err := w.Count(ctx, pgsession.Filter{Columns: map[string]any{name: v.first}}); n != 1 || err != nil {
				t.Errorf("%s: filtered on %v: %d, %v", v.pgType, v.first, n, err)
			}
		}
		// What was read can be written: it is the same. So is what is not named.
		for _, columns := range []map[string]any{got.Columns, first, nil, {"my text": got.Columns["my text"]}} {
			s, err := w.Set(ctx, token, pgsession.Session{Columns: columns})
			if err != nil || s.Version != got.Version || !reflect.DeepEqual(s.Columns, got.Columns) {
				t.Errorf("a set of %v: %+v, %v; want no change", columns, s, err)
			}
		}
		changed, err := w.Set(ctx, token, pgsession.Session{Columns: second})
		must(t, err)
		for _, v := range values {
			name := "my " + v.pgType
			if changed.Columns[name] == got.Columns[name] {
				t.Errorf("%s: set to %v, still %v", v.pgType, v.second, changed.Columns[name])
			}
			if n, err := w.Count(ctx, pgsession.Filter{Columns: map[string]any{name: v.second}}); n != 1 || err != nil {
				t.Errorf("%s: filtered on %v: %d, %v", v.pgType, v.second, n, err)
			}
		}
		if _, err = w.Set(ctx, token, pgsession.Session{Columns: null}); err != nil {
			t.Fatal(err)
		}
		if got, err = w.Get(ctx, token); err != nil || !reflect.DeepEqual(got.Columns, null) {
			t.Errorf("set to NULL: %v, %v", got.Columns, err)
		}
	})
}

// withData is a session as it is read: without data it has no bytes, rather than no slice.
func withData(s pgsession.Session) pgsession.Session {
	s.Data = append([]byte{}, s.Data...)
	return s
}

func TestAColumnThatIsNoneOrCannotHoldAValueIsRefused(t *testing.T) {
	t.Parallel()
	cfg := pgsession.Config{Columns: []pgsession.Column{{Name: "ip", Type: "inet"}, {Name: "n", Type: "bigint"}}}
	everyStore(t, cfg, func(t *testing.T, w *way) {
		token, _ := w.create(t, pgsession.Session{Columns: map[string]any{"ip": "10.0.0.1"}})
		before := w.row(t, token)
		for _, columns := range []map[string]any{
			{"unknown": 1},
			{"data": "x"},
			{"": 1},
			{"ip": "nonsense"},
			{"n": uint64(math.MaxUint64)},
			{"n": "a\x00b"},
			{"n": []int{1}},
			{"n": struct{}{}},
			{strings.Repeat("x", 64): 1},
		} {
			_, err := w.Set(t.Context(), token, pgsession.Session{Columns: columns})
			wantError(t, fmt.Sprint("set of ", columns), err, pgsession.ErrInvalid)
			_, err = w.Count(t.Context(), pgsession.Filter{Columns: columns})
			wantError(t, fmt.Sprint("filter on ", columns), err, pgsession.ErrInvalid)
		}
		if after := w.row(t, token); after != before {
			t.Errorf("refused columns changed %s to %s", before, after)
		}
	})
}

func TestNoSettingOfTheDatabaseChangesASession(t *testing.T) {
	t.Parallel()
	cfg := pgsession.Config{Columns: []pgsession.Column{
		{Name: "f", Type: "float8"},
		{Name: "b", Type: "bytea"},
		{Name: "i", Type: "interval"},
		{Name: "d", Type: "date"},
		{Name: "ts", Type: "timestamptz"},
	}}
	for setting, text := range map[string]bool{
		"timezone = 'Asia/Kolkata'": false, "extra_float_digits = -10": false, "intervalstyle = 'sql_standard'": false,
		// In the modes that get results as text pgx knows only the default form of these: where a call
		// cannot be answered it has to say so.
		"bytea_output = 'escape'": true, "datestyle = 'SQL, DMY'": true,
	} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			address := pgtest.Database(t)
			admin := pgtest.Connect(t, address)
			_, err := admin.Exec(t.Context(), `alter database `+admin.Config().ConnConfig.Database+` set `+setting)
			must(t, err)
			for _, d := range doors {
				t.Run(d.name, func(t *testing.T) {
					w := enter(t, d, admin, address, cfg)
					columns := map[string]any{
						"f": 1.00000001, "b": []byte{0, 0xff}, "i": -26 * time.Hour, "d": "2030-02-01",
						"ts": time.Date(2030, 2, 1, 0, 0, 0, 0, time.UTC),
					}
					token, created, err := w.Create(t.Context(), pgsession.Session{Data: []byte(`\x00\`), Columns: columns})
					var got pgsession.Session
					if err == nil {
						got, err = w.Get(t.Context(), token)
					}
					if text && (strings.HasSuffix(d.name, ", exec") || strings.HasSuffix(d.name, "simple_protocol")) {
						if err == nil && !reflect.DeepEqual(got, created) || errors.Is(err, pgsession.ErrNotFound) {
							t.Errorf("created %+v, got %+v, %v", created, got, err)
						}
						return
					}
					if err != nil || !reflect.DeepEqual(got, created) {
						t.Fatalf("created %+v, got %+v, %v", created, got, err)
					}
					var rows int
					w.scan(t, &rows, `select count(*) from {table} as t
						where t.f = 1.00000001 and t.b = '\x00ff' and t.i = '-26 hours' and t.d = make_date(2030, 2, 1)
						  and t.ts = to_timestamp(1896134400)`)
					if rows != 1 {
						t.Errorf("%v was stored as %s", columns, w.row(t, token))
					}
					columns["f"] = 1.00000002
					changed, err := w.Set(t.Context(), token, pgsession.Session{Data: got.Data, Columns: columns})
					if err != nil || changed.Version == got.Version {
						t.Errorf("a change of a column: %+v, %v; want a new version", changed, err)
					}
				})
			}
		})
	}
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

func TestClearEndsAllThatLive(t *testing.T) {
	t.Parallel()
	const sessions = 25_000 // in three batches
	for _, tombstone := range []time.Duration{0, -1} {
		w := onPool(t, pgsession.Config{Tombstone: tombstone})
		w.seed(t, sessions, "row", "ada", 1)
		w.age(t, 25*time.Hour, seeded("row", 1))
		_, err := w.Destroy(t.Context(), seeded("row", 2))
		must(t, err)
		for _, want := range []int64{sessions - 2, 0} {
			if n, err := w.store.Clear(t.Context()); n != want || err != nil {
				t.Errorf("tombstones for %v: cleared %d, %v; want %d", tombstone, n, err, want)
			}
		}
		var rows, live, secrets int
		w.scan(t, &rows, `select count(*) from {table}`)
		w.scan(t, &live, `select count(*) from {table} as t where t.revoked_at is null`)
		w.scan(t, &secrets, `select count(t.data) from {table} as t where t.revoked_at is not null`)
		wantRows := map[time.Duration]int{0: sessions, -1: 1}[tombstone]
		if rows != wantRows || live != 1 || secrets != 0 {
			t.Errorf("tombstones for %v: %d rows, %d live, %d with data; want %d, the expired one, none",
				tombstone, rows, live, secrets, wantRows)
		}
		want := map[time.Duration]error{0: pgsession.ErrRevoked, -1: nil}[tombstone]
		if _, err := w.Set(t.Context(), seeded("row", 3), pgsession.Session{}); !errors.Is(err, want) {
			t.Errorf("tombstones for %v: a late set: %v, want %v", tombstone, err, want)
		}
	}
}

func TestRevokeEndsWhatItNames(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		ids := func(names ...string) (list []pgsession.ID) {
			for _, name := range names {
				list = append(list, w.id(t, pgsession.Token(name)))
			}
			return list
		}
		for _, revoke := range []struct {
			name string
			pgsession.Revocation
			want string // the sessions that are left
			err  error
		}{
			{"nothing", pgsession.Revocation{}, "a1 a2 a3 b1 x1", pgsession.ErrInvalid},
			{"no ids", pgsession.Revocation{IDs: []pgsession.ID{}}, "a1 a2 a3 b1 x1", pgsession.ErrInvalid},
			{"all but some of nobody", pgsession.Revocation{Except: ids("a1")}, "a1 a2 a3 b1 x1", pgsession.ErrInvalid},
			{"ids", pgsession.Revocation{IDs: ids("a1", "x1", "missing", "a1")}, "a2 a3 b1", nil},
			{"a subject", pgsession.Revocation{Subject: "ada"}, "b1 x1", nil},
			{"a subject but some", pgsession.Revocation{Subject: "ada", Except: ids("a2", "missing")}, "a2 b1 x1", nil},
			{"ids of a subject", pgsession.Revocation{Subject: "ada", IDs: ids("a1", "b1", "x1")}, "a2 a3 b1 x1", nil},
			{"no ids of a subject", pgsession.Revocation{Subject: "ada", IDs: []pgsession.ID{}}, "a1 a2 a3 b1 x1", nil},
			{"ids but some", pgsession.Revocation{IDs: ids("a1", "a2"), Except: ids("a2")}, "a2 a3 b1 x1", nil},
			{"a subject of nothing", pgsession.Revocation{Subject: "nobody"}, "a1 a2 a3 b1 x1", nil},
		} {
			w.exec(t, `delete from {table}`)
			for name, subject := range map[string]string{"a1": "ada", "a2": "ada", "a3": "ada", "b1": "bob", "x1": ""} {
				_, err := w.Set(t.Context(), pgsession.Token(name), pgsession.Session{Subject: subject})
				must(t, err)
			}
			n, err := w.Revoke(t.Context(), revoke.Revocation)
			var left []string
			for _, name := range []string{"a1", "a2", "a3", "b1", "x1"} {
				if _, err := w.Get(t.Context(), pgsession.Token(name)); err == nil {
					left = append(left, name)
				}
			}
			if got := strings.Join(left, " "); got != revoke.want || n != 5-len(left) || !errors.Is(err, revoke.err) {
				t.Errorf("%s: %d, %v, and left %s; want %s, %v", revoke.name, n, err, got, revoke.want, revoke.err)
			}
			if n, err := w.Revoke(t.Context(), revoke.Revocation); n != 0 || !errors.Is(err, revoke.err) {
				t.Errorf("%s, again: %d, %v", revoke.name, n, err)
			}
		}
	})
}

func TestManyAreRevokedInBatches(t *testing.T) {
	t.Parallel()
	const sessions = 25_000
	for name, revocation := range map[string]func(w *way) (r pgsession.Revocation){
		"by subject": func(*way) pgsession.Revocation { return pgsession.Revocation{Subject: "ada"} },
		"by id": func(w *way) (r pgsession.Revocation) {
			for i := range sessions {
				r.IDs = append(r.IDs, w.id(t, seeded("row", i+1)))
			}
			return r
		},
	} {
		w := onPool(t, pgsession.Config{})
		w.seed(t, sessions, "row", "ada", 1)
		w.seed(t, 1, "other", "bob", 1)
		if n, err := w.Revoke(t.Context(), revocation(w)); n != sessions || err != nil {
			t.Errorf("%s: revoked %d, %v; want %d", name, n, err, sessions)
		}
		var batches, largest int
		w.scan(t, &batches, `select count(distinct t.revoked_at) from {table} as t`)
		w.scan(t, &largest, `select max(n) from (select count(*) as n from {table} as t where t.revoked_at is not null
			group by t.revoked_at) as b`)
		if batches != 3 || largest != 10_000 {
			t.Errorf("%s: in %d batches of up to %d, want 3 and 10,000", name, batches, largest)
		}
		if n, err := w.Count(t.Context(), pgsession.Filter{}); n != 1 || err != nil {
			t.Errorf("%s: %d sessions are left, %v; want the other's", name, n, err)
		}
	}
}
