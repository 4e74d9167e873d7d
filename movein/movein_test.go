package movein_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/movein"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// world is a database with a table of scs's, and a store.
type world struct {
	url   string
	pool  *pgxpool.Pool
	query pgsession.QueryFunc // what the store and the importer use
	store *pgsession.Store
}

var oldTable = pgx.Identifier{"public", `the "old" sessions`}

func newWorld(t *testing.T, cfg pgsession.Config, rows int) *world {
	t.Helper()
	w := &world{url: pgtest.Database(t)}
	w.pool = pgtest.Connect(t, w.url)
	w.query = w.pool.Query
	w.exec(t, `create table {old} (token text primary key, data bytea not null, expiry timestamptz not null)`)
	w.exec(t, `insert into {old} select 'token ' || n, ('data ' || n)::bytea, now() + interval '1 hour'
	             from generate_series(1, $1::int) as n`, rows)
	w.open(t, cfg)
	return w
}

func (w *world) open(t *testing.T, cfg pgsession.Config) {
	t.Helper()
	store, err := pgsession.New(w.query, cfg)
	must(t, err)
	t.Cleanup(func() { _ = store.Close() })
	must(t, store.Setup(t.Context()))
	w.store = store
}

func (w *world) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := w.pool.Exec(t.Context(), strings.ReplaceAll(sql, "{old}", oldTable.Sanitize()), args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func (w *world) importer(t *testing.T, options movein.Options) *movein.Importer {
	t.Helper()
	importer, err := movein.New(w.query, w.store, movein.SCS(oldTable), options)
	must(t, err)
	must(t, importer.Setup(t.Context()))
	return importer
}

func token(n int) pgsession.Token { return pgsession.Token(fmt.Sprint("token ", n)) }

// buryTombstones is what pruning does in a while.
func (w *world) buryTombstones(t *testing.T) {
	t.Helper()
	w.exec(t, `delete from pgsession.session where revoked_at is not null`)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantData(t *testing.T, s pgsession.Sessions, token pgsession.Token, data string) {
	t.Helper()
	got, err := s.Get(t.Context(), token)
	if data == "" {
		if !errors.Is(err, pgsession.ErrNotFound) {
			t.Errorf("Get of what must be gone: %q, %v", got.Data, err)
		}
		return
	}
	if err != nil || string(got.Data) != data {
		t.Errorf("Get: %q, %v; want %q", got.Data, err, data)
	}
}

func wantProgress(t *testing.T, importer *movein.Importer, want movein.Progress) {
	t.Helper()
	if got, err := importer.Copy(t.Context()); got != want || err != nil {
		t.Errorf("copied %+v, %v; want %+v", got, err, want)
	}
}

func TestACopyThatWasCutOffGoesOn(t *testing.T) {
	t.Parallel()
	const rows = 1050
	w := newWorld(t, pgsession.Config{}, rows)
	ctx, cancel := context.WithCancel(t.Context())
	var reports []movein.Progress
	importer := w.importer(t, movein.Options{BatchSize: 100, Progress: func(p movein.Progress) {
		if reports = append(reports, p); len(reports) == 3 {
			cancel()
		}
	}})
	got, err := importer.Copy(ctx)
	if want := (movein.Progress{Total: rows, Copied: 300}); got != want || !errors.Is(err, context.Canceled) {
		t.Errorf("cut off: %+v, %v; want %+v", got, err, want)
	}
	// In between, one that was copied is ended, and its tombstone goes.
	id, err := w.store.ID(token(1))
	must(t, err)
	if n, err := w.store.Revoke(t.Context(), pgsession.Revocation{IDs: []pgsession.ID{id}}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	w.buryTombstones(t)

	wantProgress(t, importer, movein.Progress{Total: rows, Copied: rows - 300, Present: 300})
	wantProgress(t, importer, movein.Progress{Total: rows, Present: rows})
	if n := len(reports); n != 3+11+11 || reports[n-1].Present != rows {
		t.Errorf("%d reports, the last %+v", n, reports[n-1])
	}
	if n, err := w.store.Count(t.Context(), pgsession.Filter{}); n != rows-1 || err != nil {
		t.Errorf("%d sessions, %v; want %d", n, err, rows-1)
	}
	wantData(t, w.store, token(1), "")
	wantData(t, w.store, token(2), "data 2")
	wantData(t, w.store, token(rows), fmt.Sprint("data ", rows))
	var kept int
	must(t, w.pool.QueryRow(t.Context(), `select count(*) from `+oldTable.Sanitize()).Scan(&kept))
	if kept != rows {
		t.Errorf("the old table has %d rows, want all %d", kept, rows)
	}
}

func TestWhatTheStoreHasIsLeftAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgsession.Config{}, 3)
	_, err := w.store.Set(t.Context(), token(1), pgsession.Session{Data: []byte("newer")})
	must(t, err)
	_, err = w.store.Set(t.Context(), token(2), pgsession.Session{Data: []byte("ended")})
	must(t, err)
	_, err = w.store.Destroy(t.Context(), token(2))
	must(t, err)
	importer := w.importer(t, movein.Options{})
	wantProgress(t, importer, movein.Progress{Total: 3, Copied: 1, Present: 1, Ended: 1})
	wantData(t, importer.Through(), token(1), "newer")
	w.buryTombstones(t)
	wantData(t, importer.Through(), token(2), "")
	wantData(t, importer.Through(), token(3), "data 3")
	wantProgress(t, importer, movein.Progress{Total: 3, Present: 3})
}

// Copies, readers and logouts at once: what was ended is never seen again.
func TestNothingThatEndedComesBack(t *testing.T) {
	t.Parallel()
	const rows = 120
	w := newWorld(t, pgsession.Config{}, rows)
	importer := w.importer(t, movein.Options{BatchSize: 20})
	through := importer.Through()
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			if _, err := importer.Copy(t.Context()); err != nil {
				t.Error(err)
			}
		})
		group.Go(func() {
			for n := rows; n > 0; n-- {
				if _, err := through.Get(t.Context(), token(n)); err != nil && !errors.Is(err, pgsession.ErrNotFound) {
					t.Error(err)
				}
			}
		})
		group.Go(func() {
			for n := 2; n <= rows; n += 2 {
				if _, err := through.Destroy(t.Context(), token(n)); err != nil {
					t.Error(err)
				}
				wantData(t, through, token(n), "")
			}
		})
	}
	group.Wait()
	w.buryTombstones(t)
	// The application of before still runs, and its slow request brings its own session back.
	w.exec(t, `insert into {old} select 'token ' || n, 'late', now() + interval '1 hour' from generate_series(2, $1::int, 2) as n`, rows)
	wantProgress(t, importer, movein.Progress{Total: rows, Present: rows})
	for n := 1; n <= rows; n++ {
		want := fmt.Sprint("data ", n)
		if n%2 == 0 {
			want = ""
		}
		wantData(t, through, token(n), want)
	}
}

func TestARowThatIsBeingWritten(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgsession.Config{}, 2)
	importer := w.importer(t, movein.Options{})
	tx, err := w.pool.Begin(t.Context())
	must(t, err)
	defer func() { _ = tx.Rollback(context.Background()) }()
	_, err = tx.Exec(t.Context(), `update `+oldTable.Sanitize()+` set data = 'changed' where token = 'token 1'`)
	must(t, err)

	wantProgress(t, importer, movein.Progress{Total: 2, Copied: 1, Left: 1})
	if _, err := importer.Through().Get(t.Context(), token(1)); !errors.Is(err, pgsession.ErrBusy) {
		t.Errorf("Get meanwhile: %v, want %v", err, pgsession.ErrBusy)
	}
	must(t, tx.Commit(t.Context()))
	wantProgress(t, importer, movein.Progress{Total: 2, Copied: 1, Present: 1})
	wantData(t, w.store, token(1), "changed")
}

func TestEachMethodLooksThrough(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgsession.Config{}, 20)
	through := w.importer(t, movein.Options{}).Through()
	ctx := t.Context()

	wantData(t, through, token(1), "data 1")
	s, err := through.GetFresh(ctx, token(2))
	if err != nil || string(s.Data) != "data 2" {
		t.Errorf("GetFresh: %q, %v", s.Data, err)
	}
	failure := fmt.Errorf("the caller's own: %w", pgsession.ErrNotFound)
	for range 2 {
		calls := 0
		err := through.View(ctx, token(3), func(s pgsession.Session) error {
			calls++
			return failure
		})
		if !errors.Is(err, failure) || calls != 1 {
			t.Errorf("View: %v after %d calls", err, calls)
		}
	}
	if expires, err := through.Touch(ctx, token(4)); err != nil || time.Until(expires) < 59*time.Minute {
		t.Errorf("Touch: %v, %v", expires, err)
	}
	s, err = through.Update(ctx, token(5), func(s *pgsession.Session) error {
		s.Data = append(s.Data, '!')
		return nil
	})
	if err != nil || string(s.Data) != "data 5!" {
		t.Errorf("Update: %q, %v", s.Data, err)
	}
	if _, err := through.Update(ctx, token(6), nil); !errors.Is(err, pgsession.ErrInvalid) {
		t.Errorf("Update with nil: %v", err)
	}
	if _, err := through.Update(ctx, token(6), func(*pgsession.Session) error { return failure }); !errors.Is(err, failure) {
		t.Errorf("Update that fails: %v", err)
	}

	if _, err := through.Patch(ctx, token(18), []byte(`{}`)); !errors.Is(err, pgsession.ErrCodec) {
		t.Errorf("Patch of what is no JSON: %v", err)
	}
	renewed, s, err := through.Renew(ctx, token(19), pgsession.Renewal{Subject: "ada"})
	if err != nil || string(s.Data) != "data 19" {
		t.Errorf("Renew: %q, %v", s.Data, err)
	}
	wantData(t, through, renewed, "data 19")
	wantData(t, through, token(19), "")
	w.buryTombstones(t)
	wantData(t, through, token(19), "")

	// A blind Set, then an end that the old table hears nothing of.
	_, err = through.Set(ctx, token(7), pgsession.Session{Data: []byte("new")})
	must(t, err)
	id, err := through.ID(token(7))
	must(t, err)
	_, err = through.Revoke(ctx, pgsession.Revocation{IDs: []pgsession.ID{id}})
	must(t, err)
	w.buryTombstones(t)
	wantData(t, through, token(7), "")

	// Never imported, imported, both at once, unknown, and a second time.
	for _, c := range []struct {
		tokens []pgsession.Token
		want   int
	}{
		{[]pgsession.Token{token(8)}, 1},
		{[]pgsession.Token{token(1), token(9), "unknown"}, 2},
		{[]pgsession.Token{token(1), token(8)}, 0},
		{nil, 0},
	} {
		if n, err := through.Destroy(ctx, c.tokens...); n != c.want || err != nil {
			t.Errorf("Destroy of %d: %d, %v; want %d", len(c.tokens), n, err, c.want)
		}
	}
	if _, err := through.Destroy(ctx, make([]pgsession.Token, 1001)...); !errors.Is(err, pgsession.ErrInvalid) {
		t.Errorf("Destroy of 1,001: %v", err)
	}
	wantData(t, through, token(8), "")

	for _, strange := range []pgsession.Token{"", "\x00", "\xff", "x' or '1'='1", pgsession.Token(strings.Repeat("x", 2000))} {
		if _, err := through.Get(ctx, strange); !errors.Is(err, pgsession.ErrNotFound) {
			t.Errorf("Get of a strange token: %v", err)
		}
		if _, err := through.Destroy(ctx, strange); err != nil && !errors.Is(err, pgsession.ErrInvalidToken) {
			t.Errorf("Destroy of a strange token: %v", err)
		}
	}

	if n, err := through.Clear(ctx); n != 7 || err != nil { // 2 to 6, 18 and 19 are live, the rest of 10 to 20 was never imported
		t.Errorf("Clear: %d, %v; want 7", n, err)
	}
	w.buryTombstones(t)
	for n := 1; n <= 20; n++ {
		wantData(t, through, token(n), "")
	}
}

// With a cache, reads share loads, of which one may have begun before the import.
func TestParallelRequestsOfOneSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgsession.Config{}, 20)
	w.open(t, pgsession.Config{Listen: pgsession.ListenFrom(w.pool)})
	through := w.importer(t, movein.Options{}).Through()
	for n := 1; n <= 20; n++ {
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() { wantData(t, through, token(n), fmt.Sprint("data ", n)) })
		}
		group.Wait()
	}
}

// What the store would add to it, the library would not know of: scs writes its own deadline.
func TestASessionOfSCSKeepsItsDeadline(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgsession.Config{IdleTimeout: 2 * time.Hour, AbsoluteTimeout: 3 * time.Hour}, 1)
	wantProgress(t, w.importer(t, movein.Options{}), movein.Progress{Total: 1, Copied: 1})
	s, err := w.store.Get(t.Context(), token(1))
	must(t, err)
	if s.IdleTimeout < 59*time.Minute || s.IdleTimeout > time.Hour || s.AbsoluteTimeout != 3*time.Hour {
		t.Errorf("idle %v, absolute %v; an hour was left", s.IdleTimeout, s.AbsoluteTimeout)
	}
}

func TestConvert(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgsession.Config{
		Columns:     []pgsession.Column{{Name: "n", Type: "int4"}},
		IdleTimeout: time.Minute, AbsoluteTimeout: 2 * time.Hour, MaxDataSize: 10,
	}, 5)
	failure := errors.New("no such user")
	var fail, large bool
	importer := w.importer(t, movein.Options{Convert: func(s *pgsession.Session) error {
		number := strings.TrimPrefix(string(s.Data), "data ")
		switch {
		case fail:
			return failure
		case large:
			s.Data = make([]byte, 11)
		case number == "3":
			return fmt.Errorf("a test's: %w", movein.ErrSkip)
		}
		s.Subject, s.Data, s.Columns = "user "+number, []byte(`{}`), map[string]any{"n": number}
		s.Codec = pgsession.CodecJSON
		if large {
			s.Data = make([]byte, 11)
		}
		return nil
	}})
	fail = true
	for what, err := range map[string]error{
		"Copy": second(importer.Copy(t.Context())), "Get": second(importer.Through().Get(t.Context(), token(1))),
	} {
		if !errors.Is(err, failure) || strings.Contains(err.Error(), "token") {
			t.Errorf("%s: %v", what, err)
		}
	}
	fail, large = false, true
	if _, err := importer.Copy(t.Context()); !errors.Is(err, pgsession.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	large = false
	wantProgress(t, importer, movein.Progress{Total: 5, Copied: 4, Skipped: 1})
	wantData(t, importer.Through(), token(3), "")
	s, err := w.store.Get(t.Context(), token(4))
	must(t, err)
	if s.Subject != "user 4" || string(s.Data) != `{}` || s.Codec != pgsession.CodecJSON || s.Columns["n"] != "4" ||
		s.IdleTimeout < 59*time.Minute || s.IdleTimeout > time.Hour || s.AbsoluteTimeout != 2*time.Hour {
		t.Errorf("imported %+v", s)
	}
}

func second[T any](_ T, err error) error { return err }

// reversed is a codec at rest.
type reversed struct{}

func (reversed) Number() int16 { return 100 }
func (reversed) Encode(_ pgsession.ID, data []byte) ([]byte, error) {
	out := make([]byte, len(data))
	for i, b := range data {
		out[len(data)-1-i] = b
	}
	return out, nil
}

func (r reversed) Decode(id pgsession.ID, stored []byte) ([]byte, error) { return r.Encode(id, stored) }

func TestTheStoresCodecAndKeyFuncAreUsed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgsession.Config{
		Codec: reversed{}, KeyFunc: func(token string) string { return fmt.Sprintf("key-%x", token) },
	}, 2)
	importer := w.importer(t, movein.Options{})
	wantProgress(t, importer, movein.Progress{Total: 2, Copied: 2})
	wantData(t, w.store, token(2), "data 2")
	var stored string
	must(t, w.pool.QueryRow(t.Context(), `select convert_from(data, 'UTF8') from pgsession.session where id = $1`,
		fmt.Sprintf("key-%x", string(token(2)))).Scan(&stored))
	if stored != "2 atad" {
		t.Errorf("stored is %q", stored)
	}
}

func TestSessionsMoveInEncryptedAndUnderAPepper(t *testing.T) {
	t.Parallel()
	codec, err := pgsession.Encrypt(pgsession.Encryption{
		Keys: []pgsession.Key{{ID: "k1", Secret: pgsession.Secret(strings.Repeat("k", 32))}},
	})
	must(t, err)
	pepper := pgsession.Secret(strings.Repeat("p", 32))
	w := newWorld(t, pgsession.Config{Codec: codec, Peppers: []pgsession.Secret{pepper}}, 3)
	importer := w.importer(t, movein.Options{})
	through := importer.Through()
	got, err := through.Get(t.Context(), token(1))
	if err != nil || string(got.Data) != "data 1" {
		t.Fatalf("got %q, %v", got.Data, err)
	}
	wantProgress(t, importer, movein.Progress{Total: 3, Copied: 2, Present: 1})
	wantData(t, w.store, token(2), "data 2")
	next, renewed, err := through.Renew(t.Context(), token(2), pgsession.Renewal{Subject: "ada"})
	must(t, err)
	if got, err = w.store.Get(t.Context(), next); err != nil || string(got.Data) != "data 2" || got.ID != renewed.ID {
		t.Errorf("got %q, %v", got.Data, err)
	}
	if n, err := through.Destroy(t.Context(), token(1)); n != 1 || err != nil {
		t.Errorf("destroyed %d, %v", n, err)
	}
	if _, err = through.Get(t.Context(), token(1)); !errors.Is(err, pgsession.ErrNotFound) {
		t.Errorf("get of what was destroyed: %v", err)
	}
}

func TestAWrongConfigurationIsAnError(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgsession.Config{}, 0)
	keyed, err := pgsession.New(w.query, pgsession.Config{KeyFunc: func(string) string { return "key" }})
	must(t, err)
	one, two := pgsession.Secret(strings.Repeat("1", 32)), pgsession.Secret(strings.Repeat("2", 32))
	peppered, err := pgsession.New(w.query, pgsession.Config{Peppers: []pgsession.Secret{one}})
	must(t, err)
	rotating, err := pgsession.New(w.query, pgsession.Config{Peppers: []pgsession.Secret{one, two}})
	must(t, err)
	table := pgx.Identifier{"sessions"}
	for name, c := range map[string]struct {
		query   pgsession.QueryFunc
		store   *pgsession.Store
		source  movein.Source
		options movein.Options
	}{
		"no query":        {nil, w.store, movein.SCS(table), movein.Options{}},
		"no store":        {w.query, nil, movein.SCS(table), movein.Options{}},
		"a batch size":    {w.query, w.store, movein.SCS(table), movein.Options{BatchSize: -1}},
		"no table":        {w.query, w.store, movein.SCS(nil), movein.Options{}},
		"an empty name":   {w.query, w.store, movein.Gofiber(pgx.Identifier{"public", ""}), movein.Options{}},
		"no zone":         {w.query, w.store, movein.ConnectPgSimple(table, ""), movein.Options{}},
		"no decoding":     {w.query, w.store, movein.PGStore(table, nil), movein.Options{}},
		"a hash's prefix": {w.query, w.store, movein.SCSHashed(table), movein.Options{TrimPrefix: "x"}},
		"another KeyFunc": {w.query, keyed, movein.SCSHashed(table), movein.Options{}},
		"a pepper":        {w.query, peppered, movein.SCSHashed(table), movein.Options{}},
		"two peppers":     {w.query, rotating, movein.SCS(table), movein.Options{}},
	} {
		if _, err := movein.New(c.query, c.store, c.source, c.options); !errors.Is(err, pgsession.ErrInvalid) {
			t.Errorf("%s: %v, want %v", name, err, pgsession.ErrInvalid)
		}
	}
	// What only the database can tell is its error, and no session is taken for gone.
	for _, source := range []movein.Source{
		movein.SCS(pgx.Identifier{"no such table"}), movein.ConnectPgSimple(oldTable, "No/Such"),
	} {
		importer, err := movein.New(w.query, w.store, source, movein.Options{})
		must(t, err)
		if _, err := importer.Copy(t.Context()); err == nil {
			t.Error("Copy: no error")
		}
		if _, err := importer.Through().Get(t.Context(), "token"); err == nil || errors.Is(err, pgsession.ErrNotFound) {
			t.Errorf("Get: %v", err)
		}
	}
}
