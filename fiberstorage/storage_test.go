package fiberstorage_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/fiberstorage"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// kv makes a KV in a schema.
func kv(t *testing.T, schema string) (*fiberstorage.Storage, *pgsession.Store) {
	t.Helper()
	storage, store, err := fiberstorage.KV(pgtest.Pool(t).Query, pgsession.Config{Schema: schema}, fiberstorage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	if err := store.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	return storage, store
}

// What fiber says of its Storage, of which its middleware reaches but a part.
func TestTheContractOfAStorage(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T) *fiberstorage.Storage{
		"Sessions": func(t *testing.T) *fiberstorage.Storage {
			return sessions(t, openStore(t, pgtest.Schema(t), pgsession.Config{}))
		},
		"KV": func(t *testing.T) *fiberstorage.Storage {
			storage, _ := kv(t, pgtest.Schema(t))
			return storage
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			want := func(key, value string) {
				t.Helper()
				got, err := s.Get(key)
				if err != nil || string(got) != value || (got == nil) != (value == "") {
					t.Errorf("Get(%.20q) is %q, %v; want %q", key, got, err, value)
				}
			}
			set := func(key, value string, exp time.Duration) {
				t.Helper()
				if err := s.Set(key, []byte(value), exp); err != nil {
					t.Errorf("Set(%.20q): %v", key, err)
				}
			}
			want("missing", "")
			want("", "")
			want(strings.Repeat("x", 2000), "")
			set("", "value", 0)
			want("", "")
			set("empty", "", 0)
			want("empty", "")
			set("a", "1", 0)
			set("a", "", 0) // ignored
			want("a", "1")
			set("a", "2", time.Hour)
			set("zero\x00bytes\xff", "\x00\xff", time.Hour)
			want("zero\x00bytes\xff", "\x00\xff")
			set("b", "3", 200*365*24*time.Hour)
			want("b", "3")
			set("c", "4", time.Nanosecond)
			want("c", "")
			if err := s.Set("b", []byte("5"), -time.Second); err != nil {
				t.Error(err)
			}
			want("b", "")
			for _, key := range []string{"", "missing", strings.Repeat("x", 2000), "a", "a"} {
				if err := s.Delete(key); err != nil {
					t.Errorf("Delete(%.20q): %v", key, err)
				}
			}
			want("a", "")
			if err := s.Reset(); err != nil {
				t.Error(err)
			}
			want("zero\x00bytes\xff", "")
			for range 2 {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
			if _, err := s.Get("a"); !errors.Is(err, pgsession.ErrClosed) {
				t.Errorf("after Close: %v, want %v", err, pgsession.ErrClosed)
			}
		})
	}
}

func TestWithoutAnExpirationAValueLivesForEver(t *testing.T) {
	t.Parallel()
	schema := pgtest.Schema(t)
	store := openStore(t, schema, pgsession.Config{IdleTimeout: time.Minute, AbsoluteTimeout: time.Hour})
	counters, counterStore := kv(t, schema)
	for name, s := range map[string]*fiberstorage.Storage{"session": sessions(t, store), "kv": counters} {
		for _, exp := range []time.Duration{time.Minute, 0} { // the second changes what the first asked for
			if err := s.Set("key", []byte("value"), exp); err != nil {
				t.Fatal(err)
			}
		}
		var expires string
		row := pgtest.Pool(t).QueryRow(t.Context(), "select extract(year from expires_at)::text from "+schema+"."+name)
		if err := row.Scan(&expires); err != nil || expires != "9999" {
			t.Errorf("%s: the year of its expiry is %q, %v; want 9999", name, expires, err)
		}
	}
	// An expiration is an idle timeout for a session, which the store's absolute timeout bounds, and all
	// that bounds a KV's value.
	if err := sessions(t, store).Set("other", []byte("value"), time.Minute); err != nil {
		t.Fatal(err)
	}
	if s, err := store.Get(t.Context(), "other"); err != nil || s.IdleTimeout != time.Minute || s.AbsoluteTimeout != time.Hour {
		t.Errorf("a session has %v and %v, %v; want 1m and 1h", s.IdleTimeout, s.AbsoluteTimeout, err)
	}
	if err := counters.Set("other", []byte("value"), time.Minute); err != nil {
		t.Fatal(err)
	}
	if s, err := counterStore.Get(t.Context(), "kother"); err != nil || s.IdleTimeout != time.Minute || s.AbsoluteTimeout != -1 {
		t.Errorf("a value has %v and %v, %v; want 1m and none", s.IdleTimeout, s.AbsoluteTimeout, err)
	}
}

// What a Sessions must not do, a KV must.
func TestAKVSetsAgainWhatWasDeleted(t *testing.T) {
	t.Parallel()
	schema := pgtest.Schema(t)
	counters, _ := kv(t, schema)
	storage := sessions(t, openStore(t, schema, pgsession.Config{}))
	for name, s := range map[string]*fiberstorage.Storage{"KV": counters, "Sessions": storage} {
		var wantErr error
		wantValue := []byte("again")
		if name == "Sessions" {
			wantErr, wantValue = pgsession.ErrRevoked, nil
		}
		for _, remove := range []func() error{func() error { return s.Delete("key") }, s.Reset} {
			_ = s.Set("key", []byte("value"), time.Hour)
			if err := remove(); err != nil {
				t.Fatal(err)
			}
			if err := s.Set("key", []byte("again"), time.Hour); !errors.Is(err, wantErr) {
				t.Errorf("%s: Set after the end: %v, want %v", name, err, wantErr)
			}
			if value, err := s.Get("key"); !bytes.Equal(value, wantValue) || err != nil {
				t.Errorf("%s: Get: %q, %v; want %q", name, value, err, wantValue)
			}
		}
	}
}

func TestAKVTakesLongKeysAndLargeValues(t *testing.T) {
	t.Parallel()
	s, _ := kv(t, pgtest.Schema(t))
	large := bytes.Repeat([]byte("x"), 3<<20)
	path := "/" + strings.Repeat("p", 5000)
	if err := s.Set(path, large, time.Hour); err != nil {
		t.Fatal(err)
	}
	if value, err := s.Get(path); err != nil || !bytes.Equal(value, large) {
		t.Errorf("Get: %d bytes, %v; want %d", len(value), err, len(large))
	}
	if value, err := s.Get(path + "p"); value != nil || err != nil {
		t.Errorf("Get of another: %d bytes, %v; want none", len(value), err)
	}
}

// Each expiration counts from its own Set, also where that changes nothing else.
func TestAKVsExpirationsAreExact(t *testing.T) {
	t.Parallel()
	s, store := kv(t, pgtest.Schema(t))
	var last time.Time
	for range 3 {
		if err := s.Set("key", []byte("value"), time.Hour); err != nil {
			t.Fatal(err)
		}
		session, err := store.Get(t.Context(), "kkey")
		if err != nil || !session.ExpiresAt.After(last) {
			t.Fatalf("expires at %v, %v; want later than %v", session.ExpiresAt, err, last)
		}
		last = session.ExpiresAt
	}
}

func TestAWrongConfigurationIsAnError(t *testing.T) {
	t.Parallel()
	query := pgtest.Pool(t).Query
	store := openStore(t, pgtest.Schema(t), pgsession.Config{})
	for name, err := range map[string]error{
		"no store":      second(fiberstorage.Sessions(nil, fiberstorage.Options{})),
		"a timeout":     second(fiberstorage.Sessions(store, fiberstorage.Options{Timeout: -2})),
		"no query":      third(fiberstorage.KV(nil, pgsession.Config{}, fiberstorage.Options{})),
		"tombstones":    third(fiberstorage.KV(query, pgsession.Config{Tombstone: time.Minute}, fiberstorage.Options{})),
		"a KV's option": third(fiberstorage.KV(query, pgsession.Config{}, fiberstorage.Options{Timeout: -2})),
	} {
		if !errors.Is(err, pgsession.ErrInvalid) {
			t.Errorf("%s: %v, want %v", name, err, pgsession.ErrInvalid)
		}
	}
}

func second[T any](_ T, err error) error        { return err }
func third[T, U any](_ T, _ U, err error) error { return err }
