package pgsession_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// deviceColumns are what an application promotes, of many types.
var deviceColumns = []pgsession.Column{
	{Name: "user_agent", Type: "text"},
	{Name: "ip", Type: "inet"},
	{Name: "tenant", Type: "bigint"},
	{Name: "device", Type: "uuid"},
	{Name: "admin", Type: "boolean"},
	{Name: "seen", Type: "timestamptz"},
	{Name: "meta", Type: "jsonb"},
	{Name: "tags", Type: "text[]"},
}

func TestRevokeEndsTheSessionsWhoseColumnsItNames(t *testing.T) {
	t.Parallel()
	seen := time.Date(2030, 3, 31, 3, 30, 0, 0, time.FixedZone("", 2*60*60))
	device := "6b1e0a7c-1d1f-4c7e-9a53-000000000001"
	sessions := map[pgsession.Token]pgsession.Session{
		"a1": {Subject: "ada", Columns: map[string]any{
			"user_agent": "curl/8.0", "ip": netip.MustParseAddr("10.0.0.1"), "tenant": 7, "device": device, "admin": true,
			"seen": seen, "meta": json.RawMessage(`{"a": 1}`), "tags": []string{"x", `y,"z"`},
		}},
		"a2": {Subject: "ada", Columns: map[string]any{"ip": "10.0.0.2", "tenant": 7}},
		"a3": {Subject: "ada"},
		"b1": {Subject: "bob", Columns: map[string]any{"ip": "10.0.0.1", "tenant": 8, "admin": false}},
		"x1": {Columns: map[string]any{"tenant": 7}},
	}
	tokens := []pgsession.Token{"a1", "a2", "a3", "b1", "x1"}
	type columns = map[string]any
	check := func(t *testing.T, w *way, few bool) {
		ids := func(names ...pgsession.Token) (list []pgsession.ID) {
			for _, name := range names {
				list = append(list, w.id(t, name))
			}
			return list
		}
		for i, c := range []struct {
			pgsession.Revocation
			left string
			err  error
		}{
			{pgsession.Revocation{Subject: "ada", Columns: columns{"tenant": 7}}, "a3 b1 x1", nil},
			{pgsession.Revocation{Subject: "ada", Columns: columns{"ip": nil}}, "a1 a2 b1 x1", nil},
			{pgsession.Revocation{Subject: "ada", Columns: columns{"tenant": 7, "ip": "10.0.0.2"}, Except: ids("a1")}, "a1 a3 b1 x1", nil},
			{pgsession.Revocation{Subject: "ada", Columns: columns{"tenant": 7}, Except: ids("a1")}, "a1 a3 b1 x1", nil},
			{pgsession.Revocation{Subject: "ada", Columns: columns{"tenant": 9}}, "a1 a2 a3 b1 x1", nil},
			{pgsession.Revocation{IDs: ids("a1", "b1", "x1"), Columns: columns{"tenant": 7}}, "a2 a3 b1", nil},
			{pgsession.Revocation{IDs: ids("a1", "b1"), Subject: "bob", Columns: columns{"ip": "10.0.0.1"}}, "a1 a2 a3 x1", nil},
			{pgsession.Revocation{IDs: []pgsession.ID{}, Subject: "bob", Columns: columns{"ip": "10.0.0.1"}}, "a1 a2 a3 b1 x1", nil},
			{pgsession.Revocation{Columns: columns{"tenant": 7}}, "a1 a2 a3 b1 x1", pgsession.ErrInvalid},
			{pgsession.Revocation{Columns: columns{}}, "a1 a2 a3 b1 x1", pgsession.ErrInvalid},
			{pgsession.Revocation{Subject: "ada", Columns: columns{}}, "a1 a2 a3 b1 x1", pgsession.ErrInvalid},
			{pgsession.Revocation{Everyone: true, Columns: columns{}}, "a1 a2 a3 b1 x1", pgsession.ErrInvalid},
			{pgsession.Revocation{Everyone: true, Columns: columns{"tenant": 7}}, "a3 b1", nil},
			{pgsession.Revocation{Everyone: true, Columns: columns{"tenant": 7}, Except: ids("x1", "missing")}, "a3 b1 x1", nil},
			{pgsession.Revocation{Everyone: true, Columns: columns{"user_agent": "curl/8.0"}}, "a2 a3 b1 x1", nil},
			{pgsession.Revocation{Everyone: true, Columns: columns{"ip": net.ParseIP("10.0.0.1")}}, "a2 a3 x1", nil},
			{pgsession.Revocation{Everyone: true, Columns: columns{"ip": nil}}, "a1 a2 b1", nil},
			{pgsession.Revocation{Everyone: true, Columns: columns{"device": strings.ToUpper(device)}}, "a2 a3 b1 x1", nil},
			{pgsession.Revocation{Everyone: true, Columns: columns{"admin": false}}, "a1 a2 a3 x1", nil},
			{pgsession.Revocation{Everyone: true, Columns: columns{"seen": seen.UTC()}}, "a2 a3 b1 x1", nil},
			{pgsession.Revocation{Everyone: true, Columns: columns{"meta": json.RawMessage(` {"a":1}`)}}, "a2 a3 b1 x1", nil},
			{pgsession.Revocation{Everyone: true, Columns: columns{"tags": []string{"x", `y,"z"`}}}, "a2 a3 b1 x1", nil},
			{pgsession.Revocation{Everyone: true, Columns: columns{"unknown": 1}}, "a1 a2 a3 b1 x1", pgsession.ErrInvalid},
			{pgsession.Revocation{Everyone: true, Columns: columns{"tenant": "seven"}}, "a1 a2 a3 b1 x1", pgsession.ErrInvalid},
			{pgsession.Revocation{Subject: "ada", Columns: columns{"data": "x"}}, "a1 a2 a3 b1 x1", pgsession.ErrInvalid},
			{pgsession.Revocation{IDs: ids("a1"), Columns: columns{"ip": struct{}{}}}, "a1 a2 a3 b1 x1", pgsession.ErrInvalid},
		} {
			if few && i%6 != 0 || w.inTx && (c.Everyone || c.err != nil) {
				continue // refused in a transaction, or it would fail that
			}
			w.exec(t, `delete from {table}`)
			for token, s := range sessions {
				_, err := w.Set(t.Context(), token, s)
				must(t, err)
			}
			n, err := w.Revoke(t.Context(), c.Revocation)
			var left []string
			for _, token := range tokens {
				if _, err := w.Get(t.Context(), token); err == nil {
					left = append(left, string(token))
				}
			}
			if got := strings.Join(left, " "); got != c.left || n != 5-len(left) || !errors.Is(err, c.err) {
				t.Errorf("%+v: %d, %v, and left %s; want %s, %v", c.Revocation, n, err, got, c.left, c.err)
			}
		}
	}
	everyWay(t, pgsession.Config{Columns: deviceColumns}, func(t *testing.T, w *way) { check(t, w, true) })
	check(t, onPool(t, pgsession.Config{Columns: deviceColumns}), false)
}

func TestARevocationByColumnsIsHeardByIDs(t *testing.T) {
	t.Parallel()
	columns := []pgsession.Column{{Name: "tenant", Type: "int"}}
	store, pool, _ := listening(t, func(_ string, cfg *pgsession.Config) { cfg.Columns = columns })
	cfg := fastListening(pool.Config().ConnString())
	cfg.Columns = columns
	other := setUp(t, pool.Query, cfg)
	awaitLive(t, store)
	awaitLive(t, other)
	var heard diary
	other.Subscribe(heard.note)
	ctx := t.Context()
	both := []*pgsession.Store{store, other}
	hit := func(token pgsession.Token) {
		t.Helper()
		for _, by := range both {
			eventually(t, "it is served from the cache", func() bool {
				before := by.Stats().Cache.Hits
				_, err := by.Get(ctx, token)
				must(t, err)
				return by.Stats().Cache.Hits > before
			})
		}
	}
	for _, revocation := range []pgsession.Revocation{
		{Everyone: true, Columns: map[string]any{"tenant": 7}},
		{Subject: "ada", Columns: map[string]any{"tenant": 7}},
	} {
		token, s, err := store.Create(ctx, pgsession.Session{Subject: "ada", Columns: map[string]any{"tenant": 7}})
		must(t, err)
		kept, _, err := store.Create(ctx, pgsession.Session{Subject: "ada", Columns: map[string]any{"tenant": 8}})
		must(t, err)
		hit(token)
		hit(kept)
		before := []pgsession.CacheStats{store.Stats().Cache, other.Stats().Cache}
		n, err := store.RevokeAndWait(ctx, revocation)
		if n != 1 || err != nil {
			t.Fatalf("revoked %d, %v", n, err)
		}
		var version int64
		must(t, pool.QueryRow(ctx, `select version from pgsession.session where id = $1`, string(s.ID)).Scan(&version))
		// Others of the same subject stay where they are.
		for i, from := range both {
			_, err = from.Get(ctx, kept)
			must(t, err)
			before, after := before[i], from.Stats().Cache
			if after.Misses-after.NotLive != before.Misses-before.NotLive && after.Resets == before.Resets {
				t.Errorf("another session was dropped: %+v, and then %+v", before, after)
			}
		}
		for _, from := range both {
			_, err = from.Get(ctx, token)
			wantError(t, "get of what was revoked", err, pgsession.ErrNotFound)
		}
		heard.has(t, pgsession.Event{Kind: pgsession.EventRevoked, ID: s.ID, Version: version})
	}
	if n := heard.count(pgsession.EventSubjectRevoked); n != 0 {
		t.Errorf("%d events said that all of the subject's were", n)
	}
}

func TestWhatARevocationByColumnsNotifies(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{Columns: []pgsession.Column{{Name: "tenant", Type: "int"}}})
	e := listenTo(t, pgtest.URL(t), channelOf(w.schema, "session"))
	seven := map[string]any{"tenant": 7}
	for what, revocation := range map[string]func(id pgsession.ID) pgsession.Revocation{
		"everyone's":  func(pgsession.ID) pgsession.Revocation { return pgsession.Revocation{Everyone: true, Columns: seven} },
		"a subject's": func(pgsession.ID) pgsession.Revocation { return pgsession.Revocation{Subject: "ada", Columns: seven} },
		"by id": func(id pgsession.ID) pgsession.Revocation {
			return pgsession.Revocation{IDs: []pgsession.ID{id}, Columns: seven}
		},
	} {
		_, s := w.create(t, pgsession.Session{Subject: "ada", Columns: seven})
		w.create(t, pgsession.Session{Subject: "ada"})
		n, err := w.Revoke(t.Context(), revocation(s.ID))
		if n != 1 || err != nil {
			t.Errorf("%s: revoked %d, %v", what, n, err)
		}
		var version int64
		w.scan(t, &version, `select t.version from {table} as t where t.id = $1::text`, string(s.ID))
		e.expect(t, what, fmt.Sprintf(`{"v":1,"revoked":{"%s": %d}}`, s.ID, version))
		n, err = w.Revoke(t.Context(), revocation(s.ID))
		if n != 0 || err != nil {
			t.Errorf("%s, again: revoked %d, %v", what, n, err)
		}
		e.expect(t, what)
	}
}

func TestManyAreRevokedByColumnsInBatches(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{Columns: []pgsession.Column{{Name: "tenant", Type: "int"}}})
	w.seed(t, 12_000, "row", "ada", 1)
	w.seed(t, 10, "other", "ada", 1)
	w.exec(t, `update {table} set tenant = 7 where id in (
		select translate(rtrim(encode(sha256(convert_to('row' || i, 'UTF8')), 'base64'), '='), '+/', '-_') from generate_series(1, 12000) as i)`)
	// One that is renewed while it goes on may get an id that is passed already.
	var token pgsession.Token
	for i := range 12_000 {
		if next := seeded("row", i+1); token == "" || w.id(t, next) > w.id(t, token) {
			token = next
		}
	}
	calls := 0
	store := setUp(t, func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
		if strings.Contains(sql, "_revoke_all") {
			if calls++; calls == 2 {
				for id := pgsession.ID("z"); id > "A"; { // to one that was passed already
					var s pgsession.Session
					var err error
					token, s, err = w.Renew(ctx, token, pgsession.Renewal{})
					must(t, err)
					id = s.ID
				}
			}
		}
		return w.query(ctx, sql, args...)
	}, pgsession.Config{Schema: w.schema, Columns: []pgsession.Column{{Name: "tenant", Type: "int"}}})
	n, err := store.Revoke(t.Context(), pgsession.Revocation{Everyone: true, Columns: map[string]any{"tenant": 7}})
	if n != 12_000 || err != nil {
		t.Errorf("revoked %d, %v", n, err)
	}
	var largest int
	w.scan(t, &largest, `select max(n) from (select count(*) as n from {table} as t where t.revoked_at is not null
		and t.renewed_to is null group by t.revoked_at) as b`)
	if left, err := w.Count(t.Context(), pgsession.Filter{}); left != 10 || largest != 10_000 || err != nil {
		t.Errorf("%d are left, the largest batch was of %d, %v", left, largest, err)
	}
	_, err = w.Get(t.Context(), token)
	wantError(t, "the one that was renewed meanwhile", err, pgsession.ErrNotFound)
}

func TestWhoMayRevokeByColumns(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	setUp(t, pgtest.Connect(t, c.ownerAddress).Query, c.cfg)
	app := setUp(t, dial(t, c.appAddress, nil).Query, c.cfg)
	admin := setUp(t, dial(t, c.adminAddress, nil).Query, c.cfg)
	ctx := t.Context()
	columns := map[string]any{"ip": "10.0.0.1"}
	for range 2 {
		_, _, err := app.Create(ctx, pgsession.Session{Subject: "ada", Columns: columns})
		must(t, err)
		_, _, err = app.Create(ctx, pgsession.Session{Subject: "bob", Columns: columns})
		must(t, err)
	}
	_, err := app.Revoke(ctx, pgsession.Revocation{Everyone: true, Columns: columns})
	expectDenied(t, "everyone's, by the app", err)
	if n, err := app.Revoke(ctx, pgsession.Revocation{Subject: "ada", Columns: columns}); n != 2 || err != nil {
		t.Errorf("the app revoked %d of a subject, %v", n, err)
	}
	if n, err := admin.Revoke(ctx, pgsession.Revocation{Everyone: true, Columns: columns}); n != 2 || err != nil {
		t.Errorf("the admin revoked %d of everyone, %v", n, err)
	}
}

// A column that is promoted later, while instances that do not know it go on.
func TestAColumnThatIsAddedLaterIsWrittenFilteredOnAndRevokedBy(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	ctx := t.Context()
	token, s := w.create(t, pgsession.Session{Subject: "ada", Data: []byte("from before")})
	later := setUp(t, w.query, pgsession.Config{Schema: w.schema, Columns: deviceColumns})
	agent := map[string]any{"user_agent": "curl/8.0"}
	got, err := later.Get(ctx, token)
	if err != nil || got.Version != s.Version || string(got.Data) != "from before" || got.Columns["user_agent"] != nil || len(got.Columns) != len(deviceColumns) {
		t.Errorf("from before: %+v, %v", got, err)
	}
	_, err = later.Update(ctx, token, func(s *pgsession.Session) error { s.Columns = agent; return nil })
	must(t, err)
	// Who does not know it leaves it as it is, by Set, by Renew and by Setup.
	_, err = w.Update(ctx, token, func(s *pgsession.Session) error { s.Data = []byte("changed"); return nil })
	must(t, err)
	token, _ = w.renew(t, token, "")
	must(t, w.store.Setup(ctx))
	setUp(t, w.query, pgsession.Config{Schema: w.schema})
	if got, err = later.Get(ctx, token); err != nil || got.Columns["user_agent"] != "curl/8.0" || string(got.Data) != "changed" {
		t.Errorf("after the other's writes: %+v, %v", got, err)
	}
	if n, err := later.Count(ctx, pgsession.Filter{Columns: agent}); n != 1 || err != nil {
		t.Errorf("counted %d, %v", n, err)
	}
	if n, err := later.Revoke(ctx, pgsession.Revocation{Everyone: true, Columns: agent}); n != 1 || err != nil {
		t.Errorf("revoked %d, %v", n, err)
	}
	_, err = w.GetFresh(ctx, token)
	wantError(t, "get", err, pgsession.ErrNotFound)
}

func TestColumnsTakeGoValues(t *testing.T) {
	t.Parallel()
	text, none, at := "text", (*string)(nil), time.Date(2030, 3, 31, 1, 30, 0, 0, time.UTC)
	duration, number := 90*time.Minute, big.NewInt(12)
	_, network, err := net.ParseCIDR("10.0.0.0/8")
	must(t, err)
	type named []byte
	mainWays(t, pgsession.Config{Columns: []pgsession.Column{
		{Name: "text", Type: "text"},
		{Name: "texts", Type: "text[]"},
		{Name: "numbers", Type: "int8[]"},
		{Name: "n", Type: "numeric"},
		{Name: "raw", Type: "bytea"},
		{Name: "blobs", Type: "bytea[]"},
		{Name: "i", Type: "interval"},
		{Name: "t", Type: "timestamptz"},
		{Name: "ts", Type: "timestamptz[]"},
		{Name: "net", Type: "cidr"},
		{Name: "j", Type: "jsonb"},
		{Name: "b", Type: "boolean"},
		{Name: "ips", Type: "inet[]"},
	}}, func(t *testing.T, w *way) {
		for _, c := range []struct {
			name  string
			value any
			read  any
		}{
			{"text", &text, "text"},
			{"text", none, nil},
			{"text", sql.NullString{String: "text", Valid: true}, "text"},
			{"text", sql.NullString{}, nil},
			{"text", pgtype.Text{String: "text", Valid: true}, "text"},
			{"n", number, "12"},
			{"n", pgtype.Int8{Int64: 12, Valid: true}, "12"},
			{"b", sql.Null[bool]{V: true, Valid: true}, "true"},
			{"i", &duration, "01:30:00"},
			{"t", &at, "2030-03-31 01:30:00+00"},
			{"net", network, "10.0.0.0/8"},
			{"raw", named{0, 0xff}, `\x00ff`},
			{"raw", []byte(nil), nil},
			{"j", json.RawMessage(`{"a":[1]}`), `{"a": [1]}`},
			{"j", json.RawMessage(nil), nil},
			{"texts", []string{}, "{}"},
			{"texts", []string(nil), nil},
			{"texts", []string{"", "NULL", `a"b\c`, "{x},", " ", "\n", "å"}, `{"","NULL","a\"b\\c","{x},"," ","` + "\n" + `",å}`},
			{"texts", []*string{&text, nil}, "{text,NULL}"},
			{"texts", []any{"a", 1, true}, "{a,1,true}"},
			{"numbers", []int64{1, -1}, "{1,-1}"},
			{"blobs", [][]byte{{0, 0xff}, {}}, `{"\\x00ff","\\x"}`},
			{"ts", []time.Time{at}, `{"2030-03-31 01:30:00+00"}`},
			{"ips", []netip.Addr{netip.MustParseAddr("::1")}, "{::1}"},
		} {
			columns := map[string]any{c.name: c.value}
			_, s := w.create(t, pgsession.Session{Columns: columns})
			if got := s.Columns[c.name]; got != c.read {
				t.Errorf("%s: wrote %#v, read %#v; want %#v", c.name, c.value, got, c.read)
			}
			if c.read == nil {
				continue
			}
			found := false
			for listed, err := range w.All(t.Context(), pgsession.Filter{Columns: columns}) {
				must(t, err)
				found = found || listed.ID == s.ID
			}
			if !found {
				t.Errorf("%s: filtered on %#v, it is not found", c.name, c.value)
			}
		}
		for _, value := range []any{
			struct{}{}, map[string]string{}, []struct{}{{}}, [][]string{{"a"}}, []any{[]int{1}}, func() {}, make(chan int), [2]int{}, complex(1, 1), new(*string),
		} {
			_, _, err := w.Create(t.Context(), pgsession.Session{Columns: map[string]any{"text": value}})
			wantError(t, fmt.Sprintf("%T", value), err, pgsession.ErrInvalid)
		}
	})
}

// hostile are values that would do harm, were they ever taken for SQL, JSON, or an array's syntax.
var hostile = []string{
	`'`, `''`, `"`, `\`, `\'`, `'; drop table pgsession.session cascade; --`, `x' or 'a' = 'a`, `$1`, `$$`, `$l$ $b$`, `{{ .table }}`,
	`{}`, `{a,b}`, `{"a"}`, `NULL`, `null`, `true`, `["x"]`, `{"user_agent": null}`, `", "tenant": "8`, `%`, `_`, `\x00`, "a\nb", "\u2028", "🍪", ``, ` `, `--`, `/*`,
}

const hostileName = `"; drop table x; --`

var hostileColumns = []pgsession.Column{
	{Name: "user_agent", Type: "text"}, {Name: "tenant", Type: "bigint"}, {Name: "tags", Type: "text[]"}, {Name: hostileName, Type: "text"},
}

func TestHostileValuesOfColumnsAreOnlyValues(t *testing.T) {
	t.Parallel()
	mainWays(t, pgsession.Config{Columns: hostileColumns}, func(t *testing.T, w *way) {
		ctx := t.Context()
		w.create(t, pgsession.Session{Subject: "bob", Columns: map[string]any{"tenant": 8}})
		ids := map[string]pgsession.ID{}
		columnsOf := func(value string) map[string]any {
			return map[string]any{"user_agent": value, "tags": []string{value, value}, hostileName: value}
		}
		for _, value := range hostile {
			_, s, err := w.Create(ctx, pgsession.Session{Subject: "ada", Columns: columnsOf(value)})
			if err != nil || s.Columns["user_agent"] != value || s.Columns[hostileName] != value {
				t.Fatalf("wrote %q, read %q, %v", value, s.Columns, err)
			}
			ids[value] = s.ID
		}
		for _, value := range hostile {
			found := 0
			for s, err := range w.All(ctx, pgsession.Filter{Columns: columnsOf(value)}) {
				if found++; err != nil || s.ID != ids[value] {
					t.Errorf("%q: listed %s, %v", value, s.ID, err)
				}
			}
			n, err := w.Revoke(ctx, pgsession.Revocation{Subject: "ada", Columns: columnsOf(value)})
			if n != 1 || found != 1 || err != nil {
				t.Errorf("%q: listed %d, revoked %d, %v", value, found, n, err)
			}
		}
		if n, err := w.Count(ctx, pgsession.Filter{}); n != 1 || err != nil {
			t.Errorf("%d sessions are left, %v", n, err)
		}
	})
}

func TestHostileNamesOfColumnsAreRefused(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{Columns: hostileColumns})
	ctx := t.Context()
	w.create(t, pgsession.Session{Subject: "bob", Columns: map[string]any{"tenant": 8}})
	for _, name := range append(slices.Clone(hostile), "id", "data", "version", "subject", "TENANT", "tenant ", "ctid", `tenant" is null or "tenant`) {
		columns := map[string]any{name: "8"}
		_, _, createErr := w.Create(ctx, pgsession.Session{Columns: columns})
		for what, err := range map[string]error{
			"create":             createErr,
			"count":              errorOf(w.Count(ctx, pgsession.Filter{Columns: columns})),
			"count a subject's":  errorOf(w.Count(ctx, pgsession.Filter{Subject: "bob", Columns: columns})),
			"revoke":             errorOf(w.Revoke(ctx, pgsession.Revocation{Everyone: true, Columns: columns})),
			"revoke a subject's": errorOf(w.Revoke(ctx, pgsession.Revocation{Subject: "bob", Columns: columns})),
		} {
			wantError(t, fmt.Sprintf("%s by %q", what, name), err, pgsession.ErrInvalid)
		}
		for _, err := range w.All(ctx, pgsession.Filter{Columns: columns}) {
			wantError(t, fmt.Sprintf("all by %q", name), err, pgsession.ErrInvalid)
		}
	}
	if n, err := w.Count(ctx, pgsession.Filter{}); n != 1 || err != nil {
		t.Errorf("%d sessions are left, %v", n, err)
	}
}
