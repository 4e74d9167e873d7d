package pgsession_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// fuzzStore is a store in a schema of the fuzz test's own.
func fuzzStore(f *testing.F, cfg pgsession.Config) (*pgsession.Store, *pgxpool.Pool, string) {
	f.Helper()
	pool := pgtest.Pool(f)
	cfg.Schema, cfg.Cleanup, cfg.Logger = pgtest.Schema(f), withoutCleanup, slog.New(slog.DiscardHandler)
	store, err := pgsession.New(pool.Query, cfg)
	if err == nil {
		err = store.Setup(f.Context())
	}
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = store.Close() })
	return store, pool, cfg.Schema
}

// codeOf is the SQLSTATE of a server's error.
func codeOf(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func FuzzIdentifiers(f *testing.F) {
	for i, name := range oddNames {
		f.Add(name, oddNames[(i+1)%len(oddNames)], oddNames[(i+2)%len(oddNames)])
	}
	f.Add(strings.Repeat("s", 63), strings.Repeat("t", 47), strings.Repeat("c", 63))
	f.Add("pg_reserved", "t", "c")
	f.Add("s", strings.Repeat("t", 48), "c")
	f.Add("a\x00", "b\xff", "")
	pool := pgtest.Pool(f)
	f.Fuzz(func(t *testing.T, schema, table, column string) {
		if schema == "" || table == "" || schema == "public" {
			return // the defaults, or what is there for everyone
		}
		cfg := pgsession.Config{Schema: schema, Table: table, Columns: []pgsession.Column{{Name: column, Type: "text"}}}
		var script strings.Builder
		if err := pgsession.SetupSQL(&script, cfg); err != nil {
			if !errors.Is(err, pgsession.ErrInvalid) || script.Len() > 0 {
				t.Errorf("%q.%q (%q): %v, and wrote %d bytes", schema, table, column, err, script.Len())
			}
			return
		}
		inTransaction(t, pool, func(tx pgx.Tx) {
			_, err := tx.Exec(t.Context(), script.String(), pgx.QueryExecModeExec)
			if codeOf(err) == "42939" && strings.HasPrefix(schema, "pg_") {
				return // reserved_name
			}
			if err != nil {
				t.Fatalf("%q.%q (%q): %v", schema, table, column, err)
			}
			if n := value[int](t, tx, `
				select count(*) from pg_attribute as a join pg_class as c on c.oid = a.attrelid join pg_namespace as n on n.oid = c.relnamespace
				 where n.nspname = $1 and c.relname = $2 and a.attname = $3`, schema, table, column); n != 1 {
				t.Errorf("%q.%q (%q) is there %d times", schema, table, column, n)
			}
			if n := value[int](t, tx, "select count(*) from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where n.nspname = $1", schema); n != 20 {
				t.Errorf("%d relations in %q", n, schema)
			}
			cfg.Cleanup = withoutCleanup
			useAsRequest(t, setUp(t, tx.Query, cfg), map[string][2]string{column: {"one", "two"}})
		})
	})
}

func FuzzToken(f *testing.F) {
	for _, seed := range []string{
		"", "x", "cD9KFYz_H_Sfh8_QiW2dUJgkTiMKtG72DaxqxRgpzw4", "\x00", "a\x00b", "\xff\xfe", "日本語", "' or 1 = 1 --", "%s%n", "\n",
		strings.Repeat("x", 1024), strings.Repeat("x", 1025), strings.Repeat("日", 341), "[redacted]", " ", `{"a":1}`,
	} {
		f.Add(seed)
	}
	store, _, _ := fuzzStore(f, pgsession.Config{Tombstone: -1})
	f.Fuzz(func(t *testing.T, text string) {
		token, ctx := pgsession.Token(text), t.Context()
		if len(text) > 2 && !strings.Contains("[redacted]", text) {
			marshalled, err := json.Marshal(map[string]any{"t": token})
			must(t, err)
			shown := fmt.Sprintf("%v %s %q %d %x %#v %+v %t", token, token, token, token, token, token, token, token) +
				string(marshalled) + token.String() + token.LogValue().String()
			if strings.Contains(strings.NewReplacer("[redacted]", "", `{"t":""}`, "", " ", "").Replace(shown), text) {
				t.Errorf("a token shows: %s", shown)
			}
		}
		id, err := store.ID(token)
		if text == "" || len(text) > 1024 {
			_, getErr := store.Get(ctx, token)
			_, setErr := store.Set(ctx, token, pgsession.Session{})
			_, touchErr := store.Touch(ctx, token)
			_, destroyErr := store.Destroy(ctx, token)
			for _, err := range []error{err, getErr, setErr, touchErr, destroyErr} {
				if !errors.Is(err, pgsession.ErrInvalidToken) {
					t.Errorf("err = %v, want ErrInvalidToken", err)
				}
				if len(text) > 0 && strings.Contains(err.Error(), text) {
					t.Errorf("an error shows the token: %v", err)
				}
			}
			return
		}
		must(t, err)
		stored, err := store.Set(ctx, token, pgsession.Session{Data: []byte(text)})
		must(t, err)
		got, err := store.Get(ctx, token)
		must(t, err)
		if got.ID != id || stored.ID != id || len(id) != 43 || string(got.Data) != text || got.Version != stored.Version {
			t.Errorf("stored %+v, got %+v, of the id %q", stored, got, id)
		}
		if n, err := store.Destroy(ctx, token, token); n != 1 || err != nil {
			t.Errorf("Destroy = %d, %v", n, err)
		}
	})
}

func FuzzData(f *testing.F) {
	for _, s := range viewSamples {
		if len(s.data) < 1000 {
			f.Add([]byte(s.data), "ada", int16(s.codec))
		}
	}
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	f.Add(all, "\xff", int16(0))
	f.Add(bytes.Repeat([]byte("[1,"), 300), strings.Repeat("x", 1024), int16(1))
	f.Add([]byte(`{}`), strings.Repeat("x", 1025), int16(1))
	f.Add([]byte(nil), "a\x00b", int16(-1))
	store, pool, schema := fuzzStore(f, pgsession.Config{MaxDataSize: 4096, Tombstone: -1})
	f.Fuzz(func(t *testing.T, data []byte, subject string, codec int16) {
		ctx := t.Context()
		token, created, err := store.Create(ctx, pgsession.Session{Data: data, Subject: subject, Codec: codec})
		if err != nil {
			// Each has its reason.
			switch badJSON := codec == pgsession.CodecJSON && !json.Valid(data); {
			case errors.Is(err, pgsession.ErrTooLarge) && len(data) > 4096:
			case errors.Is(err, pgsession.ErrCodec) && (codec != pgsession.CodecOpaque && codec != pgsession.CodecJSON || badJSON):
			case errors.Is(err, pgsession.ErrInvalid) && (len(subject) > 1024 || strings.ToValidUTF8(subject, "") != subject || strings.Contains(subject, "\x00")):
			default:
				t.Errorf("Create of %d bytes, codec %d, subject %q: %v", len(data), codec, subject, err)
			}
			return
		}
		got, err := store.Get(ctx, token)
		must(t, err)
		if !bytes.Equal(got.Data, data) || got.Subject != subject || got.Codec != codec || got.Version != created.Version {
			t.Errorf("got %q of %q, codec %d", got.Data, got.Subject, got.Codec)
		}
		// What was read is written back as it was, and the view lives.
		same, err := store.Set(ctx, token, got)
		must(t, err)
		if same.Version != got.Version {
			t.Error("writing what was read is a change")
		}
		shown := value[bool](t, pool, "select data is not null from "+identifier(schema, "session_view")+" where id = $1", string(got.ID))
		if shown && (codec != pgsession.CodecJSON || !json.Valid(data)) {
			t.Errorf("the view shows %q of codec %d", data, codec)
		}
		if n, err := store.Destroy(ctx, token); n != 1 || err != nil {
			t.Errorf("Destroy = %d, %v", n, err)
		}
	})
}

func FuzzConfig(f *testing.F) {
	const day = int64(24 * time.Hour)
	f.Add(int64(0), int64(0), int64(0), int64(0), int64(0), 0, 0, 0, int64(0), 0)
	f.Add(int64(-1), int64(-1), int64(-1), int64(-1), int64(-1), 1, 2, 1, int64(time.Millisecond), 1)
	f.Add(day, 30*day, day/20, day, int64(time.Second), 1<<20, 1, 0, int64(time.Hour), 10_000)
	f.Add(int64(time.Millisecond), int64(time.Millisecond), int64(1), int64(time.Second), int64(time.Millisecond), 512<<20, 2, 1, day, 1<<31-1)
	f.Add(36500*day, 36500*day, 36500*day, 36500*day, 36500*day, 512<<20, 2, 0, 36500*day, 1<<31-1)
	f.Add(36501*day, int64(1), int64(1), int64(1), int64(1), -1, 3, 2, int64(1), 1<<31)
	f.Add(int64(-2), int64(-2), int64(-2), int64(-2), int64(-2), 1<<40, -1, -1, int64(-1), -1)
	_, pool, schema := fuzzStore(f, pgsession.Config{})
	f.Fuzz(func(t *testing.T, idle, absolute, touch, tombstone, lockTimeout int64, size, lock, mode int, interval int64, batch int) {
		cfg := pgsession.Config{
			Schema: schema, IdleTimeout: time.Duration(idle), AbsoluteTimeout: time.Duration(absolute),
			TouchInterval: time.Duration(touch), Tombstone: time.Duration(tombstone), LockTimeout: time.Duration(lockTimeout),
			MaxDataSize: size, Lock: pgsession.LockMode(lock),
			Cleanup: pgsession.Cleanup{Mode: pgsession.CleanupMode(mode), Interval: time.Duration(interval), BatchSize: batch},
		}
		if store, err := pgsession.New(pool.Query, cfg); err != nil {
			if !errors.Is(err, pgsession.ErrInvalid) || !strings.Contains(err.Error(), "Config.") || store != nil {
				t.Errorf("New = %v, %v, want an ErrInvalid that names the field", store, err)
			}
			return
		}
		// What New takes works.
		store, ctx := setUp(t, pool.Query, cfg), t.Context()
		token, session, err := store.Create(ctx, pgsession.Session{Subject: "ada", Data: []byte("x")})
		must(t, err)
		if session.IdleTimeout == 0 || session.AbsoluteTimeout == 0 || session.ExpiresAt.IsZero() {
			t.Errorf("created %+v", session)
		}
		// A session may be over before the next call.
		brief := func(timeout time.Duration) bool { return timeout > 0 && timeout < time.Minute }
		over := brief(cfg.IdleTimeout) || brief(cfg.AbsoluteTimeout)
		check := func(what string, err error) {
			t.Helper()
			if err != nil && (!over || !errors.Is(err, pgsession.ErrNotFound)) {
				t.Errorf("%s: %v", what, err)
			}
		}
		_, err = store.Get(ctx, token)
		check("Get", err)
		_, err = store.Touch(ctx, token)
		check("Touch", err)
		_, err = store.Set(ctx, token, session)
		check("Set", err)
		_, err = store.Destroy(ctx, token)
		check("Destroy", err)
		_, err = store.Revoke(ctx, pgsession.Revocation{Subject: "ada"})
		check("Revoke", err)
		_, err = store.Prune(ctx)
		check("Prune", err)
		_, err = store.Clear(ctx)
		check("Clear", err)
		must(t, store.Close())
	})
}

func FuzzColumns(f *testing.F) {
	for i, sample := range columnSamples {
		f.Add(oddNames[i%len(oddNames)], sample.typeName, sample.values[0])
		f.Add(fmt.Sprint("c", i), sample.typeName, sample.values[1])
	}
	f.Add("ip", "regclass", "x")
	f.Add("id", "text", "x")
	f.Add("n", "int4", "not a number")
	f.Add("n", "int4", "\x00")
	f.Add("t", "text", "\xff")
	f.Add("j", "jsonb", `{"a": "\u0000"}`)
	f.Add("a", "text[]", "{")
	f.Add("n", "numeric", "1e131071")
	pool := pgtest.Pool(f)
	f.Fuzz(func(t *testing.T, name, typeName, text string) {
		cfg := pgsession.Config{Schema: "fuzz_columns", Columns: []pgsession.Column{{Name: name, Type: typeName}}, Cleanup: withoutCleanup}
		if _, err := pgsession.New(pool.Query, cfg); err != nil {
			if !errors.Is(err, pgsession.ErrInvalid) || !strings.Contains(err.Error(), "Config.Columns") {
				t.Errorf("New: %v", err)
			}
			return
		}
		inTransaction(t, pool, func(tx pgx.Tx) {
			store, ctx := setUp(t, tx.Query, cfg), t.Context()
			columns := map[string]any{name: text}
			token, session, err := store.Create(ctx, pgsession.Session{Columns: columns})
			if err != nil {
				// A value that is none of its type: the server's data exception, or found before it is sent.
				if code := codeOf(err); !strings.HasPrefix(code, "22") && !strings.HasPrefix(code, "54") && !errors.Is(err, pgsession.ErrInvalid) {
					t.Errorf("Create with %q as %q: %v", text, typeName, err)
				}
				return
			}
			again, err := store.Set(ctx, token, session)
			must(t, err)
			if again.Version != session.Version || again.Columns[name] != session.Columns[name] {
				t.Errorf("%q as %q was read as %q, and written back became %q", text, typeName, session.Columns[name], again.Columns[name])
			}
			if n, err := store.Count(ctx, pgsession.Filter{Columns: columns}); n != 1 || err != nil {
				t.Errorf("Count of %q as %q = %d, %v", text, typeName, n, err)
			}
			if n, err := store.Revoke(ctx, pgsession.Revocation{Everyone: true, Columns: columns}); n != 1 || err != nil {
				t.Errorf("Revoke of %q as %q = %d, %v", text, typeName, n, err)
			}
		})
	})
}
