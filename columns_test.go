package pgsession_test

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

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
