package pgsession_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// keyOf is a key of that name, and of a secret of its own.
func keyOf(id string) pgsession.Key {
	return pgsession.Key{ID: id, Secret: secretOf(id)}
}

// secretOf makes 32 bytes of a name, in letters that can be looked for.
func secretOf(name string) pgsession.Secret {
	return pgsession.Secret(strings.Repeat(name+"-s3cr3t-", 32)[:32])
}

// encrypting is the codec with these keys.
func encrypting(tb testing.TB, ids ...string) pgsession.Codec {
	tb.Helper()
	var e pgsession.Encryption
	for _, id := range ids {
		e.Keys = append(e.Keys, keyOf(id))
	}
	codec, err := pgsession.Encrypt(e)
	if err != nil {
		tb.Fatal(err)
	}
	return codec
}

func TestEncryptedDataIsWhatItWasInEveryWay(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{Codec: encrypting(t, "k1")}, func(t *testing.T, w *way) {
		ctx := t.Context()
		const secret = "the plain text"
		for _, data := range []string{"", secret, strings.Repeat("\x00\xff"+secret, 1_000)} {
			token, created := w.create(t, pgsession.Session{Subject: "ada", Data: []byte(data), Codec: pgsession.CodecJSON})
			got, err := w.Get(ctx, token)
			if err != nil || string(got.Data) != data || got.Codec != pgsession.CodecEncrypted || !reflect.DeepEqual(got, withData(created)) {
				t.Fatalf("created %+v, got %+v, %v", created, got, err)
			}
			var stored []byte
			w.scan(t, &stored, `select t.data from {table} as t where t.id = $1::text and t.codec = 2`, string(got.ID))
			if bytes.Contains(stored, []byte("plain")) || len(stored) != len(data)+4+len("k1")+28 || !bytes.Contains(stored[:6], []byte("k1")) {
				t.Errorf("of %d bytes %d are stored, which begin with %x", len(data), len(stored), stored[:6])
			}
			updated, err := w.Update(ctx, token, func(s *pgsession.Session) error { s.Data = append(s.Data, '+'); return nil })
			if err != nil || string(updated.Data) != data+"+" {
				t.Fatalf("updated to %d bytes, %v", len(updated.Data), err)
			}
			there, err := w.Set(ctx, token, got)
			wantError(t, "set of an old version", err, pgsession.ErrConflict)
			if string(there.Data) != data+"+" {
				t.Errorf("the conflict shows %d bytes", len(there.Data))
			}
		}
		found := 0
		for s, err := range w.All(ctx, pgsession.Filter{Subject: "ada"}) {
			if found++; err != nil || !strings.HasSuffix(string(s.Data), "+") {
				t.Errorf("listed %+v, %v", s.ID, err)
			}
		}
		if found != 3 {
			t.Errorf("listed %d", found)
		}
	})
}

func TestTheSameDataIsNeverStoredAsTheSameBytes(t *testing.T) {
	t.Parallel()
	codec := encrypting(t, "k1")
	seen := map[string]bool{}
	for range 2_000 {
		stored, err := codec.Encode("id", []byte("data"))
		must(t, err)
		seen[string(stored[6:18])] = true // the nonce
	}
	if len(seen) != 2_000 {
		t.Errorf("%d nonces", len(seen))
	}
	w := onPool(t, pgsession.Config{Codec: codec})
	token, s := w.create(t, pgsession.Session{Data: []byte("data")})
	again, err := w.Set(t.Context(), token, s)
	if err != nil || again.Version <= s.Version {
		t.Errorf("a set of the same: %d after %d, %v", again.Version, s.Version, err)
	}
}

func TestKeysAreRotated(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{Codec: encrypting(t, "old")})
	ctx := t.Context()
	with := func(ids ...string) *pgsession.Store {
		return setUp(t, w.query, pgsession.Config{Schema: w.schema, Codec: encrypting(t, ids...)})
	}
	token, s := w.create(t, pgsession.Session{Data: []byte("data")})
	both := with("new", "old")
	got, err := both.Get(ctx, token)
	if err != nil || string(got.Data) != "data" {
		t.Fatalf("by the second key: %q, %v", got.Data, err)
	}
	_, err = with("new").Get(ctx, token)
	wantError(t, "without the old key", err, pgsession.ErrCodec)
	for _, part := range []string{`"old"`, string(s.ID), "Encryption.Keys"} {
		if !strings.Contains(fmt.Sprint(err), part) {
			t.Errorf("%v does not name %s", err, part)
		}
	}
	second, _, err := both.Create(ctx, pgsession.Session{Data: []byte("second")})
	must(t, err)
	_, err = both.Update(ctx, token, func(s *pgsession.Session) error { s.Data = []byte("changed"); return nil })
	must(t, err)
	for token, data := range map[pgsession.Token]string{token: "changed", second: "second"} {
		if got, err := with("new").Get(ctx, token); err != nil || string(got.Data) != data {
			t.Errorf("with the new key alone: %q, %v; want %q", got.Data, err, data)
		}
	}
	_, err = w.GetFresh(ctx, second)
	wantError(t, "an instance that lacks the new key", err, pgsession.ErrCodec)
}

func TestAWrongKeyIsAnErrorThatNamesItAndShowsNoSecret(t *testing.T) {
	t.Parallel()
	mainWays(t, pgsession.Config{Codec: encrypting(t, "k1")}, func(t *testing.T, w *way) {
		ctx := t.Context()
		token, s := w.create(t, pgsession.Session{Subject: "ada", Data: []byte("data")})
		before := w.row(t, token)
		wrong, err := pgsession.Encrypt(pgsession.Encryption{Keys: []pgsession.Key{{ID: "k1", Secret: secretOf("other")}}})
		must(t, err)
		other := pgsession.Sessions(setUp(t, w.query, pgsession.Config{Schema: w.schema, Codec: wrong}))
		if w.inTx {
			other = other.(*pgsession.Store).WithQuery(w.see)
		}
		for what, err := range map[string]error{
			"get":   errorOf(other.Get(ctx, token)),
			"view":  other.View(ctx, token, func(pgsession.Session) error { return nil }),
			"fresh": errorOf(other.GetFresh(ctx, token)),
			"update": errorOf(other.Update(ctx, token, func(*pgsession.Session) error {
				t.Error("called")
				return nil
			})),
			"renew": errorOf2(other.Renew(ctx, token, pgsession.Renewal{Subject: "eve"})),
			"typed": errorOf(pgsession.JSON[string](other).Get(ctx, token)),
		} {
			wantError(t, what, err, pgsession.ErrCodec)
			text := fmt.Sprint(err)
			if !strings.Contains(text, `"k1"`) || !strings.Contains(text, string(s.ID)) || strings.Contains(text, "s3cr3t") {
				t.Errorf("%s: %s", what, text)
			}
		}
		if after := w.row(t, token); after != before {
			t.Errorf("what could not be read was changed from %s to %s", before, after)
		}
		if got, err := w.Get(ctx, token); err != nil || string(got.Data) != "data" {
			t.Errorf("by the right key: %q, %v", got.Data, err)
		}
	})
}

func errorOf[T any](_ T, err error) error { return err }

func errorOf2[T, U any](_ T, _ U, err error) error { return err }

func TestWhoCanWriteToTheTableCannotSwapOrChangeData(t *testing.T) {
	t.Parallel()
	mainWays(t, pgsession.Config{Codec: encrypting(t, "k1"), RefuseClear: true}, func(t *testing.T, w *way) {
		ctx := t.Context()
		mine, a := w.create(t, pgsession.Session{Subject: "eve", Data: []byte("visitor")})
		_, b := w.create(t, pgsession.Session{Subject: "root", Data: []byte("admin")})
		good, _ := w.create(t, pgsession.Session{Data: []byte("good")})
		for what, attack := range map[string]string{
			"another's data":      `update {table} as t set data = o.data from {table} as o where t.id = $1::text and o.id = $2::text`,
			"a bit":               `update {table} as t set data = set_bit(t.data, octet_length(t.data) * 8 - 1, 1 - get_bit(t.data, octet_length(t.data) * 8 - 1)) where t.id = $1::text and $2::text <> ''`,
			"an end":              `update {table} as t set data = substr(t.data, 1, octet_length(t.data) - 1) where t.id = $1::text and $2::text <> ''`,
			"nothing":             `update {table} as t set data = '' where t.id = $1::text and $2::text <> ''`,
			"another key's name":  `update {table} as t set data = set_byte(t.data, 5, 50) where t.id = $1::text and $2::text <> ''`,
			"data in clear":       `update {table} as t set data = 'admin', codec = 0 where t.id = $1::text and $2::text <> ''`,
			"nothing, in clear":   `update {table} as t set data = '', codec = 0 where t.id = $1::text and $2::text <> ''`,
			"data in clear, JSON": `update {table} as t set data = '{}', codec = 1 where t.id = $1::text and $2::text <> ''`,
		} {
			w.exec(t, attack, string(a.ID), string(b.ID))
			got, err := w.Get(ctx, mine)
			wantError(t, what, err, pgsession.ErrCodec)
			if len(got.Data) > 0 || !strings.Contains(fmt.Sprint(err), string(a.ID)) {
				t.Errorf("%s: got %q, %v", what, got.Data, err)
			}
			failed := 0
			for s, err := range w.All(ctx, pgsession.Filter{}) {
				if err != nil {
					failed++
					wantError(t, what+": listed", err, pgsession.ErrCodec)
				} else if s.ID == a.ID {
					t.Errorf("%s: listed %q", what, s.Data)
				}
			}
			if got, err := w.Get(ctx, good); failed != 1 || err != nil || string(got.Data) != "good" {
				t.Errorf("%s: %d failed, and another one is %q, %v", what, failed, got.Data, err)
			}
			_, err = w.Set(ctx, mine, pgsession.Session{Subject: "eve", Data: []byte("visitor")})
			must(t, err)
		}
	})
}

// What the README says that it does not do, so that nobody relies on it.
func TestWhatEncryptionDoesNotPrevent(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{Codec: encrypting(t, "k1"), RefuseClear: true, Peppers: peppered("pepper")})
	ctx := t.Context()
	mine, a := w.create(t, pgsession.Session{Subject: "eve", Data: []byte("unpaid")})
	_, b := w.create(t, pgsession.Session{Subject: "root", Data: []byte("admin")})
	w.exec(t, `create table {schema}.copy as select t.id, t.data from {table} as t`)
	_, err := w.Set(ctx, mine, pgsession.Session{Subject: "eve", Data: []byte("banned")})
	must(t, err)
	for _, attack := range []struct{ what, statement, subject, data string }{
		{"a subject", `update {table} set subject = 'root' where id = $1::text and $2::text <> ''`, "root", "banned"},
		{"what was before", `update {table} as t set data = c.data from {schema}.copy as c where c.id = t.id and t.id = $1::text and $2::text <> ''`, "root", "unpaid"},
		{"another's", `update {table} set revoked_at = now(), renewed_to = $2::text, absolute_expires_at = null where id = $1::text`, "root", "admin"},
	} {
		w.exec(t, attack.statement, string(a.ID), string(b.ID))
		if got, err := w.Get(ctx, mine); err != nil || got.Subject != attack.subject || string(got.Data) != attack.data {
			t.Errorf("%s: %q of %q, %v: the README is to say that it is prevented", attack.what, got.Data, got.Subject, err)
		}
	}
}

func TestEveryBitOfWhatIsStoredIsAuthenticated(t *testing.T) {
	t.Parallel()
	codec := encrypting(t, "k1", "k2")
	stored, err := codec.Encode("id", []byte("the data"))
	must(t, err)
	for i := range len(stored) * 8 {
		damaged := bytes.Clone(stored)
		damaged[i/8] ^= 1 << (i % 8)
		if data, err := codec.Decode("id", damaged); err == nil || len(data) > 0 {
			t.Errorf("bit %d: %q, %v", i, data, err)
		}
	}
	for i := range stored {
		if data, err := codec.Decode("id", stored[:i]); err == nil || len(data) > 0 {
			t.Errorf("cut off at %d: %q", i, data)
		}
	}
	for _, id := range []pgsession.ID{"", "i", "id ", "di"} {
		if data, err := codec.Decode(id, stored); err == nil || len(data) > 0 {
			t.Errorf("of %q: %q", id, data)
		}
	}
	if data, err := codec.Decode("id", stored); err != nil || string(data) != "the data" {
		t.Errorf("as it was: %q, %v", data, err)
	}
}

func TestDataInClearIsReadAndThenEncrypted(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	ctx := t.Context()
	token, _ := w.create(t, pgsession.Session{Data: []byte(`{"a":1}`), Codec: pgsession.CodecJSON})
	empty, _ := w.create(t, pgsession.Session{})
	codec := encrypting(t, "k1")
	strict := setUp(t, w.query, pgsession.Config{Schema: w.schema, Codec: codec, RefuseClear: true})
	_, err := strict.Get(ctx, token)
	wantError(t, "in clear, where that is refused", err, pgsession.ErrCodec)
	_, err = strict.Get(ctx, empty) // that there is nothing is not authenticated either
	wantError(t, "nothing, in clear", err, pgsession.ErrCodec)
	store := setUp(t, w.query, pgsession.Config{Schema: w.schema, Codec: codec})
	got, err := store.Get(ctx, token)
	if err != nil || string(got.Data) != `{"a":1}` || got.Codec != pgsession.CodecJSON {
		t.Fatalf("in clear: %+v, %v", got, err)
	}
	got, err = store.Set(ctx, token, got)
	if err != nil || got.Codec != pgsession.CodecEncrypted {
		t.Fatalf("written anew: %+v, %v", got, err)
	}
	if got, err = strict.Get(ctx, token); err != nil || string(got.Data) != `{"a":1}` {
		t.Errorf("encrypted: %q, %v", got.Data, err)
	}
	// And back: it is read as long as the codec stands in Decoders.
	back := setUp(t, w.query, pgsession.Config{Schema: w.schema, Decoders: []pgsession.Codec{codec}})
	if got, err = back.Get(ctx, token); err != nil || string(got.Data) != `{"a":1}` {
		t.Errorf("by a decoder: %q, %v", got.Data, err)
	}
}

func TestAnyCodecIsEncrypted(t *testing.T) {
	t.Parallel()
	codecOf := func(e pgsession.Encryption) pgsession.Codec {
		e.Keys = []pgsession.Key{keyOf("k1")}
		codec, err := pgsession.Encrypt(e)
		must(t, err)
		return codec
	}
	first := codecOf(pgsession.Encryption{Codec: mask(100)})
	w := onPool(t, pgsession.Config{Codec: first})
	token, _ := w.create(t, pgsession.Session{Data: []byte("hello")})
	if got, err := w.Get(t.Context(), token); err != nil || string(got.Data) != "hello" {
		t.Errorf("got %q, %v", got.Data, err)
	}
	_, _, err := w.Create(t.Context(), pgsession.Session{Data: []byte("unspeakable")})
	wantError(t, "what the inner codec cannot code", err, pgsession.ErrCodec, errUnspeakable)
	stored, err := first.Encode("id", []byte("hello"))
	must(t, err)
	if data, err := codecOf(pgsession.Encryption{Codec: mask(101), Decoders: []pgsession.Codec{mask(100)}}).Decode("id", stored); err != nil || string(data) != "hello" {
		t.Errorf("by the codec of before: %q, %v", data, err)
	}
	if _, err = codecOf(pgsession.Encryption{}).Decode("id", stored); err == nil || !strings.Contains(err.Error(), "codec 100") {
		t.Errorf("without it: %v", err)
	}
}

// Another language reads, writes and renews what is encrypted: by the README's words alone.
func TestWhatIsStoredIsAsTheREADMESays(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{Codec: encrypting(t, "k1", "k2")})
	token, s := w.create(t, pgsession.Session{Data: []byte("by Go")})
	block, err := aes.NewCipher(keyOf("k1").Secret)
	must(t, err)
	gcm, err := cipher.NewGCM(block)
	must(t, err)
	var stored []byte
	w.scan(t, &stored, `select t.data from {table} as t`)
	head, rest := stored[:6], stored[6:]
	if string(head) != "\x01\x00\x00\x02k1" {
		t.Errorf("it begins with %q", head)
	}
	data, err := gcm.Open(nil, rest[:12], rest[12:], append(bytes.Clone(head), s.ID...))
	if err != nil || string(data) != "by Go" {
		t.Errorf("read %q, %v", data, err)
	}
	code := func(id, data string) []byte {
		nonce := make([]byte, 12)
		_, _ = rand.Read(nonce)
		return gcm.Seal(append(bytes.Clone(head), nonce...), nonce, []byte(data), append(bytes.Clone(head), id...))
	}
	w.exec(t, `select {schema}.session_set($1::text, $2::bytea, 2)`, string(s.ID), code(string(s.ID), "by another"))
	got, err := w.Get(t.Context(), token)
	if err != nil || string(got.Data) != "by another" {
		t.Errorf("got %q, %v", got.Data, err)
	}
	next := pgsession.Token("its own new token")
	id := string(w.id(t, next))
	var status string
	w.scan(t, &status, `select r.status from {schema}.session_renew($1::text, $2::text, p_data => $3::bytea, p_codec => 2, p_version => $4) as r`,
		string(got.ID), id, code(id, "renewed"), got.Version)
	if got, err = w.Get(t.Context(), next); err != nil || status != "updated" || string(got.Data) != "renewed" {
		t.Errorf("%s: got %q, %v", status, got.Data, err)
	}
	var keys string
	w.scan(t, &keys, `select string_agg(k.key || ' ' || k.count, ', ') from (
		select convert_from(substr(data, 5, get_byte(data, 3)), 'UTF8') as key, count(*)
		  from {table} where codec = 2 and revoked_at is null group by 1) as k`)
	if keys != "k1 1" {
		t.Errorf("the keys are %q", keys)
	}
}

func TestABadEncryptionIsRefused(t *testing.T) {
	t.Parallel()
	good := keyOf("k1")
	for want, e := range map[string]pgsession.Encryption{
		"Keys is empty":          {},
		"number 0":               {Keys: []pgsession.Key{{Secret: good.Secret}}},
		"1 to 32 bytes":          {Keys: []pgsession.Key{{ID: strings.Repeat("x", 33), Secret: good.Secret}}},
		"of UTF-8":               {Keys: []pgsession.Key{{ID: "\xff", Secret: good.Secret}}},
		"of 0 bytes":             {Keys: []pgsession.Key{{ID: "k1"}}},
		"of 16 bytes":            {Keys: []pgsession.Key{good, {ID: "k2", Secret: good.Secret[:16]}}},
		"of 64 bytes":            {Keys: []pgsession.Key{{ID: "k1", Secret: append(good.Secret[:32:32], good.Secret...)}}},
		"the ID of another":      {Keys: []pgsession.Key{good, good}},
		"Encryption.Decoders":    {Keys: []pgsession.Key{good}, Decoders: []pgsession.Codec{nil}},
		"Encryption.Codec":       {Keys: []pgsession.Key{good}, Codec: mask(99)},
		"encrypt already":        {Keys: []pgsession.Key{good}, Codec: encrypting(t, "k1")},
		"another codec has the ": {Keys: []pgsession.Key{good}, Codec: mask(100), Decoders: []pgsession.Codec{mask(100)}},
	} {
		codec, err := pgsession.Encrypt(e)
		wantError(t, want, err, pgsession.ErrInvalid)
		if codec != nil || !strings.Contains(fmt.Sprint(err), want) || strings.Contains(fmt.Sprint(err), "s3cr3t") {
			t.Errorf("%s: %v, %v", want, codec, err)
		}
	}
	for _, cfg := range []pgsession.Config{
		{RefuseClear: true}, {Codec: encrypting(t, "k1"), Decoders: []pgsession.Codec{encrypting(t, "k2")}},
	} {
		_, err := pgsession.New(pgtest.Pool(t).Query, cfg)
		wantError(t, "New", err, pgsession.ErrInvalid)
	}
}

func TestASecretIsNeverPrinted(t *testing.T) {
	t.Parallel()
	key := keyOf("k1")
	cfg := pgsession.Config{Codec: encrypting(t, "k1"), Peppers: []pgsession.Secret{secretOf("p1")}}
	store, err := pgsession.New(pgtest.Pool(t).Query, cfg)
	must(t, err)
	hidden := fmt.Sprintf("%x", "s3cr3t")
	for name, value := range map[string]any{
		"secret": key.Secret, "key": key, "pointer": &key, "encryption": pgsession.Encryption{Keys: []pgsession.Key{key}},
		"config": store.Config(), "codec": cfg.Codec, "peppers": cfg.Peppers,
	} {
		var b bytes.Buffer
		for _, verb := range strings.Split("vTtbcdoOqxXUeEfFgGsyz", "") {
			for _, flags := range []string{"", "+", "#", " "} {
				fmt.Fprintf(&b, "%"+flags+verb+"\n", value)
			}
		}
		slog.New(slog.NewTextHandler(&b, nil)).Info("message", slog.Any("value", value))
		slog.New(slog.NewJSONHandler(&b, nil)).Info("message", slog.Any("value", value))
		text, _ := json.Marshal(value) // of a Config it is an error
		b.Write(text)
		shown := strings.ToLower(strings.NewReplacer(" ", "", "0x", "", ",", "").Replace(b.String()))
		for _, form := range []string{"s3cr3t", hidden, "1155199"} {
			if strings.Contains(shown, strings.ToLower(form)) {
				t.Errorf("%s shows %s", name, form)
			}
		}
	}
}

func TestPatchOverAnEncryptingCodecIsAClearError(t *testing.T) {
	t.Parallel()
	codec := encrypting(t, "k1")
	mainWays(t, pgsession.Config{Codec: codec}, func(t *testing.T, w *way) {
		token, s := w.create(t, pgsession.Session{Data: []byte(`{"a":1}`)})
		_, err := w.Patch(t.Context(), token, []byte(`{"a":2}`))
		wantError(t, "patch", err, pgsession.ErrCodec)
		if !strings.Contains(fmt.Sprint(err), "Config.Codec") {
			t.Errorf("%v", err)
		}
		if w.inTx {
			return
		}
		// Where Config.Codec is none it is the server that finds out.
		reads := setUp(t, w.query, pgsession.Config{Schema: w.schema, Decoders: []pgsession.Codec{codec}})
		_, err = reads.Patch(t.Context(), token, []byte(`{"a":2}`))
		wantError(t, "patch", err, pgsession.ErrCodec)
		if !strings.Contains(fmt.Sprint(err), "codec 2") || !strings.Contains(fmt.Sprint(err), string(s.ID)) {
			t.Errorf("%v", err)
		}
		if got, err := w.Get(t.Context(), token); err != nil || got.Version != s.Version || string(got.Data) != `{"a":1}` {
			t.Errorf("it became %+v, %v", got, err)
		}
	})
}

func TestExpiredSessionsAreDecryptedForTheHook(t *testing.T) {
	t.Parallel()
	var pruned []string
	w := onPool(t, pgsession.Config{Codec: encrypting(t, "k1")})
	token, _ := w.create(t, pgsession.Session{Data: []byte("data"), IdleTimeout: time.Minute})
	token, _ = w.renew(t, token, "ada")
	w.age(t, time.Hour, token)
	hooked, err := pgsession.New(w.query, pgsession.Config{
		Schema: w.schema, Codec: encrypting(t, "k1"),
		Cleanup: pgsession.Cleanup{Mode: pgsession.CleanupOff, OnPrune: func(_ context.Context, sessions []pgsession.PrunedSession) error {
			for _, s := range sessions {
				must(t, s.Err)
				pruned = append(pruned, string(s.Data))
			}
			return nil
		}},
	})
	must(t, err)
	_, err = hooked.Prune(t.Context())
	must(t, err)
	if !reflect.DeepEqual(pruned, []string{"data"}) {
		t.Errorf("the hook got %q", pruned)
	}
}
