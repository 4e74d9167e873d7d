package pgsession_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// mergePatches are the test cases of https://www.rfc-editor.org/rfc/rfc7396#appendix-A
var mergePatches = []struct{ original, patch, result string }{
	{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
	{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
	{`{"a":"b"}`, `{"a":null}`, `{}`},
	{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
	{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
	{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
	{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
	{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
	{`["a","b"]`, `["c","d"]`, `["c","d"]`},
	{`{"a":"b"}`, `["c"]`, `["c"]`},
	{`{"a":"foo"}`, `null`, `null`},
	{`{"a":"foo"}`, `"bar"`, `"bar"`},
	{`{"e":null}`, `{"a":1}`, `{"e":null,"a":1}`},
	{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
	{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
}

// sameJSON compares two JSON texts by what they say.
func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	must(t, json.Unmarshal([]byte(a), &x))
	must(t, json.Unmarshal([]byte(b), &y))
	return reflect.DeepEqual(x, y)
}

func TestPatchIsTheRFCs(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		for i, c := range mergePatches {
			token, s := w.create(t, pgsession.Session{Subject: "ada", Data: []byte(c.original), Codec: pgsession.CodecJSON})
			patched, err := w.Patch(t.Context(), token, []byte(c.patch))
			if err != nil || !sameJSON(t, string(patched.Data), c.result) {
				t.Errorf("%s patched by %s is %s, %v; want %s", c.original, c.patch, patched.Data, err, c.result)
				continue
			}
			if patched.ID != s.ID || patched.Subject != "ada" || patched.Codec != pgsession.CodecJSON || patched.Version <= s.Version {
				t.Errorf("case %d: it was %+v and is %+v", i, s, patched)
			}
			if got, err := w.Get(t.Context(), token); err != nil || string(got.Data) != string(patched.Data) || got.Version != patched.Version {
				t.Errorf("case %d: got %+v, %v; want %+v", i, got, err, patched)
			}
		}
	})
}

func TestPatchKeepsNumbersToTheLastDigit(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	const original = `{"n":12345678901234567890.1234567890,"e":1e3,"k":{"z":1,"a":2}, "k2":[1.50,-0.0]}`
	token, _ := w.create(t, pgsession.Session{Data: []byte(original), Codec: pgsession.CodecJSON})
	s, err := w.Patch(t.Context(), token, []byte(`{"m":0.10}`))
	const want = `{"e": 1000, "k": {"a": 2, "z": 1}, "m": 0.10, "n": 12345678901234567890.1234567890, "k2": [1.50, 0.0]}`
	if err != nil || string(s.Data) != want {
		t.Errorf("patched to %s, %v; want %s", s.Data, err, want)
	}
}

func TestAPatchThatChangesNothingIsATouch(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{TouchInterval: 1000}, func(t *testing.T, w *way) {
		const original = `{"b": {"c":1}, "a":2.0}`
		token, s := w.create(t, pgsession.Session{Data: []byte(original), Codec: pgsession.CodecJSON})
		patched, err := w.Patch(t.Context(), token, []byte(`{"b":{"c":1.0,"d":null},"x":null}`))
		if err != nil || patched.Version != s.Version || string(patched.Data) != original || !patched.ExpiresAt.After(s.ExpiresAt) {
			t.Errorf("it was %+v and is %+v, %v", s, patched, err)
		}
	})
}

func TestAPatchOfASessionWithoutDataMakesItJSON(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		token, _ := w.create(t, pgsession.Session{})
		s, err := w.Patch(t.Context(), token, []byte(`{"a":{"b":1,"c":null}}`))
		if err != nil || string(s.Data) != `{"a": {"b": 1}}` || s.Codec != pgsession.CodecJSON {
			t.Errorf("patched to %+v, %v", s, err)
		}
	})
}

func TestPatchRefusesWhatItCannotDo(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{MaxDataSize: 300}, func(t *testing.T, w *way) {
		ctx := t.Context()
		token, _ := w.create(t, pgsession.Session{Data: []byte(`{"a":"` + strings.Repeat("x", 250) + `"}`), Codec: pgsession.CodecJSON})
		opaque, _ := w.create(t, pgsession.Session{Data: []byte(`{"a":1}`)})
		corrupt, _ := w.create(t, pgsession.Session{Data: []byte(`{}`), Codec: pgsession.CodecJSON})
		w.exec(t, `update {table} set data = convert_to('{"a":', 'UTF8') where id = $1::text`, string(w.id(t, corrupt)))
		nul, _ := w.create(t, pgsession.Session{Data: []byte(`{"a":"\u0000"}`), Codec: pgsession.CodecJSON})
		ended, _ := w.create(t, pgsession.Session{Data: []byte(`{}`), Codec: pgsession.CodecJSON})
		_, err := w.Destroy(ctx, ended)
		must(t, err)
		for _, c := range []struct {
			what  string
			token pgsession.Token
			patch string
			err   error
			says  string
		}{
			{"no JSON", token, `{"a":`, pgsession.ErrInvalid, "not valid JSON"},
			{"nothing", token, ``, pgsession.ErrInvalid, "not valid JSON"},
			{"two values", token, `{} {}`, pgsession.ErrInvalid, "not valid JSON"},
			{"a NUL", token, `{"a":"\u0000"}`, pgsession.ErrInvalid, `\u0000`},
			{"a NUL in a key", token, `{"\u0000":null}`, pgsession.ErrInvalid, `\u0000`},
			{"no UTF-8", token, "{\"a\":\"\xff\"}", pgsession.ErrInvalid, "not valid UTF-8"},
			{"large numbers", token, `{"a":[1e99,-1E+99,1.5e-99]}`, pgsession.ErrTooLarge, "numbers, written out"},
			{"a number beyond all", token, `{"a":1e99999999999}`, pgsession.ErrTooLarge, "numbers, written out"},
			{"too deep", token, strings.Repeat(`[`, 101) + strings.Repeat(`]`, 101), pgsession.ErrInvalid, "deeper than 100"},
			{"a patch that is too large", token, `{"b":"` + strings.Repeat("y", 300) + `"}`, pgsession.ErrTooLarge, "the patch has 308 bytes"},
			{"a result that is too large", token, `{"b":"` + strings.Repeat("y", 50) + `"}`, pgsession.ErrTooLarge, "more than 300 bytes"},
			{"of opaque data", opaque, `{"b":1}`, pgsession.ErrCodec, "codec 0"},
			{"of corrupt data", corrupt, `{"b":1}`, pgsession.ErrCodec, "no JSON that PostgreSQL can hold"},
			{"of data with a NUL", nul, `{"b":1}`, pgsession.ErrCodec, `\u0000`},
			{"of what is missing", "missing", `{}`, pgsession.ErrNotFound, "not found"},
			{"of what was ended", ended, `{}`, pgsession.ErrRevoked, "ended"},
		} {
			before := w.row(t, c.token)
			s, err := w.Patch(ctx, c.token, []byte(c.patch))
			wantError(t, c.what, err, c.err)
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v does not say %q", c.what, err, c.says)
			}
			if after := w.row(t, c.token); after != before || s.ID != "" {
				t.Errorf("%s: %s was changed to %s", c.what, before, after)
			}
		}
		_, err = w.Patch(ctx, opaque, []byte(strings.Repeat(`[`, 100)+strings.Repeat(`]`, 100)))
		wantError(t, "as deep as may be, of opaque data", err, pgsession.ErrCodec)
	})
}

// Its log would show a part of the patch.
func TestWhatTheServerWouldRefuseOfAPatchIsNotSent(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	sent := &recorder{next: w.query}
	store := setUp(t, sent.query, pgsession.Config{Schema: w.schema})
	token, _, err := store.Create(t.Context(), pgsession.Session{Data: []byte(`{}`), Codec: pgsession.CodecJSON})
	must(t, err)
	for _, value := range []string{
		`1e131071`, `-1e131072`, `9.9E+131071`, `10e131071`, `0.1e131072`, `0.01e131074`, `00`, `0e131080`, `-0.0e131080`,
		`1e-16383`, `1e-16384`, `0.1e-16382`, `0.1e-16383`, `0e-16384`, `0.0e-16383`, `123e-16384`, `0.` + strings.Repeat("0", 16384),
		`1` + strings.Repeat("0", 131072), `1` + strings.Repeat("0", 131071) + `e0`,
		`"\ud83d\ude00"`, `"\uD83D\uDE00\u00e5"`, `"\ud83d"`, `"\ude00"`, `"\ud83d\ud83d\ude00"`, `"\ude00\ud83d"`, `"\ud83dx"`, `"\ud83d\n"`,
		`"\ud83d\\ude00"`, `"\\ud83d"`, `"\\\ud83d"`, `{"\udfff":1}`, `"\ud7ff\ue000"`,
	} {
		var size int
		known := w.admin.QueryRow(t.Context(), `select octet_length($1::text::jsonb::text)`, value).Scan(&size)
		calls := len(sent.calls)
		_, err := store.Patch(t.Context(), token, []byte(`{"a":`+value+`}`))
		if (err == nil) != (known == nil) {
			t.Errorf("%.40s: %v; by the server: %v", value, err, known)
		}
		if err != nil {
			wantError(t, value, err, pgsession.ErrInvalid)
			if len(sent.calls) != calls {
				t.Errorf("%.40s was sent", value)
			}
		}
	}
}

func TestAPatchOfNumbersThatAreLargeWrittenOutIsRefusedBeforeTheyAre(t *testing.T) {
	t.Parallel()
	mainWays(t, pgsession.Config{}, func(t *testing.T, w *way) {
		ctx := t.Context()
		stored := `{"a":[1e131071` + strings.Repeat(`,1e131071`, 9999) + `]}` // more than a gigabyte
		token, s := w.create(t, pgsession.Session{Data: []byte(stored), Codec: pgsession.CodecJSON})
		_, err := w.Patch(ctx, token, []byte(`{"b":1}`))
		wantError(t, "a member more", err, pgsession.ErrTooLarge)
		same, err := w.Patch(ctx, token, []byte(`{}`)) // a transaction goes on
		if err != nil || same.Version != s.Version || string(same.Data) != stored {
			t.Errorf("patched by nothing: version %d, %v; want %d", same.Version, err, s.Version)
		}
		s, err = w.Patch(ctx, token, []byte(`{"a":[1e10,"1e131071",-1e-20]}`))
		if want := `{"a": [10000000000, "1e131071", -0.00000000000000000001]}`; err != nil || string(s.Data) != want {
			t.Errorf("patched to %s, %v; want %s", s.Data, err, want)
		}
	})
}

func TestPatchRefusesACodecThatTheServerCannotRead(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	sent := &recorder{next: w.query}
	store := setUp(t, sent.query, pgsession.Config{Schema: w.schema, Codec: mask(100)})
	token, _, err := store.Create(t.Context(), pgsession.Session{Data: []byte(`{}`)})
	must(t, err)
	calls := len(sent.calls)
	_, err = store.Patch(t.Context(), token, []byte(`{}`))
	wantError(t, "patch", err, pgsession.ErrCodec)
	if len(sent.calls) != calls {
		t.Error("something was sent")
	}
	// Nor one that was written by another instance's.
	reader := setUp(t, w.query, pgsession.Config{Schema: w.schema})
	_, err = reader.Patch(t.Context(), token, []byte(`{}`))
	wantError(t, "patch of another's", err, pgsession.ErrCodec)
}

func TestPatchesOfTwoTabsBothHappen(t *testing.T) {
	t.Parallel()
	everyStore(t, pgsession.Config{}, func(t *testing.T, w *way) {
		token, _ := w.create(t, pgsession.Session{Data: []byte(`{"kept":true}`), Codec: pgsession.CodecJSON})
		const tabs = 30
		crowd(tabs, func(i int) {
			if _, err := w.Patch(t.Context(), token, fmt.Appendf(nil, `{"tabs":{"%d":%d}}`, i, i)); err != nil {
				t.Error(err)
			}
		})
		got, err := w.Get(t.Context(), token)
		must(t, err)
		var data struct {
			Kept bool
			Tabs map[string]int
		}
		must(t, json.Unmarshal(got.Data, &data))
		if !data.Kept || len(data.Tabs) != tabs || data.Tabs[strconv.Itoa(tabs-1)] != tabs-1 {
			t.Errorf("got %s", got.Data)
		}
	})
}

func TestAPatchIsHeardByOthersAndWaitsInATransaction(t *testing.T) {
	t.Parallel()
	for name, mode := range map[string]pgsession.NotifyMode{
		"grouped": pgsession.NotifyGrouped, "in the transaction": pgsession.NotifyInTx,
	} {
		w := onPool(t, pgsession.Config{Notify: mode, Lock: pgsession.LockFail})
		e := listenTo(t, pgtest.URL(t), channelOf(w.schema, "session"))
		token, _ := w.create(t, pgsession.Session{Data: []byte(`{}`), Codec: pgsession.CodecJSON})
		tx := w.begin(t)
		inside, err := w.store.WithQuery(tx.query).Patch(t.Context(), token, []byte(`{"a":1}`))
		must(t, err)
		e.expect(t, name+": before the commit")
		patched := make(chan pgsession.Session)
		go func() {
			defer close(patched)
			s, err := w.Patch(t.Context(), token, []byte(`{"b":2}`))
			if err != nil {
				t.Error(err)
			}
			patched <- s
		}()
		w.awaitWaiting(t, 1) // also in LockFail: a patch that is not applied would be lost
		must(t, tx.commit())
		outside := <-patched
		if string(outside.Data) != `{"a": 1, "b": 2}` {
			t.Errorf("%s: patched to %s", name, outside.Data)
		}
		e.expect(t, name, payloadOf(inside), payloadOf(outside))
	}
}

func TestAPatchByAnOldTokenReachesItsSession(t *testing.T) {
	t.Parallel()
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		old, _ := w.create(t, pgsession.Session{Data: []byte(`{}`), Codec: pgsession.CodecJSON})
		token, renewed := w.renew(t, old, "")
		s, err := w.Patch(t.Context(), old, []byte(`{"a":1}`))
		if err != nil || s.ID != renewed.ID {
			t.Errorf("patched %s, %v; want %s", s.ID, err, renewed.ID)
		}
		if got, err := w.Get(t.Context(), token); err != nil || string(got.Data) != `{"a": 1}` {
			t.Errorf("got %s, %v", got.Data, err)
		}
		w.renew(t, token, "ada")
		_, err = w.Patch(t.Context(), old, []byte(`{"a":2}`))
		wantError(t, "after a login", err, pgsession.ErrRenewed)
	})
}

func TestTypedPatch(t *testing.T) {
	t.Parallel()
	type basket struct {
		Items int
		Note  string
	}
	w := onPool(t, pgsession.Config{})
	baskets := pgsession.JSON[basket](w)
	token, _, err := baskets.Create(t.Context(), pgsession.TypedSession[basket]{Value: basket{3, "gift"}})
	must(t, err)
	s, err := baskets.Patch(t.Context(), token, []byte(`{"Items":4}`))
	if err != nil || s.Value != (basket{4, "gift"}) {
		t.Errorf("patched to %+v, %v", s, err)
	}
	_, err = baskets.Patch(t.Context(), token, []byte(`{"Items":"four"}`))
	wantError(t, "another type", err, pgsession.ErrCodec)
	_, err = baskets.Patch(t.Context(), "missing", []byte(`{}`))
	wantError(t, "missing", err, pgsession.ErrNotFound)
}
