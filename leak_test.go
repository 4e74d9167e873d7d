package pgsession_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
	command "os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

// Whoever reads the server's log with every statement and parameter in it, pg_stat_activity, the
// notifications, a dump, the write-ahead log or the application's own log finds ids, and no token.
func TestNoTokenIsFoundAnywhere(t *testing.T) {
	t.Parallel()
	server := pgtest.PrivateServer(t, postgres.Options{Settings: map[string]string{
		"log_statement": "all", "log_min_duration_statement": "0", "log_min_messages": "debug1",
		"log_parameter_max_length": "-1", "log_parameter_max_length_on_error": "-1",
		"logging_collector": "on", "log_rotation_size": "0", "track_activity_query_size": "1MB",
	}})
	admin := pgtest.Connect(t, server.URL())
	found := &places{}
	var appLog synced
	for _, d := range doors {
		if !slices.Contains([]string{cached, "pool, simple_protocol", "sql.DB, lib pq"}, d.name) {
			continue
		}
		w := enter(t, d, admin, server.URL(), pgsession.Config{
			Logger: slog.New(slog.NewTextHandler(&appLog, &slog.HandlerOptions{Level: slog.LevelDebug})), Audit: audited,
		})
		e := listenTo(t, server.URL(), channelOf(w.schema, "session"))
		use(t, w, found, func() { // after each call, what the backends did last
			found.add("pg_stat_activity", column[string](t, admin, `select query from pg_stat_activity`)...)
			found.add("a notification", e.heard(t)...)
		})
	}
	found.add("the application's log", appLog.String())
	found.add("the server's log", column[string](t, admin, `select pg_read_file(pg_current_logfile())`)...)
	// The segments are read as they are, and no question about them is sent.
	for _, segment := range column[[]byte](t, admin, `select pg_read_binary_file('pg_wal/' || name) from pg_ls_waldir()`) {
		found.add("the write-ahead log", string(segment))
	}
	t.Run("dump", func(t *testing.T) {
		program, err := command.LookPath("pg_dump")
		if err != nil {
			pgtest.Skip(t, "there is no pg_dump")
		}
		dump, err := command.CommandContext(t.Context(), program, server.URL()).Output()
		if err != nil {
			t.Fatal(err)
		}
		found.add("a dump", string(dump))
		found.look(t, "a dump")
	})
	for _, where := range []string{
		"a notification", "pg_stat_activity", "the application's log", "the server's log", "the write-ahead log", "an error",
	} {
		found.look(t, where)
	}
}

// use does all that can be done with sessions.
func use(t *testing.T, w *way, found *places, after func()) {
	t.Helper()
	ctx, store := t.Context(), w.store
	created, s, err := store.Create(ctx, pgsession.Session{Subject: "ada", Data: []byte(`{}`), Codec: pgsession.CodecJSON})
	must(t, err)
	found.knows(created, s.ID)
	after()
	renewed, s, err := store.Renew(ctx, created, pgsession.Renewal{Subject: "grace"})
	must(t, err)
	found.knows(renewed, s.ID)
	after()
	again, s, err := store.Renew(ctx, renewed, pgsession.Renewal{})
	must(t, err)
	found.knows(again, s.ID)
	for _, token := range []pgsession.Token{again, renewed, created, "a-cookie-that-an-attacker-made-up-0123456789"} {
		found.knows(token, w.id(t, token))
		for _, op := range operations {
			if err := op.call(ctx, store, token); err != nil {
				found.add("an error", err.Error())
			}
			after()
		}
	}
	tx := w.begin(t)
	token, s, err := store.WithQuery(tx.query).Create(ctx, pgsession.Session{Data: []byte("1")})
	must(t, err)
	found.knows(token, s.ID)
	must(t, tx.commit())
	_, err = store.Revoke(ctx, pgsession.Revocation{IDs: []pgsession.ID{s.ID}})
	must(t, err)
	// What the server refuses shows its parameters in the log.
	w.exec(t, `alter table {table} add constraint refused check (subject <> 'refused') not valid`)
	_, _, err = store.Create(ctx, pgsession.Session{Subject: "refused"})
	if err == nil {
		t.Error("nothing was refused")
	} else {
		found.add("an error", err.Error())
	}
	_, err = store.Set(ctx, again, pgsession.Session{Subject: "refused"})
	found.add("an error", fmt.Sprint(err), fmt.Sprintf("%+v", err), fmt.Sprintf("%#v", err))
	after()
	kept, s, err := store.Create(ctx, pgsession.Session{Data: []byte("kept, for the dump")})
	must(t, err)
	found.knows(kept, s.ID)
	after()
}

// places are where a token might be found, and the secrets that are looked for.
type places struct {
	mu     sync.Mutex
	texts  map[string]*strings.Builder
	tokens map[pgsession.Token]pgsession.ID
}

func (p *places) add(where string, texts ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.texts == nil {
		p.texts = make(map[string]*strings.Builder)
	}
	b := p.texts[where]
	if b == nil {
		b = new(strings.Builder)
		p.texts[where] = b
	}
	for _, s := range texts {
		b.WriteString(s + "\n")
	}
}

func (p *places) knows(token pgsession.Token, id pgsession.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tokens == nil {
		p.tokens = make(map[pgsession.Token]pgsession.ID)
	}
	p.tokens[token] = id
}

// look fails the test where a token is found in any form, and where no id is: then nothing was looked at.
func (p *places) look(t *testing.T, where string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.texts[where]
	if b == nil {
		t.Errorf("%s was not looked at", where)
		return
	}
	ids := 0
	for token, id := range p.tokens {
		secret := string(token)
		raw, err := base64.RawURLEncoding.DecodeString(secret)
		if err != nil {
			raw = []byte(secret)
		}
		for form, text := range map[string]string{
			"itself": secret, "hexadecimal": hex.EncodeToString([]byte(secret)), "base64": base64.StdEncoding.EncodeToString([]byte(secret)),
			"its bytes": string(raw), "its bytes, hexadecimal": hex.EncodeToString(raw),
		} {
			if strings.Contains(b.String(), text) {
				t.Errorf("%s shows a token: %s", where, form)
			}
		}
		if strings.Contains(b.String(), string(id)) {
			ids++
		}
	}
	if ids == 0 {
		t.Errorf("%s shows no id either: was it looked at?", where)
	}
}

// synced is a buffer for many goroutines.
type synced struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *synced) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *synced) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
