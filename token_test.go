package pgsession_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/pgsession/pgsession"
)

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

// Nothing that a client could know or guess is in a token: none of its 256 bits is always the same.
func TestEveryBitOfATokenIsRandom(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	var ones, zeros [32]byte
	look := func(token pgsession.Token) {
		raw, err := base64.RawURLEncoding.Strict().DecodeString(string(token))
		if err != nil || len(raw) != len(ones) {
			t.Fatalf("a token of %d bytes, %v", len(raw), err)
		}
		for i, b := range raw {
			ones[i] |= b
			zeros[i] |= ^b
		}
	}
	for range 50 { // that a bit is the same in a hundred has a chance of 2^-91
		token, _ := w.create(t, pgsession.Session{})
		next, _ := w.renew(t, token, "")
		look(token)
		look(next)
	}
	for i := range ones {
		if ones[i]&zeros[i] != 0xff {
			t.Errorf("in byte %d the bits %08b are always the same", i, ^(ones[i] & zeros[i]))
		}
	}
}

func TestAnIDIsNoToken(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		ctx := t.Context()
		token, s := w.create(t, pgsession.Session{Subject: "ada", Data: []byte(`{}`), Codec: pgsession.CodecJSON})
		id, before := pgsession.Token(s.ID), w.row(t, token)
		_, err := w.Get(ctx, id)
		wantError(t, "get", err, pgsession.ErrNotFound)
		_, err = w.Set(ctx, id, s)
		wantError(t, "set", err, pgsession.ErrNotFound)
		_, err = w.Update(ctx, id, func(*pgsession.Session) error { panic("called") })
		wantError(t, "update", err, pgsession.ErrNotFound)
		_, err = w.Patch(ctx, id, []byte(`{"a":1}`))
		wantError(t, "patch", err, pgsession.ErrNotFound)
		_, err = w.Touch(ctx, id)
		wantError(t, "touch", err, pgsession.ErrNotFound)
		_, _, err = w.Renew(ctx, id, pgsession.Renewal{Subject: "eve"})
		wantError(t, "renew", err, pgsession.ErrNotFound)
		if n, err := w.Destroy(ctx, id); n != 0 || err != nil {
			t.Errorf("destroyed %d, %v", n, err)
		}
		if after := w.row(t, token); after != before {
			t.Errorf("the session was %s and is %s", before, after)
		}
	})
}
