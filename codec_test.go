package pgsession_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/pgsession/pgsession"
)

// mask is a codec of that number, which inverts every bit. It cannot code "unspeakable".
type mask int16

var errUnspeakable = errors.New("unspeakable")

func (m mask) Number() int16 { return int16(m) }

func (m mask) Encode(_ pgsession.ID, data []byte) ([]byte, error) {
	if string(data) == "unspeakable" {
		return nil, errUnspeakable
	}
	masked := bytes.Clone(data)
	for i := range masked {
		masked[i] = ^masked[i]
	}
	return masked, nil
}

func (m mask) Decode(id pgsession.ID, stored []byte) ([]byte, error) {
	data, _ := m.Encode(id, stored) // once more is the inverse
	if string(data) == "unspeakable" {
		return nil, errUnspeakable
	}
	return data, nil
}

func TestACodecThatFailsHarmsOneSessionOnly(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{Codec: mask(100)}, func(t *testing.T, w *way) {
		ctx := t.Context()
		good, _ := w.create(t, pgsession.Session{Data: []byte("hello"), Codec: 77})
		var stored []byte
		w.scan(t, &stored, `select t.data from {table} as t where t.codec = 100`)
		if string(stored) == "hello" || len(stored) != 5 {
			t.Errorf("stored %q, want it coded", stored)
		}
		bad, _ := w.create(t, pgsession.Session{Data: []byte("bad")})
		before := w.row(t, bad)
		_, err := w.Set(ctx, bad, pgsession.Session{Data: []byte("unspeakable")})
		wantError(t, "set", err, pgsession.ErrCodec, errUnspeakable)
		if after := w.row(t, bad); after != before {
			t.Errorf("a failed encoding changed %s to %s", before, after)
		}
		for what, damage := range map[string]string{
			"a codec that fails": `update {table} as t set data = $2::bytea where t.id = $1::text`,
			"an unknown codec":   `update {table} as t set codec = 77, data = $2::bytea where t.id = $1::text`,
		} {
			corrupt, _ := mask(100).Encode("", []byte("unspeakabl"))
			w.exec(t, damage, string(w.id(t, bad)), append(corrupt, ^byte('e')))
			_, err = w.Get(ctx, bad)
			wantError(t, what, err, pgsession.ErrCodec)
			if err == nil || !strings.Contains(err.Error(), string(w.id(t, bad))) {
				t.Errorf("%s: %v does not name the session", what, err)
			}
			_, err = w.Update(ctx, bad, func(*pgsession.Session) error { panic("called") })
			wantError(t, what, err, pgsession.ErrCodec)
			there, err := w.Set(ctx, bad, pgsession.Session{Version: 1})
			wantError(t, what, err, pgsession.ErrConflict, pgsession.ErrCodec)
			if there.Data != nil {
				t.Errorf("%s: the conflict shows %q", what, there.Data)
			}
			if got, err := w.Get(ctx, good); err != nil || string(got.Data) != "hello" {
				t.Errorf("%s: the other session: %q, %v", what, got.Data, err)
			}
		}
		_, err = w.Set(ctx, bad, pgsession.Session{Data: []byte("mended")})
		must(t, err)
		if got, err := w.Get(ctx, bad); err != nil || string(got.Data) != "mended" {
			t.Errorf("after it was written anew: %q, %v", got.Data, err)
		}
	})
}

func TestAnUpdateThatMeetsWhatItCannotReadChangesNothing(t *testing.T) {
	t.Parallel()
	everyStore(t, pgsession.Config{}, func(t *testing.T, w *way) {
		token, _ := w.create(t, pgsession.Session{Subject: "ada", Data: []byte("cart")})
		calls := 0
		_, err := w.Update(t.Context(), token, func(s *pgsession.Session) error {
			calls++
			if s.Subject != "ada" {
				t.Errorf("call %d is shown %+v", calls, s)
			}
			if calls == 1 { // an instance of a newer release is faster
				w.exec(t, `update {table} as t set codec = 150, version = t.version + 1 where t.id = $1::text`,
					string(w.id(t, token)))
			}
			s.Data = append(s.Data, '!')
			return nil
		})
		wantError(t, "update", err, pgsession.ErrConflict, pgsession.ErrCodec)
		var data string
		w.scan(t, &data, `select convert_from(t.data, 'UTF8') from {table} as t`)
		if calls != 1 || data != "cart" {
			t.Errorf("after %d calls there is %q", calls, data)
		}
	})
}

func TestAChangeOfCodecBreaksNoSession(t *testing.T) {
	t.Parallel()
	before := onPool(t, pgsession.Config{})
	plain, _ := before.create(t, pgsession.Session{Data: []byte(`{}`), Codec: pgsession.CodecJSON})
	first := setUp(t, before.query, pgsession.Config{Schema: before.schema, Codec: mask(100)})
	masked, _, err := first.Create(t.Context(), pgsession.Session{Data: []byte("hello")})
	must(t, err)
	second := setUp(t, before.query, pgsession.Config{
		Schema: before.schema, Codec: mask(101), Decoders: []pgsession.Codec{mask(100)},
	})
	for token, want := range map[pgsession.Token]string{plain: "{}", masked: "hello"} {
		got, err := second.Get(t.Context(), token)
		if err != nil || string(got.Data) != want {
			t.Fatalf("got %q, %v; want %q", got.Data, err, want)
		}
		if got, err = second.Set(t.Context(), token, got); err != nil || got.Codec != 101 {
			t.Errorf("written with codec %d, %v; want 101", got.Codec, err)
		}
		_, err = first.Get(t.Context(), token)
		wantError(t, "an instance that lacks the decoder", err, pgsession.ErrCodec)
	}
	_, _, err = before.Create(t.Context(), pgsession.Session{Data: []byte(`{`), Codec: pgsession.CodecJSON})
	wantError(t, "data marked JSON that is not", err, pgsession.ErrCodec)
	_, _, err = before.Create(t.Context(), pgsession.Session{Codec: 100})
	wantError(t, "a codec that is not known", err, pgsession.ErrCodec)
}
