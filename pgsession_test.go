package pgsession_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
)

// recorder keeps what passes through a QueryFunc.
type recorder struct {
	next pgsession.QueryFunc

	mu    sync.Mutex
	calls []call
}

type call struct {
	sql  string
	args []any
}

func (r *recorder) query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	r.mu.Lock()
	r.calls = append(r.calls, call{sql, args})
	r.mu.Unlock()
	return r.next(ctx, sql, args...)
}

// last returns the last call of a function of the store.
func (r *recorder) last(t *testing.T, function string) call {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.calls) - 1; i >= 0; i-- {
		if strings.Contains(r.calls[i].sql, `."session_`+function+`"(`) {
			return r.calls[i]
		}
	}
	t.Fatalf("%s was never called", function)
	return call{}
}

func TestNewNamesTheFieldThatIsBad(t *testing.T) {
	t.Parallel()
	column := func(c ...pgsession.Column) pgsession.Config { return pgsession.Config{Columns: c} }
	long, century := strings.Repeat("x", 64), 101*365*24*time.Hour
	for _, bad := range []struct {
		field string
		cfg   pgsession.Config
	}{
		{"Config.Schema", pgsession.Config{Schema: long}},
		{"Config.Schema", pgsession.Config{Schema: "a\x00b"}},
		{"Config.Schema", pgsession.Config{Schema: "a\xffb"}},
		{"Config.Table", pgsession.Config{Table: long[:48]}},
		{"Config.Table", pgsession.Config{Table: "a\x00b"}},
		{"Config.Owner", pgsession.Config{Owner: long}},
		{"Config.AppRole", pgsession.Config{AppRole: long}},
		{"Config.AdminRole", pgsession.Config{AdminRole: long}},
		{"Config.IdleTimeout", pgsession.Config{IdleTimeout: -2}},
		{"Config.IdleTimeout", pgsession.Config{IdleTimeout: time.Microsecond}},
		{"Config.IdleTimeout", pgsession.Config{IdleTimeout: century}},
		{"Config.AbsoluteTimeout", pgsession.Config{AbsoluteTimeout: -time.Hour}},
		{"Config.AbsoluteTimeout", pgsession.Config{AbsoluteTimeout: century}},
		{"Config.TouchInterval", pgsession.Config{TouchInterval: -2}},
		{"Config.TouchInterval", pgsession.Config{TouchInterval: century}},
		{"Config.Tombstone", pgsession.Config{Tombstone: time.Millisecond}},
		{"Config.LockTimeout", pgsession.Config{LockTimeout: time.Microsecond}},
		{"Config.MaxDataSize", pgsession.Config{MaxDataSize: -1}},
		{"Config.MaxDataSize", pgsession.Config{MaxDataSize: 512<<20 + 1}},
		{"Config.Lock", pgsession.Config{Lock: -1}},
		{"Config.Lock", pgsession.Config{Lock: pgsession.LockFail + 1}},
		{"Config.Cleanup.Mode", pgsession.Config{Cleanup: pgsession.Cleanup{Mode: -1}}},
		{"Config.Cleanup.Interval", pgsession.Config{Cleanup: pgsession.Cleanup{Interval: -1}}},
		{"Config.Cleanup.BatchSize", pgsession.Config{Cleanup: pgsession.Cleanup{BatchSize: -1}}},
		{"Config.Codec", pgsession.Config{Codec: mask(99)}},
		{"Config.Decoders", pgsession.Config{Decoders: []pgsession.Codec{nil}}},
		{"Config.Decoders", pgsession.Config{Decoders: []pgsession.Codec{mask(-1)}}},
		{"Config.Decoders", pgsession.Config{Codec: mask(100), Decoders: []pgsession.Codec{mask(100)}}},
		{"Config.Columns", column(pgsession.Column{Name: "", Type: "text"})},
		{"Config.Columns", column(pgsession.Column{Name: long, Type: "text"})},
		{"Config.Columns", column(pgsession.Column{Name: "data", Type: "text"})},
		{"Config.Columns", column(pgsession.Column{Name: "expires_in", Type: "text"})},
		{"Config.Columns", column(pgsession.Column{Name: "xmin", Type: "text"})},
		{"Config.Columns", column(pgsession.Column{Name: "ip", Type: "public.mine"})},
		{"Config.Columns", column(pgsession.Column{Name: "ip", Type: "inet[][]"})},
		{"Config.Columns", column(pgsession.Column{Name: "a", Type: "text"}, pgsession.Column{Name: "a", Type: "int"})},
		{"Config.Columns", column(make([]pgsession.Column, 49)...)},
	} {
		_, err := pgsession.New(new(pgx.Conn).Query, bad.cfg)
		wantError(t, bad.field, err, pgsession.ErrInvalid)
		if err != nil && !strings.Contains(err.Error(), bad.field) {
			t.Errorf("%v: does not name %s", err, bad.field)
		}
	}
	_, err := pgsession.New(nil, pgsession.Config{})
	wantError(t, "a nil QueryFunc", err, pgsession.ErrInvalid)
	_, err = pgsession.New(pgsession.FromSQL(nil), pgsession.Config{})
	wantError(t, "a nil database", err, pgsession.ErrInvalid)
	_, err = pgsession.Open(t.Context(), "", pgsession.Config{Lock: -1})
	wantError(t, "Open", err, pgsession.ErrInvalid)
}

func TestDataComesBackByteForByte(t *testing.T) {
	t.Parallel()
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		for name, data := range map[string][]byte{
			"nil": nil, "empty": {}, "one byte": {'x'}, "NUL": {0}, "1 MiB": bytes.Repeat(every, 1<<12),
			"every byte": every, "invalid UTF-8": []byte("a\xff\xfeb\xc3"), "a backslash": []byte(`\x41\`),
			"Japanese": []byte("セッション"), "Hindi": []byte("सत्र"), "Hebrew": []byte("הפעלה"),
		} {
			token, created := w.create(t, pgsession.Session{Data: data})
			created.Data = []byte("something else")
			set, err := w.Set(t.Context(), token, created)
			must(t, err)
			set.Data = data
			_, err = w.Set(t.Context(), token, set)
			must(t, err)
			got, err := w.Get(t.Context(), token)
			if err != nil || !bytes.Equal(got.Data, data) {
				t.Errorf("%s: %d bytes came back as %d, %v", name, len(data), len(got.Data), err)
			}
		}
	})
}

func TestSetReplacesAndMindsTheVersion(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		ctx, token := t.Context(), pgsession.Token("brought along \x00\xff")
		_, err := w.Get(ctx, token)
		wantError(t, "get of a missing session", err, pgsession.ErrNotFound)
		_, err = w.Set(ctx, token, pgsession.Session{Version: 1})
		wantError(t, "set of a loaded session that is missing", err, pgsession.ErrNotFound)
		_, err = w.Update(ctx, token, func(*pgsession.Session) error { return nil })
		wantError(t, "update of a missing session", err, pgsession.ErrNotFound)
		if row := w.row(t, token); row != "" {
			t.Fatalf("a session was made of nothing: %s", row)
		}

		first, err := w.Set(ctx, token, pgsession.Session{Subject: "ada", Data: []byte("1")})
		must(t, err)
		second, err := w.Set(ctx, token, pgsession.Session{Subject: "bob", Data: []byte("2")})
		must(t, err)
		if second.Version <= first.Version || !second.CreatedAt.Equal(first.CreatedAt) {
			t.Errorf("replaced %+v by %+v", first, second)
		}
		same, err := w.Set(ctx, token, pgsession.Session{Subject: "bob", Data: []byte("2")})
		if err != nil || same.Version != second.Version {
			t.Errorf("a set that changes nothing: version %d, %v; want %d", same.Version, err, second.Version)
		}

		first.Data = []byte("3")
		there, err := w.Set(ctx, token, first)
		wantError(t, "set of an old version", err, pgsession.ErrConflict)
		if !reflect.DeepEqual(there, second) {
			t.Errorf("the conflict shows %+v, want %+v", there, second)
		}
		_, err = w.Set(ctx, token, pgsession.Session{Version: -1})
		wantError(t, "a negative version", err, pgsession.ErrInvalid)
		if got, err := w.Get(ctx, token); err != nil || !reflect.DeepEqual(got, second) {
			t.Errorf("got %+v, %v; want %+v", got, err, second)
		}
	})
}

func TestUpdateWritesWhatItsFunctionLeaves(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		token, _ := w.create(t, pgsession.Session{Data: []byte("1")})
		updated, err := w.Update(t.Context(), token, func(s *pgsession.Session) error {
			s.Subject, s.Data = "ada", append(s.Data, '2')
			return nil
		})
		must(t, err)
		before, refused := w.row(t, token), errors.New("refused")
		_, err = w.Update(t.Context(), token, func(s *pgsession.Session) error {
			s.Data = nil
			return refused
		})
		wantError(t, "an update whose function fails", err, refused)
		_, err = w.Update(t.Context(), token, nil)
		wantError(t, "a nil function", err, pgsession.ErrInvalid)
		if after := w.row(t, token); after != before {
			t.Errorf("a failed update changed %s to %s", before, after)
		}
		got, err := w.Get(t.Context(), token)
		if err != nil || got.Subject != "ada" || string(got.Data) != "12" || !reflect.DeepEqual(got, updated) {
			t.Errorf("got %+v, %v; want %+v", got, err, updated)
		}
	})
}

func TestViewLendsTheSessionAndReturnsItsFunctionsError(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	token, _ := w.create(t, pgsession.Session{Data: []byte("1")})
	own := errors.New("the function's own")
	err := w.View(t.Context(), token, func(s pgsession.Session) error {
		if string(s.Data) != "1" {
			t.Errorf("lent %+v", s)
		}
		return own
	})
	if err != own { //nolint:errorlint // as it is, not wrapped
		t.Errorf("the error is %v, want the function's as it is", err)
	}
	err = w.View(t.Context(), "missing", func(pgsession.Session) error { panic("called") })
	wantError(t, "view of a missing session", err, pgsession.ErrNotFound)
}

func TestDestroyEndsWhatIsThere(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		w.seed(t, 999, "many", "", 0)
		many := make([]pgsession.Token, 1000)
		for i := range many {
			many[i] = seeded("many", i+1) // the last one is missing
		}
		for _, destroy := range []struct {
			name   string
			tokens []pgsession.Token
			want   int
			err    error
		}{
			{"none", nil, 0, nil},
			{"a missing one", []pgsession.Token{"missing"}, 0, nil},
			{"one with an invalid one", []pgsession.Token{many[0], ""}, 0, pgsession.ErrInvalidToken},
			{"one twice", []pgsession.Token{many[0], many[0]}, 1, nil},
			{"it again", many[:1], 0, nil},
			{"many", many, 998, nil},
			{"many again", many, 0, nil},
			{"too many", slices.Concat(many, many[:1]), 0, pgsession.ErrInvalid},
		} {
			n, err := w.Destroy(t.Context(), destroy.tokens...)
			if n != destroy.want || !errors.Is(err, destroy.err) {
				t.Errorf("%s: %d, %v; want %d, %v", destroy.name, n, err, destroy.want, destroy.err)
			}
		}
		if row := w.row(t, "missing"); row != "" {
			t.Errorf("the destruction of a session that never was left %s", row)
		}
		if n, err := w.Count(t.Context(), pgsession.Filter{}); err != nil || n != 0 {
			t.Errorf("%d sessions are left, %v", n, err)
		}
	})
}

func TestATokenIsNeverPrinted(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t-t0k3n"
	token := pgsession.Token(secret)
	values := map[string]any{
		"token": token, "pointer": &token, "slice": []pgsession.Token{token},
		"struct": struct{ Token pgsession.Token }{token}, "map": map[string]pgsession.Token{"token": token},
		"key":   map[pgsession.Token]int{token: 1},
		"error": fmt.Errorf("of %v: %w", token, pgsession.ErrNotFound),
	}
	check := func(how, text string) {
		t.Helper()
		for _, form := range []string{secret, hex.EncodeToString([]byte(secret)), fmt.Sprintf("% x", secret)} {
			if strings.Contains(strings.ToLower(text), form) {
				t.Errorf("%s shows the token: %s", how, text)
			}
		}
	}
	for name, value := range values {
		// All but %p and %w: given what they are not meant for, fmt says so with the bare value and
		// asks none of its methods, and go vet objects.
		for _, verb := range strings.Split("vTtbcdoOqxXUeEfFgGsyz", "") {
			for _, flags := range []string{"", "+", "#", " ", "-30", "030", ".3", "+#"} {
				check(name+" by %"+flags+verb, fmt.Sprintf("%"+flags+verb, value))
			}
		}
		if name == "key" {
			continue // encoding/json writes the keys of a map without asking them
		}
		var b bytes.Buffer
		slog.New(slog.NewTextHandler(&b, nil)).Info("message", slog.Any("value", value))
		slog.New(slog.NewJSONHandler(&b, nil)).Info("message", slog.Any("value", value))
		check(name+" by slog", b.String())
		text, _ := json.Marshal(value) // of an error it is {}
		check(name+" by JSON", string(text))
		text, _ = xml.Marshal(value) // of a map it is an error
		check(name+" by XML", string(text))
	}
	for _, text := range []string{token.String(), token.LogValue().String(), fmt.Sprint(token), fmt.Sprintf("%q", token)} {
		if text != "[redacted]" {
			t.Errorf("a token is printed as %s", text)
		}
	}
	if id := pgsession.ID("shown"); fmt.Sprint(id) != "shown" {
		t.Errorf("an id is printed as %v", id)
	}
}

func TestTheDatabaseKnowsATokenOnlyByItsHash(t *testing.T) {
	t.Parallel()
	key := func(token string) string {
		mac := hmac.New(sha256.New, []byte("pepper"))
		mac.Write([]byte(token))
		return hex.EncodeToString(mac.Sum(nil))
	}
	const secret pgsession.Token = "s3cr3t-t0k3n"
	for name, keyFunc := range map[string]func(string) string{"SHA-256": nil, "a KeyFunc": key} {
		w := onPool(t, pgsession.Config{KeyFunc: keyFunc})
		sent := &recorder{next: w.query}
		store := setUp(t, sent.query, pgsession.Config{Schema: w.schema, KeyFunc: keyFunc})
		for _, op := range operations {
			_ = op.call(t.Context(), store, secret)
		}
		for _, call := range sent.calls {
			if text := call.sql + fmt.Sprintf("%s", call.args); strings.Contains(text, string(secret)) {
				t.Errorf("%s: the token was sent: %s", name, text)
			}
		}
		want := "bkS7POnO99ehFojMDxoOwlQaPVj0R9vTSXFXpL66MLU"
		if keyFunc != nil {
			want = key(string(secret))
		}
		if id := w.id(t, secret); string(id) != want {
			t.Errorf("%s: the id is %s, want %s", name, id, want)
		}
	}
}

func TestWhatCannotBeStoredIsRefused(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{MaxDataSize: 10, KeyFunc: func(token string) string {
		return strings.TrimPrefix(token, "key:") // not one-way, but any result can be had of it
	}})
	ctx := t.Context()
	for _, text := range []string{"a\x00b", "a\xffb", strings.Repeat("x", 1025)} {
		_, _, err := w.Create(ctx, pgsession.Session{Subject: text})
		wantError(t, "subject", err, pgsession.ErrInvalid)
		_, err = w.Count(ctx, pgsession.Filter{Subject: text})
		wantError(t, "filter", err, pgsession.ErrInvalid)
		_, err = w.Revoke(ctx, pgsession.Revocation{Subject: text})
		wantError(t, "revocation", err, pgsession.ErrInvalid)
		_, err = w.Revoke(ctx, pgsession.Revocation{IDs: []pgsession.ID{pgsession.ID(text)}})
		wantError(t, "id", err, pgsession.ErrInvalid)
		_, err = w.Revoke(ctx, pgsession.Revocation{Subject: "ada", Except: []pgsession.ID{pgsession.ID(text)}})
		wantError(t, "except", err, pgsession.ErrInvalid)
		if len(text) < 1000 {
			_, err = w.Get(ctx, "key:"+pgsession.Token(text))
			wantError(t, "a KeyFunc's result", err, pgsession.ErrInvalid)
		}
	}
	for _, token := range []pgsession.Token{"key:", "the token itself", pgsession.Token("key:" + strings.Repeat("x", 257))} {
		_, err := w.Get(ctx, token)
		wantError(t, "a KeyFunc's result", err, pgsession.ErrInvalid)
	}
	for _, op := range operations {
		if !op.token {
			continue
		}
		wantError(t, op.name+" of no token", op.call(ctx, w.store, ""), pgsession.ErrInvalidToken)
		long := pgsession.Token("key:" + strings.Repeat("x", 1021))
		wantError(t, op.name+" of a long token", op.call(ctx, w.store, long), pgsession.ErrInvalidToken)
	}

	const token = pgsession.Token("key:1")
	_, err := w.Set(ctx, token, pgsession.Session{Data: make([]byte, 10)})
	must(t, err)
	before := w.row(t, token)
	_, err = w.Set(ctx, token, pgsession.Session{Data: make([]byte, 11)})
	wantError(t, "set of a byte too many", err, pgsession.ErrTooLarge)
	_, err = w.Update(ctx, token, func(s *pgsession.Session) error { s.Data = make([]byte, 11); return nil })
	wantError(t, "update to a byte too many", err, pgsession.ErrTooLarge)
	_, err = w.Set(ctx, token, pgsession.Session{IdleTimeout: 101 * 365 * 24 * time.Hour})
	wantError(t, "a timeout of more than a century", err, pgsession.ErrInvalid)
	_, err = w.Set(ctx, token, pgsession.Session{AbsoluteTimeout: time.Nanosecond})
	wantError(t, "a timeout of less than a microsecond", err, pgsession.ErrInvalid)
	if after := w.row(t, token); after != before {
		t.Errorf("a refused write changed %s to %s", before, after)
	}
}

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

func TestTypedSessionsKeepTheirValues(t *testing.T) {
	t.Parallel()
	type cart struct{ Items []string }
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		ctx, typed := t.Context(), pgsession.JSON[cart](w)
		session := pgsession.TypedSession[cart]{Value: cart{[]string{"tea"}}}
		session.Subject = "ada"
		token, created, err := typed.Create(ctx, session)
		must(t, err)
		updated, err := typed.Update(ctx, token, func(s *pgsession.TypedSession[cart]) error {
			s.Value.Items = append(s.Value.Items, "milk")
			return nil
		})
		must(t, err)
		created.Value.Items = nil
		there, err := typed.Set(ctx, token, created)
		wantError(t, "set of an old version", err, pgsession.ErrConflict)
		got, err := typed.Get(ctx, token)
		must(t, err)
		for what, s := range map[string]pgsession.TypedSession[cart]{"update": updated, "conflict": there, "get": got} {
			if s.Subject != "ada" || s.Version != updated.Version || !reflect.DeepEqual(s.Value.Items, []string{"tea", "milk"}) {
				t.Errorf("%s: %+v", what, s)
			}
		}
		var items string
		w.scan(t, &items, `select v.data ->> 'Items' from {schema}.session_view as v`)
		if items != `["tea", "milk"]` {
			t.Errorf("the view shows %s", items)
		}

		fresh, err := typed.GetFresh(ctx, token)
		must(t, err)
		err = typed.View(ctx, token, func(lent pgsession.TypedSession[cart]) error {
			if !reflect.DeepEqual(lent.Value, fresh.Value) || len(lent.Value.Items) != 2 {
				t.Errorf("lent %+v, read %+v", lent, fresh)
			}
			return nil
		})
		must(t, err)
		other, _ := w.create(t, pgsession.Session{Data: []byte("no JSON")})
		n := 0
		for s, err := range typed.All(ctx, pgsession.Filter{}) {
			if n++; errors.Is(err, pgsession.ErrCodec) != (s.ID == w.id(t, other)) || err == nil && len(s.Value.Items) != 2 {
				t.Errorf("all has %+v, %v", s, err)
			}
		}
		if n != 2 {
			t.Errorf("all has %d sessions, want 2", n)
		}
		_, err = w.Destroy(ctx, other)
		must(t, err)

		w.exec(t, `update {table} as t set data = '{"Items": 1}' where t.revoked_at is null`)
		_, err = typed.Get(ctx, token)
		wantError(t, "get of other JSON", err, pgsession.ErrCodec)
		if err == nil || !strings.Contains(err.Error(), string(created.ID)) {
			t.Errorf("%v does not name the session", err)
		}
		_, err = typed.Update(ctx, token, func(*pgsession.TypedSession[cart]) error { panic("called") })
		wantError(t, "update of other JSON", err, pgsession.ErrCodec)
		w.exec(t, `update {table} as t set data = '' where t.revoked_at is null`)
		if empty, err := typed.Get(ctx, token); err != nil || empty.Value.Items != nil {
			t.Errorf("a session without data: %+v, %v; want the zero value", empty, err)
		}
		_, _, err = pgsession.JSON[chan int](w).Create(ctx, pgsession.TypedSession[chan int]{Value: make(chan int)})
		wantError(t, "a value that JSON cannot hold", err, pgsession.ErrCodec)
	})
}

func TestStatsCountWhatWasDone(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	ctx := t.Context()
	token, session := w.create(t, pgsession.Session{Subject: "ada"})
	_, err := w.Set(ctx, token, session)
	must(t, err)
	_, err = w.Set(ctx, token, pgsession.Session{Version: 1})
	wantError(t, "set", err, pgsession.ErrConflict)
	_, err = w.Update(ctx, token, func(s *pgsession.Session) error { s.Data = []byte("1"); return nil })
	must(t, err)
	_, err = w.Get(ctx, token)
	must(t, err)
	_, err = w.Touch(ctx, token)
	must(t, err)
	_, err = w.Revoke(ctx, pgsession.Revocation{Subject: "ada"})
	must(t, err)
	_, err = w.Destroy(ctx, token)
	must(t, err)
	w.age(t, time.Hour)
	_, err = w.store.Prune(ctx)
	must(t, err)
	want := pgsession.Stats{
		Gets: 2, Creates: 1, Sets: 4, Unchanged: 1, Conflicts: 1, Touches: 1, Destroys: 1, Revokes: 1, Pruned: 1,
	}
	if got := w.store.Stats(); got != want {
		t.Errorf("stats are %+v, want %+v", got, want)
	}
}
