package pgsession_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// ear is a raw connection that listens.
type ear struct {
	conn    *pgx.Conn
	channel string
	n       int
}

// channelOf is the rule in the README.
func channelOf(schema, table string) string {
	if name := schema + "." + table; len(name) <= 63 && strings.Count(name, ".") == 1 {
		return name
	}
	return fmt.Sprintf("pgsession_%.16x", sha256.Sum256([]byte(identifier(schema)+"."+identifier(table))))
}

// listenTo listens on a channel, from now on.
func listenTo(t *testing.T, address, channel string) *ear {
	t.Helper()
	e := &ear{conn: dial(t, address, nil), channel: channel}
	exec(t, e.conn, "listen "+identifier(channel))
	return e
}

// heard returns the payloads that came since it was last called. What was committed before this call
// is among them: it sends one itself, which comes last.
func (e *ear) heard(t *testing.T) (payloads []string) {
	t.Helper()
	e.n++
	end := fmt.Sprint("end ", e.n)
	exec(t, e.conn, "select pg_notify($1, $2)", e.channel, end)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		n, err := e.conn.WaitForNotification(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if n.Payload == end {
			return payloads
		}
		payloads = append(payloads, n.Payload)
	}
}

// expect fails the test unless these payloads were heard, beats apart.
func (e *ear) expect(t *testing.T, what string, want ...string) {
	t.Helper()
	var got []string
	for _, p := range e.heard(t) {
		if !strings.Contains(p, `"beat"`) {
			got = append(got, p)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || len(got) != len(want) {
		t.Errorf("%s: heard %q, want %q", what, got, want)
	}
}

// listenFor is a Config.Listen for an address.
func listenFor(address string) func(context.Context) (*pgx.Conn, error) {
	return func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, address) }
}

// payloadOf is what is notified of one session that was changed.
func payloadOf(s pgsession.Session) string {
	return fmt.Sprintf(`{"v":1,"changed":{"%s": %d}}`, s.ID, s.Version)
}

// fastListening is a Config that listens and soon notices when it hears nothing.
func fastListening(addresses ...string) (cfg pgsession.Config) {
	for _, address := range addresses {
		cfg.Listeners = append(cfg.Listeners, listenFor(address))
	}
	cfg.Cache.Liveness = 600 * time.Millisecond
	return cfg
}

func awaitLive(t *testing.T, store *pgsession.Store) {
	t.Helper()
	eventually(t, "it is live", func() bool { return store.Stats().Notify.Live })
}

func awaitNotLive(t *testing.T, store *pgsession.Store) {
	t.Helper()
	eventually(t, "it is not live", func() bool { return !store.Stats().Notify.Live })
}

func TestWhatNotifiesAndWhatDoesNot(t *testing.T) {
	t.Parallel()
	for name, mode := range map[string]pgsession.NotifyMode{
		"grouped": pgsession.NotifyGrouped, "in the transaction": pgsession.NotifyInTx, "off": pgsession.NotifyOff,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			w := onPool(t, pgsession.Config{Notify: mode})
			e := listenTo(t, pgtest.URL(t), channelOf(w.schema, "session"))
			token, s := w.create(t, pgsession.Session{Subject: "ada", Data: []byte("1")})
			_, err := w.Get(ctx, token)
			must(t, err)
			_, err = w.Touch(ctx, token)
			must(t, err)
			s, err = w.Set(ctx, token, s)
			must(t, err)
			_, err = w.store.Prune(ctx)
			must(t, err)
			_, err = w.Set(ctx, token, pgsession.Session{Version: 1})
			wantError(t, "set", err, pgsession.ErrConflict)
			e.expect(t, "create, get, touch, a set that changes nothing, a conflict, prune")

			s.Data = []byte("2")
			s, err = w.Set(ctx, token, s)
			must(t, err)
			var want []string
			if mode != pgsession.NotifyOff {
				want = []string{payloadOf(s)}
			}
			e.expect(t, "set", want...)
			s.Data = nil
			tx := begin(t, w.admin)
			_, err = w.store.WithQuery(tx.query).Set(ctx, token, s)
			must(t, err)
			must(t, tx.rollback())
			e.expect(t, "a set that is rolled back")
			tx = begin(t, w.admin)
			s, err = w.store.WithQuery(tx.query).Set(ctx, token, s)
			must(t, err)
			e.expect(t, "a set before its commit")
			must(t, tx.commit())
			if mode != pgsession.NotifyOff {
				want = []string{payloadOf(s)}
			}
			e.expect(t, "a set in a transaction of the caller's", want...)

			s.Subject = "bob"
			s, err = w.Set(ctx, token, s)
			must(t, err)
			heard := e.heard(t)
			if len(heard) == 0 || heard[0] != payloadOf(s) {
				t.Errorf("set of another subject: heard %q", heard)
			}
			old := s
			token, s, err = w.Renew(ctx, token, pgsession.Renewal{Subject: "bob"})
			must(t, err)
			e.expect(t, "renew", fmt.Sprintf(`{"v":1,"renewed":{"%s": %d}}`, old.ID, s.Version))
			_, err = w.Destroy(ctx, token, "missing")
			must(t, err)
			heard = e.heard(t)
			if len(heard) != 1 || !strings.HasPrefix(heard[0], `{"v":1,"destroyed":{"`+string(s.ID)+`": `) {
				t.Errorf("destroy: heard %q", heard)
			}
			_, err = w.Destroy(ctx, token)
			must(t, err)
			_, err = w.Revoke(ctx, pgsession.Revocation{Subject: "bob"})
			must(t, err)
			e.expect(t, "destroy and revoke of what is gone")
			_, err = w.store.Clear(ctx)
			must(t, err)
			e.expect(t, "clear of nothing")
			w.create(t, pgsession.Session{})
			_, err = w.store.Clear(ctx)
			must(t, err)
			e.expect(t, "clear", `{"v":1,"cleared":true}`)
		})
	}
}

func TestTheSubjectIsNotifiedInTheTransactionInGroupedMode(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	token, s := w.create(t, pgsession.Session{Subject: "ada"})
	e := listenTo(t, pgtest.URL(t), channelOf(w.schema, "session"))
	// As Set calls it, without what it does after the commit.
	set := func(subject, data string) {
		w.exec(t, `select s.status from {schema}.session_set($1::text, convert_to($2::text, 'UTF8'), p_subject => $3::text, p_notify => false) as s`,
			string(s.ID), data, subject)
	}
	set("ada", "1")
	e.expect(t, "a set of the same subject")
	set("bob", "1")
	if heard := e.heard(t); len(heard) != 1 {
		t.Errorf("a set of another subject: heard %q", heard)
	}
	set("", "1")
	if heard := e.heard(t); len(heard) != 1 {
		t.Errorf("a set of no subject: heard %q", heard)
	}
	_ = token
}

func TestARevokeBySubjectIsOneNotification(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	token, mine := w.create(t, pgsession.Session{Subject: "åda"})
	for range 20 {
		w.create(t, pgsession.Session{Subject: "åda"})
	}
	e := listenTo(t, pgtest.URL(t), channelOf(w.schema, "session"))
	_, err := w.Revoke(t.Context(), pgsession.Revocation{Subject: "åda", Except: []pgsession.ID{mine.ID}})
	must(t, err)
	hash := pgsession.HashSubject("åda").String()
	e.expect(t, "all but one", fmt.Sprintf(`{"v":1,"subject":"%s","except":["%s"]}`, hash, mine.ID))
	if want := value[string](t, w.admin, "select left(encode(sha256(convert_to('åda', 'UTF8')), 'hex'), 16)"); hash != want {
		t.Errorf("HashSubject is %s, want %s", hash, want)
	}
	_, other := w.create(t, pgsession.Session{Subject: "åda"})
	many := make([]pgsession.ID, 200)
	for i := range many {
		many[i] = pgsession.ID(strings.Repeat("x", 100) + fmt.Sprint(i))
	}
	_, err = w.Revoke(t.Context(), pgsession.Revocation{Subject: "åda", Except: append(many, mine.ID)})
	must(t, err)
	e.expect(t, "too many are spared to be named", fmt.Sprintf(`{"v":1,"subject":"%s"}`, hash))
	_, err = w.Revoke(t.Context(), pgsession.Revocation{Subject: "åda", IDs: []pgsession.ID{mine.ID, other.ID}})
	must(t, err)
	if heard := e.heard(t); len(heard) != 1 || !strings.HasPrefix(heard[0], `{"v":1,"revoked":{"`+string(mine.ID)+`": `) {
		t.Errorf("by subject and id: heard %q", heard)
	}
	_ = token
}

func TestPayloadsAreSplitBeforeTheLimitAndNameEverySession(t *testing.T) {
	t.Parallel()
	// The longest there is: each byte takes six as JSON.
	w := onPool(t, pgsession.Config{KeyFunc: func(token string) string {
		return strings.TrimPrefix(token, "k") + strings.Repeat("\x01", 256-len(token)+1)
	}})
	ctx := t.Context()
	e := listenTo(t, pgtest.URL(t), channelOf(w.schema, "session"))
	var tokens []pgsession.Token
	for i := range 100 {
		token := pgsession.Token(fmt.Sprint("k", i))
		_, err := w.Set(ctx, token, pgsession.Session{})
		must(t, err)
		tokens = append(tokens, token)
	}
	_, err := w.Destroy(ctx, tokens...)
	must(t, err)
	named, longest := map[string]bool{}, 0
	for _, text := range e.heard(t) {
		longest = max(longest, len(text))
		var p struct{ Destroyed map[string]int64 }
		must(t, json.Unmarshal([]byte(text), &p))
		for id := range p.Destroyed {
			named[id] = true
		}
	}
	if len(named) != len(tokens) || longest >= 8000 {
		t.Errorf("%d sessions were named, want %d; the longest payload has %d bytes", len(named), len(tokens), longest)
	}

	w.seed(t, 5001, "many", "ada", 0)
	ids := make([]pgsession.ID, 5001)
	for i := range ids {
		ids[i] = pgsession.ID(value[string](t, w.admin, `select translate(rtrim(encode(sha256($1::text::bytea), 'base64'), '='), '+/', '-_')`, fmt.Sprint("many", i+1)))
	}
	_, err = w.Revoke(ctx, pgsession.Revocation{IDs: ids[:5000]})
	must(t, err)
	count := 0
	for _, text := range e.heard(t) {
		var p struct{ Revoked map[string]int64 }
		must(t, json.Unmarshal([]byte(text), &p))
		count += len(p.Revoked)
		longest = max(longest, len(text))
	}
	if count != 5000 || longest >= 8000 {
		t.Errorf("%d sessions were named, want 5000; the longest payload has %d bytes", count, longest)
	}
	w.exec(t, `update {table} as t set revoked_at = null, data = '' where t.subject = 'ada'`)
	list, err := json.Marshal(ids) // in one call, as the library makes none
	must(t, err)
	w.exec(t, `select r.id from {schema}.session_revoke($1::text) as r`, string(list))
	e.expect(t, "so many that clearing is cheaper", `{"v":1,"cleared":true}`)

	// By the functions an id may be longer than any that the library writes.
	w.exec(t, `select s.status from {schema}.session_set(repeat('x', 9000), '') as s`)
	w.exec(t, `select d.id from {schema}.session_destroy(json_build_array(repeat('x', 9000))::text) as d`)
	e.expect(t, "an id that does not fit in", `{"v":1,"cleared":true}`)
}

func TestAWriteInDoubtIsPublishedAgainUntilItsLockIsFree(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	token, s := w.create(t, pgsession.Session{})
	e := listenTo(t, pgtest.URL(t), channelOf(w.schema, "session"))
	notify := func(entries string) (busy string) {
		t.Helper()
		w.scan(t, &busy, `select r.r from {schema}.session_notify($1::text) as r`, entries)
		return busy
	}
	tx := begin(t, w.admin)
	s.Data = []byte("orphan")
	_, err := w.store.WithQuery(tx.query).Set(t.Context(), token, s)
	must(t, err)
	entries := fmt.Sprintf(`{"%s":0,"b":7,"a":0}`, s.ID)
	changed := fmt.Sprintf(`{"v":1,"changed":{"a": 0, "b": 7, "%s": 0}}`, s.ID)
	if busy := notify(entries); busy != fmt.Sprintf(`["%s"]`, s.ID) {
		t.Errorf("while the write is under way: busy is %s", busy)
	}
	e.expect(t, "while it is under way", changed)
	must(t, tx.rollback())
	if busy := notify(entries); busy != `[]` {
		t.Errorf("after it has ended: busy is %s", busy)
	}
	e.expect(t, "after it has ended", changed)
	var cleared any
	w.exec(t, `select {schema}.session_notify($1::text)`, cleared)
	e.expect(t, "too many to name", `{"v":1,"cleared":true}`)
	for _, bad := range []string{
		`[]`, `{}`, `{"a":"1"}`, `{"a":-1}`, `{"a":null}`, `{"a":1.5}`, `{"a":1e400}`, `{"a":{}}`, `{"a":[1]}`,
		`x`, `"a"`, `1`,
	} {
		if _, err := w.admin.Exec(t.Context(), w.fill(`select {schema}.session_notify($1::text)`), bad); err == nil {
			t.Errorf("%s was published", bad)
		}
	}
	e.expect(t, "what is no list of entries")
	var short strings.Builder // which becomes nearly three times as long
	for i := range 199 {
		fmt.Fprintf(&short, `,"%02x":9e18`, i)
	}
	w.exec(t, `select {schema}.session_notify($1::text)`, "{"+short.String()[1:]+"}")
	e.expect(t, "199 in one", `{"v":1,"changed":{`+strings.ReplaceAll(strings.ReplaceAll(short.String()[1:], ":9e18", ": 9000000000000000000"), ",", ", ")+`}}`)
}

func TestEachNameHasItsOwnChannel(t *testing.T) {
	t.Parallel()
	for _, name := range []struct{ schema, table, channel string }{
		{"", "session", ""},
		{"", strings.Repeat("t", 47), ""},
		{"A b", "ü", "A b.ü"},
		{"a.b", "c", "pgsession_"},
		{"a", "b.c", "pgsession_"},
		{strings.Repeat("s", 63), "session", "pgsession_"},
	} {
		address := pgtest.Database(t)
		cfg := fastListening(address)
		cfg.Schema, cfg.Table = name.schema, name.table
		pool := pgtest.Connect(t, address)
		store := setUp(t, pool.Query, cfg)
		awaitLive(t, store)
		if name.schema == "" {
			name.schema = "pgsession"
		}
		channel := channelOf(name.schema, name.table)
		if !strings.HasPrefix(channel, name.channel) {
			t.Errorf("the channel is %q, want %q", channel, name.channel)
		}
		exec(t, pool, "select pg_notify($1, '?')", channel)
		eventually(t, fmt.Sprintf("%q.%q listens to %s", name.schema, name.table, channel), func() bool {
			return store.Stats().Notify.Unknown == 1
		})
	}
}
