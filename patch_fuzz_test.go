package pgsession_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"math/big"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/pgsession/pgsession"
)

// mergePatch is the RFC's algorithm, in its own words.
func mergePatch(target, patch any) any {
	members, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	merged, ok := target.(map[string]any)
	if !ok {
		merged = map[string]any{}
	}
	merged = maps.Clone(merged)
	for name, value := range members {
		if value == nil {
			delete(merged, name)
		} else {
			merged[name] = mergePatch(merged[name], value)
		}
	}
	return merged
}

// decodeExactly decodes JSON with its numbers as they are, in one notation.
func decodeExactly(data []byte) (v any, err error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	err = decoder.Decode(&v)
	return exactly(v), err
}

func exactly(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, ok := new(big.Rat).SetString(string(v)); ok {
			return n.RatString()
		}
		return "no number: " + string(v)
	case []any:
		for i := range v {
			v[i] = exactly(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = exactly(v[name])
		}
	}
	return v
}

// farOut is an exponent that would take the test longer than the server.
var farOut = regexp.MustCompile(`[eE][+-]?\d{4,}`)

func FuzzPatch(f *testing.F) {
	for _, c := range mergePatches {
		f.Add([]byte(c.original), []byte(c.patch))
	}
	f.Add([]byte(`{"a":1e300,"b":[null,{"c":null}]}`), []byte(`{"b":[null,{"c":null}],"":{"":null}}`))
	f.Add([]byte(`{"a":"\ud800"}`), []byte(`{"a":"\u0000","b":1e-400}`))
	f.Add([]byte(``), []byte(strings.Repeat(`{"a":`, 100)+`1`+strings.Repeat(`}`, 100)))
	f.Add([]byte(`{"a":1,"a":2}`), []byte(`{"b":{"c":1,"c":null}}`))
	store, _, _ := fuzzStore(f, pgsession.Config{MaxDataSize: 4096, Tombstone: -1})
	f.Fuzz(func(t *testing.T, original, patch []byte) {
		if farOut.Match(original) || farOut.Match(patch) {
			return
		}
		ctx := t.Context()
		token, created, err := store.Create(ctx, pgsession.Session{Data: original, Codec: pgsession.CodecJSON})
		if err != nil {
			return // FuzzData says why
		}
		defer func() { _, _ = store.Destroy(ctx, token) }()
		s, err := store.Patch(ctx, token, patch)
		if err != nil {
			hasEscape := bytes.Contains(patch, []byte(`\u`)) || !bytes.Equal(patch, bytes.ToValidUTF8(patch, nil))
			switch {
			case errors.Is(err, pgsession.ErrTooLarge):
			case errors.Is(err, pgsession.ErrInvalid) &&
				(!json.Valid(patch) || hasEscape || strings.Contains(err.Error(), "deeper than 100")):
			case errors.Is(err, pgsession.ErrCodec) &&
				(bytes.Contains(original, []byte(`\u`)) || !bytes.Equal(original, bytes.ToValidUTF8(original, nil))):
			default:
				t.Errorf("%q patched by %q: %v", original, patch, err)
			}
			if got, err := store.Get(ctx, token); err != nil || got.Version != created.Version {
				t.Errorf("a patch that was refused left %+v, %v", got, err)
			}
			return
		}
		var before any
		if len(original) > 0 {
			before, err = decodeExactly(original)
			must(t, err)
		}
		by, err := decodeExactly(patch)
		must(t, err)
		got, err := decodeExactly(s.Data)
		must(t, err)
		if want := mergePatch(before, by); !reflect.DeepEqual(got, want) {
			t.Errorf("%q patched by %q is %q, want %v", original, patch, s.Data, want)
		}
	})
}
