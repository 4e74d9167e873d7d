package movein_test

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/movein"
)

// plan is a type of an application's.
type plan string

func TestACopyStoresColumnsAsCreateDoes(t *testing.T) {
	t.Parallel()
	addressOf := func(d time.Duration) *time.Duration { return &d }
	at := time.Date(2026, 11, 30, 12, 0, 0, 123456000, time.FixedZone("", 3600))
	cases := []struct {
		name, kind string
		value      any
	}{
		{"string", "text", `"a\b' ü`},
		{"string of numbers", "text", "007"},
		{"declared string", "text", plan("gold")},
		{"int", "bigint", math.MinInt64},
		{"int in text", "text", 7},
		{"uint64", "numeric", uint64(math.MaxUint64)},
		{"float64", "double precision", 0.1},
		{"float32", "real", float32(0.1)},
		{"large float", "double precision", 1e300},
		{"bool", "boolean", true},
		{"time", "timestamptz", at},
		{"duration", "interval", 90 * time.Second},
		{"pointer", "interval", addressOf(1500 * time.Millisecond)},
		{"some bytes", "bytea", []byte("hi\x00\xff")},
		{"raw JSON", "jsonb", json.RawMessage(`{"a": [1, "<b>"]}`)},
		{"JSON in text", "text", json.RawMessage(`{"a":1}`)},
		{"valuer", "bigint", sql.NullInt64{Int64: 7, Valid: true}},
		{"null valuer", "bigint", sql.NullInt64{}},
		{"text marshaler", "inet", netip.MustParseAddr("10.0.0.1")},
		{"stringer", "text", time.March},
		{"strings", "text[]", []string{"x", `"y",{`, ""}},
		{"byte slices", "bytea[]", [][]byte{{0, 1}, nil}},
		{"durations", "interval[]", []time.Duration{time.Hour}},
		{"pointers", "bigint[]", []*int{nil}},
		{"nil", "text", nil},
		{"nil slice", "text[]", []string(nil)},
	}
	cfg, values := pgsession.Config{}, map[pgsession.ID]map[string]any{}
	for _, c := range cases {
		cfg.Columns = append(cfg.Columns, pgsession.Column{Name: c.name, Type: c.kind})
	}
	w := newWorld(t, cfg, len(cases))
	for i, c := range cases {
		id, err := w.store.ID(token(i + 1))
		must(t, err)
		values[id] = map[string]any{c.name: c.value}
	}
	importer := w.importer(t, movein.Options{Convert: func(s *pgsession.Session) error {
		s.Columns = values[s.ID]
		return nil
	}})
	// One by a request, the others by a copy.
	_, err := importer.Through().Get(t.Context(), token(len(cases)))
	must(t, err)
	wantProgress(t, importer, movein.Progress{Total: int64(len(cases)), Copied: int64(len(cases)) - 1, Present: 1})
	for i, c := range cases {
		imported, err := w.store.GetFresh(t.Context(), token(i+1))
		must(t, err)
		created, _, err := w.store.Create(t.Context(), pgsession.Session{
			Data: []byte("x"), Columns: map[string]any{c.name: c.value},
		})
		must(t, err)
		want, err := w.store.GetFresh(t.Context(), created)
		must(t, err)
		if !maps.Equal(imported.Columns, want.Columns) {
			t.Errorf("%s: imported as %q, created as %q", c.name, imported.Columns[c.name], want.Columns[c.name])
		}
	}
}

func TestAColumnThatCreateRefusesEndsTheCopy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgsession.Config{Columns: []pgsession.Column{{Name: "c", Type: "text"}}}, 1)
	for i, columns := range []map[string]any{
		{"c": struct{}{}}, {"c": [][]string{{"a"}}}, {"c": "\x00"}, {"c": "\xff"}, {"": "a"}, {"c": map[string]int{"a": 1}},
	} {
		importer := w.importer(t, movein.Options{Convert: func(s *pgsession.Session) error { s.Columns = columns; return nil }})
		if _, err := importer.Copy(t.Context()); !errors.Is(err, pgsession.ErrInvalid) {
			t.Errorf("%d: %v", i, err)
		}
		_, _, err := w.store.Create(t.Context(), pgsession.Session{Columns: columns})
		if !errors.Is(err, pgsession.ErrInvalid) {
			t.Error(fmt.Errorf("%d: Create says %w", i, err))
		}
	}
}
