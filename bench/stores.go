package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alexedwards/scs/pgxstore"
	"github.com/alexedwards/scs/postgresstore"
	"github.com/antonlindstrom/pgstore"
	fiber "github.com/gofiber/storage/postgres/v3"
	"github.com/gorilla/securecookie"
	gorilla "github.com/gorilla/sessions"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
)

// sessionStore is a store as its own middleware uses it: bytes in, bytes out. With an idle timeout scs's
// commits the session after each request, and so do fiber's and gorilla's; those have no other touch.
// A key is what the store itself, or the middleware, makes of random bytes and puts into the cookie.
type sessionStore interface {
	create(ctx context.Context, data []byte) (key string, err error)
	read(ctx context.Context, key string) ([]byte, error) // pgsession.ErrNotFound
	write(ctx context.Context, key string, data []byte) error
	touch(ctx context.Context, key string, data []byte) error
	destroy(ctx context.Context, key string) error
	close() error // what it opened itself
}

// place is where a store is opened.
type place struct {
	url     string
	pool    *pgxpool.Pool // for those who use pgx
	clients int           // who call at once at most
	*clock
}

// newKey is how scs makes its tokens; other middleware is much the same.
func newKey() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // it never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// present is for stores that answer what is not there without an error.
func present(data []byte, found bool, err error) ([]byte, error) {
	if err == nil && !found {
		err = pgsession.ErrNotFound
	}
	return data, err
}

// ours reads from the database; from the cache by get and view.
type ours struct {
	store *pgsession.Store
	seen  *atomic.Int64 // so that a read is one
}

func newOurs(pool *pgxpool.Pool, cfg pgsession.Config) (ours, error) {
	store, err := pgsession.New(pool.Query, cfg)
	return ours{store, new(atomic.Int64)}, err
}

func (s ours) create(ctx context.Context, data []byte) (string, error) {
	token, _, err := s.store.Create(ctx, pgsession.Session{Data: data})
	return string(token), err
}

func (s ours) read(ctx context.Context, key string) ([]byte, error) {
	session, err := s.store.GetFresh(ctx, pgsession.Token(key))
	return session.Data, err
}

func (s ours) get(ctx context.Context, key string) ([]byte, error) {
	session, err := s.store.Get(ctx, pgsession.Token(key))
	return session.Data, err
}

func (s ours) view(ctx context.Context, key string) error {
	return s.store.View(ctx, pgsession.Token(key), s.look)
}

func (s ours) look(session pgsession.Session) error {
	if len(session.Data) == 0 {
		s.seen.Add(1)
	}
	return nil
}

func (s ours) write(ctx context.Context, key string, data []byte) error {
	_, err := s.store.Set(ctx, pgsession.Token(key), pgsession.Session{Data: data})
	return err
}

func (s ours) touch(ctx context.Context, key string, _ []byte) error {
	_, err := s.store.Touch(ctx, pgsession.Token(key))
	return err
}

func (s ours) destroy(ctx context.Context, key string) error {
	_, err := s.store.Destroy(ctx, pgsession.Token(key))
	return err
}

func (s ours) close() error { return s.store.Close() }

// scs is its pgxstore. The middleware hashes keys where it is asked to, which costs about what ours does.
type scs struct {
	store *pgxstore.PostgresStore
	idle  time.Duration
}

func (s scs) create(ctx context.Context, data []byte) (string, error) {
	key := newKey()
	return key, s.write(ctx, key, data)
}

func (s scs) read(ctx context.Context, key string) ([]byte, error) {
	return present(s.store.FindCtx(ctx, key))
}

func (s scs) touch(ctx context.Context, key string, data []byte) error {
	return s.write(ctx, key, data)
}

func (s scs) write(ctx context.Context, key string, data []byte) error {
	return s.store.CommitCtx(ctx, key, data, time.Now().Add(s.idle))
}

func (s scs) destroy(ctx context.Context, key string) error {
	return s.store.DeleteCtx(ctx, key)
}

func (s scs) close() error { return nil }

// scsWithout is a store of scs's that knows no contexts: postgresstore and redisstore.
type scsWithout struct {
	store interface {
		Find(token string) ([]byte, bool, error)
		Commit(token string, b []byte, expiry time.Time) error
		Delete(token string) error
	}
	closeAll func() error
}

func (s scsWithout) create(ctx context.Context, data []byte) (string, error) {
	key := newKey()
	return key, s.write(ctx, key, data)
}

func (s scsWithout) read(_ context.Context, key string) ([]byte, error) {
	return present(s.store.Find(key))
}

func (s scsWithout) touch(ctx context.Context, key string, data []byte) error {
	return s.write(ctx, key, data)
}

func (s scsWithout) write(_ context.Context, key string, data []byte) error {
	return s.store.Commit(key, data, time.Now().Add(idleTimeout))
}

func (s scsWithout) destroy(_ context.Context, key string) error { return s.store.Delete(key) }

func (s scsWithout) close() error { return s.closeAll() }

// openPQ opens a pool of lib/pq's. database/sql keeps two idle connections if nobody asks for more, and
// opens one for nearly every call of 8 clients then; no README says so, but whoever measures asks.
func openPQ(at place) (*sql.DB, error) {
	db, err := sql.Open("postgres", at.url)
	if err == nil {
		db.SetMaxOpenConns(at.clients)
		db.SetMaxIdleConns(at.clients)
	}
	return db, err
}

func openPostgresstore(at place) (sessionStore, error) {
	db, err := openPQ(at)
	if err != nil {
		return nil, err
	}
	return scsWithout{postgresstore.NewWithCleanupInterval(db, 0), db.Close}, nil
}

type fiberStore struct {
	store *fiber.Storage
	clock *clock
}

func (s fiberStore) create(ctx context.Context, data []byte) (string, error) {
	key := newKey()
	return key, s.write(ctx, key, data)
}

func (s fiberStore) read(ctx context.Context, key string) ([]byte, error) {
	data, err := s.store.GetWithContext(ctx, key)
	return present(data, data != nil, err)
}

func (s fiberStore) touch(ctx context.Context, key string, data []byte) error {
	return s.write(ctx, key, data)
}

func (s fiberStore) write(ctx context.Context, key string, data []byte) error {
	now := time.Now()
	deadline := s.clock.fiberTime(s.clock.long(now.Sub(s.clock.start)) + idleTimeout)
	return s.store.SetWithContext(ctx, key, data, deadline.Sub(now))
}

func (s fiberStore) destroy(ctx context.Context, key string) error {
	return s.store.DeleteWithContext(ctx, key)
}

func (s fiberStore) close() error { return nil } // its pool is not its own

// gorillaStore is pgstore. It takes and gives HTTP: reading is New with the request's cookie, and saving
// is Save. What is stored is signed and, by gob and base64, a third longer.
type gorillaStore struct {
	store   *pgstore.PGStore
	cookies *sync.Map // by key: the browsers
}

const gorillaName = "session"

var gorillaSecret = []byte("a key of thirty-two bytes, or so")

func openGorilla(at place) (sessionStore, error) {
	db, err := openPQ(at)
	if err != nil {
		return nil, err
	}
	store, err := pgstore.NewPGStoreFromPool(db, gorillaSecret)
	if err != nil {
		return nil, err
	}
	store.MaxLength(1 << 20) // 4,096 by default, of what is stored
	store.MaxAge(int(idleTimeout.Seconds()))
	return gorillaStore{store, new(sync.Map)}, nil
}

// encodeGorilla is what the store makes of data.
func encodeGorilla(data []byte) (string, error) {
	codec := securecookie.New(gorillaSecret, nil)
	codec.MaxLength(1 << 20)
	return securecookie.EncodeMulti(gorillaName, map[any]any{"data": data}, codec)
}

func (s gorillaStore) session(key string, data []byte) *gorilla.Session {
	session := gorilla.NewSession(s.store, gorillaName)
	options := *s.store.Options
	session.ID, session.Options = key, &options
	session.Values["data"] = data
	return session
}

func (s gorillaStore) create(_ context.Context, data []byte) (string, error) {
	session := s.session("", data)
	session.IsNew = true
	err := s.store.Save(nil, nowhere{}, session)
	return session.ID, err
}

func (s gorillaStore) read(ctx context.Context, key string) ([]byte, error) {
	cookie, ok := s.cookies.Load(key)
	if !ok {
		value, err := securecookie.EncodeMulti(gorillaName, key, s.store.Codecs...)
		if err != nil {
			return nil, err
		}
		cookie = gorillaName + "=" + value
		s.cookies.Store(key, cookie)
	}
	request := (&http.Request{Header: http.Header{"Cookie": {cookie.(string)}}}).WithContext(ctx)
	session, err := s.store.New(request, gorillaName)
	if err != nil {
		return nil, err
	}
	data, _ := session.Values["data"].([]byte)
	return present(data, !session.IsNew, nil)
}

func (s gorillaStore) write(_ context.Context, key string, data []byte) error {
	return s.store.Save(nil, nowhere{}, s.session(key, data))
}

func (s gorillaStore) touch(ctx context.Context, key string, data []byte) error {
	return s.write(ctx, key, data)
}

func (s gorillaStore) destroy(_ context.Context, key string) error {
	session := s.session(key, nil)
	session.Options.MaxAge = -1
	return s.store.Save(nil, nowhere{}, session)
}

func (s gorillaStore) close() error {
	s.store.Close()
	return nil
}

// nowhere is a response that is not sent.
type nowhere struct{}

func (nowhere) Header() http.Header         { return http.Header{} }
func (nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (nowhere) WriteHeader(int)             {}
