package pgsession_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/pgsession/pgsession"
)

// FuzzEncryption decodes what anyone may have written into the table.
func FuzzEncryption(f *testing.F) {
	codec, err := pgsession.Encrypt(pgsession.Encryption{
		Keys: []pgsession.Key{keyOf("k1"), keyOf("k2")}, Decoders: []pgsession.Codec{mask(100)},
	})
	if err != nil {
		f.Fatal(err)
	}
	for _, data := range []string{"", "data", strings.Repeat("x", 1000)} {
		stored, err := codec.Encode("id", []byte(data))
		if err != nil {
			f.Fatal(err)
		}
		f.Add("id", []byte(data), stored)
		f.Add("other", []byte(data), stored[:len(stored)/2])
	}
	f.Add("", []byte(nil), []byte{1, 0, 0, 255, 'k'})
	f.Add("id", []byte("x"), []byte{1, 0, 100, 2, 'k', '1'})
	f.Add("id", []byte("x"), []byte{1, 255, 255, 0})
	f.Fuzz(func(t *testing.T, id string, data, stored []byte) {
		if got, err := codec.Decode(pgsession.ID(id), stored); err == nil && id != "id" {
			t.Errorf("%x of %q was decoded as %q", stored, id, got)
		} else if err != nil && (got != nil || strings.Contains(err.Error(), "s3cr3t")) {
			t.Errorf("%q, %v", got, err)
		}
		coded, err := codec.Encode(pgsession.ID(id), data)
		must(t, err)
		if got, err := codec.Decode(pgsession.ID(id), coded); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%q of %q became %q, %v", data, id, got, err)
		}
		if got, err := codec.Decode(pgsession.ID(id+"x"), coded); err == nil {
			t.Errorf("%q of %q was decoded as another's", got, id)
		}
		if len(stored) > 0 {
			at := int(stored[0]) % len(coded)
			coded[at] ^= 1 + stored[0]%255
			if got, err := codec.Decode(pgsession.ID(id), coded); err == nil {
				t.Errorf("changed at %d, %q of %q was decoded as %q", at, data, id, got)
			}
		}
	})
}

// FuzzPeppers finds sessions by their tokens, under one pepper and across a rotation.
func FuzzPeppers(f *testing.F) {
	for _, token := range []string{"x", "\x00", "\xff", "日本語", "' or 1 = 1 --", strings.Repeat("x", 64), strings.Repeat("x", 65), strings.Repeat("x", 1024)} {
		f.Add(token, []byte("data"))
	}
	f.Add("", []byte(nil))
	f.Add(strings.Repeat("x", 1025), []byte(nil))
	rotating, pool, schema := fuzzStore(f, pgsession.Config{Peppers: peppered("new", "old"), Tombstone: -1, MaxDataSize: 4096, Codec: encrypting(f, "k1")})
	old, err := pgsession.New(pool.Query, pgsession.Config{
		Schema: schema, Peppers: peppered("old"), Tombstone: -1, MaxDataSize: 4096, Codec: encrypting(f, "k1"),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string, data []byte) {
		token, ctx := pgsession.Token(text), t.Context()
		before, err := old.Set(ctx, token, pgsession.Session{Data: data})
		if text == "" || len(text) > 1024 || len(data) > 4096-34 {
			_, again := rotating.Set(ctx, token, pgsession.Session{Data: data})
			for _, err := range []error{err, again} {
				if !errors.Is(err, pgsession.ErrInvalidToken) && !errors.Is(err, pgsession.ErrTooLarge) {
					t.Errorf("err = %v", err)
				}
			}
			return
		}
		must(t, err)
		if before.ID != idUnder("old", token) {
			t.Errorf("the id is %s", before.ID)
		}
		got, err := rotating.Get(ctx, token)
		if err != nil || got.ID != before.ID || !bytes.Equal(got.Data, data) {
			t.Errorf("found %+v, %v", got, err)
		}
		if again, err := rotating.Set(ctx, token, pgsession.Session{Data: data}); err != nil || again.ID != before.ID {
			t.Errorf("set again %+v, %v", again, err)
		}
		next, renewed, err := rotating.Renew(ctx, token, pgsession.Renewal{})
		if err != nil || renewed.ID != idUnder("new", next) || !bytes.Equal(renewed.Data, data) {
			t.Errorf("renewed %+v, %v", renewed, err)
		}
		if n, err := rotating.Destroy(ctx, next, token); n != 1 || err != nil {
			t.Errorf("Destroy = %d, %v", n, err)
		}
		exec(t, pool, "delete from "+identifier(schema, "session")) // the tombstone of the grace
		started, err := rotating.Set(ctx, token, pgsession.Session{})
		if err != nil || started.ID != idUnder("new", token) {
			t.Errorf("a new session %+v, %v", started, err)
		}
		_, err = rotating.Destroy(ctx, token)
		must(t, err)
	})
}

// FuzzFilters compares what filters find and revoke with what they name.
func FuzzFilters(f *testing.F) {
	for i, value := range hostile {
		f.Add(value, hostile[(i+1)%len(hostile)], int64(i), "agent")
		f.Add("x", "x", int64(i), value)
	}
	f.Add("\x00", "\xff", int64(-1), "n")
	f.Add("same", "same", int64(1)<<62, "tags")
	const odd = `"; drop table x; --`
	store, _, _ := fuzzStore(f, pgsession.Config{Tombstone: -1, Columns: []pgsession.Column{
		{Name: "agent", Type: "text"}, {Name: "tags", Type: "text[]"}, {Name: odd, Type: "text"}, {Name: "n", Type: "bigint"}, {Name: "run", Type: "uuid"},
	}})
	f.Fuzz(func(t *testing.T, one, other string, n int64, name string) {
		ctx := t.Context()
		run := newUUID() // so that what runs beside it is not counted
		create := func(text string) (pgsession.ID, error) {
			_, s, err := store.Create(ctx, pgsession.Session{Subject: "ada", Columns: map[string]any{
				"agent": text, "tags": []string{text, "x"}, odd: text, "n": n, "run": run,
			}})
			return s.ID, err
		}
		id, err := create(one)
		if storable := utf8.ValidString(one) && strings.IndexByte(one, 0) < 0; (err == nil) != storable || err != nil && !errors.Is(err, pgsession.ErrInvalid) {
			t.Fatalf("Create with %q: %v", one, err)
		} else if err != nil {
			return
		}
		want := []pgsession.ID{id}
		defer func() {
			_, _ = store.Revoke(ctx, pgsession.Revocation{Subject: "ada", Columns: map[string]any{"run": run}})
		}()
		if another, err := create(other); err == nil && one == other {
			want = append(want, another)
		}
		for _, filter := range []map[string]any{
			{"agent": one, "run": run}, {"tags": []string{one, "x"}, "run": run}, {odd: one, "run": run, "n": n}, {odd: one, "agent": one, "run": run},
		} {
			found := 0
			for s, err := range store.All(ctx, pgsession.Filter{Subject: "ada", Columns: filter}) {
				must(t, err)
				if found++; s.Columns["agent"] != one {
					t.Errorf("%q found %q", filter, s.Columns)
				}
			}
			if count, err := store.Count(ctx, pgsession.Filter{Columns: filter}); err != nil || int(count) != len(want) || found != len(want) {
				t.Errorf("%q: counted %d, %v, and found %d; want %d", filter, count, err, found, len(want))
			}
		}
		// A name that is none is refused, whatever it is; one that is takes what its type takes.
		promoted := name == "agent" || name == "tags" || name == odd || name == "n" || name == "run"
		filter := map[string]any{name: other, "run": run}
		_, err = store.Count(ctx, pgsession.Filter{Columns: filter})
		if err != nil && !errors.Is(err, pgsession.ErrInvalid) || err == nil && !promoted {
			t.Errorf("%q: %v", filter, err)
		}
		if !promoted {
			if ended, err := store.Revoke(ctx, pgsession.Revocation{Everyone: true, Columns: filter}); ended != 0 || !errors.Is(err, pgsession.ErrInvalid) {
				t.Errorf("%q: revoked %d, %v", filter, ended, err)
			}
		}
		revocation := pgsession.Revocation{Everyone: n%2 == 0, Columns: map[string]any{"agent": one, "run": run}}
		if !revocation.Everyone {
			revocation.Subject = "ada"
		}
		if ended, err := store.Revoke(ctx, revocation); ended != len(want) || err != nil {
			t.Errorf("revoked %d, %v; want %d", ended, err, len(want))
		}
	})
}

// FuzzColumnValues writes JSON texts, and values of them, and reads them as they were.
func FuzzColumnValues(f *testing.F) {
	for _, value := range hostile {
		f.Add(value, []byte(value), `{"a": 1}`)
	}
	f.Add("\xff", []byte{0, 0xff, '\\'}, `"\u0000"`)
	f.Add("{}", []byte(nil), `1e400`)
	store, _, _ := fuzzStore(f, pgsession.Config{Tombstone: -1, Columns: []pgsession.Column{
		{Name: "texts", Type: "text[]"}, {Name: "b", Type: "bytea"}, {Name: "blobs", Type: "bytea[]"}, {Name: "j", Type: "json"},
	}})
	f.Fuzz(func(t *testing.T, text string, blob []byte, raw string) {
		ctx := t.Context()
		columns := map[string]any{
			"texts": []*string{&text, nil, &text}, "b": blob, "blobs": [][]byte{blob, {}, blob}, "j": json.RawMessage(raw),
		}
		token, s, err := store.Create(ctx, pgsession.Session{Columns: columns})
		if err != nil {
			good := utf8.ValidString(text+raw) && !strings.Contains(text+raw, "\x00") && json.Valid([]byte(raw)) && len(raw) < 1000
			if good || !errors.Is(err, pgsession.ErrInvalid) && !strings.HasPrefix(codeOf(err), "54") {
				t.Errorf("%q, %q, %q: %v", text, blob, raw, err)
			}
			return
		}
		if raw != s.Columns["j"] {
			t.Errorf("%q was read as %q", raw, s.Columns["j"])
		}
		again, err := store.Set(ctx, token, pgsession.Session{Version: s.Version, Columns: columns})
		if err != nil || again.Version != s.Version {
			t.Errorf("the same columns are a change: %v, %v", again.Columns, err)
		}
		_, err = store.Destroy(ctx, token)
		must(t, err)
	})
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
