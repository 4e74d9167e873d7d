package values_test

import (
	"bytes"
	"encoding/gob"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/pgsession/pgsession/internal/values"
)

// declared is a type that only gob can name.
type declared struct {
	Name  string
	Roles map[string]bool
}

func init() { gob.Register(declared{}) }

// sample holds each kind of value that frameworks' sessions hold.
func sample() map[string]any {
	return map[string]any{
		"": nil, "bool": true, "no": false, "int": -7, "int8": int8(-8), "int16": int16(16), "int32": int32(-32),
		"int64": int64(math.MinInt64), "uint": uint(7), "uint8": uint8(255), "uint16": uint16(16), "uint32": uint32(32),
		"uint64": uint64(math.MaxUint64), "float32": float32(0.1), "float64": math.Inf(-1),
		"complex64": complex64(1 + 2i), "complex128": 3 - 4i,
		"string": "नमस्ते\x00\xff", "bytes": []byte{0, 1, 255}, "empty": []byte{}, "none": []byte(nil),
		"time":      time.Date(2026, 11, 21, 9, 30, 0, 123456789, time.FixedZone("", 3600)).UTC(),
		"flashes":   []any{"saved", 3, nil, map[string]any{"deep": []any{}}},
		"strings":   []string{"b", "a"},
		"nilslice":  []string(nil),
		"claims":    map[string]any{"sub": "ada", "aud": []any{"x", "y"}, "n": map[string]any(nil)},
		"values":    map[string][]string{"q": {"1", "2"}, "p": nil},
		"counts":    map[int64]float64{3: 0.3, 1: 0.1, 2: 0.2},
		"any keys":  map[any]any{"a": 1, 2: "b", true: nil, 1.5: []byte("x")},
		"nested":    map[string]map[string]any{"x": {"b": 1, "a": 2}, "y": nil},
		"times":     []time.Time{time.Unix(1, 2).UTC()},
		"byteslice": [][]byte{{1}, {}},
	}
}

func TestWhatWasCodedComesBackWithItsTypes(t *testing.T) {
	t.Parallel()
	want := sample()
	want["declared"] = declared{"ada", map[string]bool{"admin": true}}
	data, err := values.Marshal([]byte("prefix"), want)
	if err != nil {
		t.Fatal(err)
	}
	prefix, got, err := values.Unmarshal(data)
	if err != nil {
		t.Fatal(err)
	}
	if string(prefix) != "prefix" || string(values.Prefix(data)) != "prefix" {
		t.Errorf("the prefix is %q and %q", prefix, values.Prefix(data))
	}
	for name := range want {
		if got := got.(map[string]any)[name]; !reflect.DeepEqual(got, want[name]) {
			t.Errorf("%s: %#v, want %#v", name, got, want[name])
		}
	}
	if len(got.(map[string]any)) != len(want) {
		t.Errorf("%d values, want %d", len(got.(map[string]any)), len(want))
	}
}

// rebuilt returns the same content in maps that were filled in another order.
func rebuilt(v any) any {
	if v == nil {
		return nil
	}
	r := reflect.ValueOf(v)
	switch r.Kind() {
	case reflect.Map:
		if r.IsNil() {
			return v
		}
		keys := r.MapKeys()
		m := reflect.MakeMap(r.Type())
		for i := range keys {
			key := keys[len(keys)-1-i]
			elem := reflect.New(r.Type().Elem()).Elem()
			if e := rebuilt(r.MapIndex(key).Interface()); e != nil {
				elem.Set(reflect.ValueOf(e))
			}
			m.SetMapIndex(key, elem)
		}
		return m.Interface()
	}
	return v
}

func TestTheSameValuesGiveTheSameBytes(t *testing.T) {
	t.Parallel()
	first, err := values.Marshal(nil, sample())
	if err != nil {
		t.Fatal(err)
	}
	if !values.Canonical(first) {
		t.Error("nothing in it needs gob, but it is not canonical")
	}
	for range 100 {
		again, err := values.Marshal(nil, rebuilt(sample()))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first, again) {
			t.Fatalf("%x\nand\n%x", first, again)
		}
	}
}

func TestDeclaredTypesAreComparedByWhatTheyHold(t *testing.T) {
	t.Parallel()
	code := func(role string) []byte {
		roles := map[string]bool{"a": true, "b": true, "c": true, "d": true, "e": true, role: true}
		data, err := values.Marshal(nil, map[string]any{"user": declared{"ada", roles}})
		if err != nil {
			t.Fatal(err)
		}
		if values.Canonical(data) {
			t.Fatal("gob's bytes are not canonical")
		}
		return data
	}
	decode := func(b []byte) (any, error) { _, v, err := values.Unmarshal(b); return v, err }
	first, differs := code("f"), false
	for range 100 {
		again := code("f")
		differs = differs || !bytes.Equal(first, again)
		if !values.Equal(first, again, decode) {
			t.Fatal("the same content is not equal")
		}
	}
	if !differs {
		t.Error("gob has given the same bytes a hundred times: this test shows nothing")
	}
	if values.Equal(first, code("g"), decode) {
		t.Error("another role is equal")
	}
	if values.Equal([]byte("x"), []byte("y"), decode) {
		t.Error("what cannot be decoded is equal")
	}
}

func TestWhatCannotBeCodedIsAnErrorThatNamesIt(t *testing.T) {
	t.Parallel()
	type unregistered struct{ A int }
	itself := map[string]any{}
	itself["me"] = itself
	for name, v := range map[string]any{
		"unregistered": unregistered{1}, "channel": make(chan int), "function": func() {}, "itself": itself,
	} {
		if data, err := values.Marshal(nil, map[string]any{name: v}); err == nil {
			t.Errorf("%s: %x", name, data)
		} else if !bytes.Contains([]byte(err.Error()), []byte(name)) && name != "itself" {
			t.Errorf("%s: the error does not name it: %v", name, err)
		}
	}
	for _, data := range []string{"", "\x00", "\x00v", "\x00v\x02\x00n", "\x00v\x00\x00", "\x00v\x00\x00nn", "{}", "\x00v\x00\x00{[si\x00"} {
		if _, v, err := values.Unmarshal([]byte(data)); err == nil {
			t.Errorf("%q is %v", data, v)
		}
	}
}

// FuzzUnmarshal: whatever the bytes, it is an error or a value that can be coded again.
func FuzzUnmarshal(f *testing.F) {
	seed := sample()
	seed["declared"] = declared{"ada", map[string]bool{"admin": true}}
	data, err := values.Marshal([]byte("prefix"), seed)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("\x00v\x00\x00{**\x02[s\x02\x00n"))
	f.Add([]byte("\x00v\x00\x00{[si\x02\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		prefix, v, err := values.Unmarshal(data)
		if err != nil {
			return
		}
		if _, err := values.Marshal(prefix, v); err != nil {
			t.Fatalf("it was decoded, and cannot be coded again: %v", err)
		}
	})
}
