package libraries_test

import (
	"bytes"
	"database/sql"
	"encoding/gob"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/alexedwards/scs/pgxstore"
	"github.com/alexedwards/scs/postgresstore"
	"github.com/alexedwards/scs/v2"
	"github.com/antonlindstrom/pgstore"
	"github.com/gofiber/fiber/v3"
	fibersession "github.com/gofiber/fiber/v3/middleware/session"
	fiberpostgres "github.com/gofiber/storage/postgres/v3"
	"github.com/gorilla/securecookie"
	gorilla "github.com/gorilla/sessions"
	"github.com/jackc/pgx/v5"
	_ "github.com/lib/pq"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/fiberstorage"
	"github.com/pgsession/pgsession/gorillastore"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/movein"
	"github.com/pgsession/pgsession/scsstore"
)

// The table that scs's documentation tells to create.
const createSCS = `
create table sessions (token text primary key, data bytea not null, expiry timestamptz not null);
create index sessions_expiry_idx on sessions (expiry)`

func scsApp(store scs.Store, hashed bool) http.Handler {
	manager := scs.New()
	manager.Store = store
	manager.HashTokenInStore = hashed
	manager.Lifetime = time.Hour
	if _, ok := store.(*scsstore.Store); ok {
		manager.Codec, manager.ErrorFunc = scsstore.Codec{}, scsstore.ErrorFunc(nil)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		visits := manager.GetInt(r.Context(), "visits") + 1
		manager.Put(r.Context(), "visits", visits)
		user := manager.GetString(r.Context(), "user")
		if user == "" {
			user = "nobody"
		}
		fmt.Fprintf(w, "%s %d", user, visits)
	})
	mux.HandleFunc("POST /login/{user}", func(_ http.ResponseWriter, r *http.Request) {
		if err := manager.RenewToken(r.Context()); err != nil {
			panic(err)
		}
		manager.Put(r.Context(), "user", r.PathValue("user"))
	})
	mux.HandleFunc("POST /logout", func(_ http.ResponseWriter, r *http.Request) {
		if err := manager.Destroy(r.Context()); err != nil {
			panic(err)
		}
	})
	return manager.LoadAndSave(mux)
}

func serve(t *testing.T, handler http.Handler) (string, func()) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL, server.Close
}

func newSCS(t *testing.T, _ string, importer *movein.Importer) (string, func()) {
	t.Helper()
	store, err := scsstore.New(importer.Through(), scsstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, scsApp(store, false))
}

func scsLibrary(open func(t *testing.T, database string) scs.Store, hashed bool) library {
	return library{
		old: func(t *testing.T, database string, _ *movein.Importer) (string, func()) {
			t.Helper()
			return serve(t, scsApp(open(t, database), hashed))
		},
		new: newSCS,
		source: func() movein.Source {
			if hashed {
				return movein.SCSHashed(pgx.Identifier{"sessions"})
			}
			return movein.SCS(pgx.Identifier{"public", "sessions"})
		},
		create: createSCS,
		expire: `update sessions set expiry = expiry - interval '1 day' where position($1::text::bytea in data) > 0`,
		count:  `select count(*) from sessions`,
	}
}

func pgxSCS(t *testing.T, database string) scs.Store {
	t.Helper()
	return pgxstore.NewWithCleanupInterval(pgtest.Connect(t, database), 0)
}

func sqlDB(t *testing.T, database string) *sql.DB {
	t.Helper()
	db, err := sql.Open("postgres", database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func sqlSCS(t *testing.T, database string) scs.Store {
	t.Helper()
	return postgresstore.NewWithCleanupInterval(sqlDB(t, database), 0)
}

const gorillaName = "gorilla-session"

var gorillaKeys = [][]byte{bytes.Repeat([]byte("h"), 32), bytes.Repeat([]byte("b"), 32)}

func gorillaApp(store gorilla.Store) http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(w http.ResponseWriter, r *http.Request, s *gorilla.Session) string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			session, err := store.Get(r, gorillaName)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			body := f(w, r, session)
			if err := session.Save(r, w); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			fmt.Fprint(w, body)
		})
	}
	handle("GET /", func(_ http.ResponseWriter, _ *http.Request, s *gorilla.Session) string {
		visits, _ := s.Values["visits"].(int)
		s.Values["visits"] = visits + 1
		user, ok := s.Values["user"].(string)
		if !ok {
			user = "nobody"
		}
		return fmt.Sprintf("%s %d", user, visits+1)
	})
	handle("POST /login/{user}", func(_ http.ResponseWriter, r *http.Request, s *gorilla.Session) string {
		s.Values["user"] = r.PathValue("user")
		return ""
	})
	handle("POST /logout", func(_ http.ResponseWriter, _ *http.Request, s *gorilla.Session) string {
		s.Options.MaxAge = -1
		return ""
	})
	return mux
}

func gobValues(values map[any]any) ([]byte, error) {
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(values)
	return b.Bytes(), err
}

var gorillaPGStore = library{
	old: func(t *testing.T, database string, _ *movein.Importer) (string, func()) {
		t.Helper()
		store, err := pgstore.NewPGStoreFromPool(sqlDB(t, database), gorillaKeys...)
		if err != nil {
			t.Fatal(err)
		}
		return serve(t, gorillaApp(store))
	},
	new: func(t *testing.T, _ string, importer *movein.Importer) (string, func()) {
		t.Helper()
		store, err := gorillastore.New(importer.Through(), gorillastore.Config{}, gorillaKeys...)
		if err != nil {
			t.Fatal(err)
		}
		return serve(t, gorillaApp(store))
	},
	source: func() movein.Source {
		codecs := securecookie.CodecsFromPairs(gorillaKeys...)
		return movein.PGStore(pgx.Identifier{"http_sessions"}, func(stored []byte) ([]byte, error) {
			values := map[any]any{}
			if err := securecookie.DecodeMulti(gorillaName, string(stored), &values, codecs...); err != nil {
				return nil, err
			}
			return gobValues(values)
		})
	},
	// What it stores says nothing of the user: carol came last.
	expire: `update http_sessions set expires_on = expires_on - interval '40 days'
              where id = (select max(id) from http_sessions) and $1 <> ''`,
	count: `select count(*) from http_sessions`,
}

func fiberApp(t *testing.T, storage fiber.Storage) (string, func()) {
	t.Helper()
	app := fiber.New()
	app.Use(fibersession.New(fibersession.Config{
		Storage: storage, IdleTimeout: time.Hour,
		ErrorHandler: func(c fiber.Ctx, err error) {
			if !errors.Is(err, pgsession.ErrRevoked) {
				fibersession.DefaultErrorHandler(c, err)
			}
		},
	}))
	app.Get("/", func(c fiber.Ctx) error {
		s := fibersession.FromContext(c)
		visits, _ := s.Get("visits").(int)
		s.Set("visits", visits+1)
		user, ok := s.Get("user").(string)
		if !ok {
			user = "nobody"
		}
		return c.SendString(fmt.Sprintf("%s %d", user, visits+1))
	})
	app.Post("/login/:user", func(c fiber.Ctx) error {
		s := fibersession.FromContext(c)
		if err := s.Regenerate(); err != nil {
			return err
		}
		s.Set("user", string([]byte(c.Params("user"))))
		return nil
	})
	app.Post("/logout", func(c fiber.Ctx) error { return fibersession.FromContext(c).Destroy() })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = app.Listener(listener, fiber.ListenConfig{DisableStartupMessage: true}) }()
	stop := func() { _ = app.ShutdownWithTimeout(5 * time.Second) }
	t.Cleanup(stop)
	return "http://" + listener.Addr().String(), stop
}

var gofiber = library{
	old: func(t *testing.T, database string, _ *movein.Importer) (string, func()) {
		t.Helper()
		storage := fiberpostgres.New(fiberpostgres.Config{ConnectionURI: database})
		t.Cleanup(func() { _ = storage.Close() })
		return fiberApp(t, storage)
	},
	new: func(t *testing.T, _ string, importer *movein.Importer) (string, func()) {
		t.Helper()
		storage, err := fiberstorage.Sessions(importer.Through(), fiberstorage.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return fiberApp(t, storage)
	},
	source: func() movein.Source { return movein.Gofiber(pgx.Identifier{"public", "fiber_storage"}) },
	expire: `update fiber_storage set e = e - 86400 where position($1::text::bytea in v) > 0`,
	count:  `select count(*) from fiber_storage`,
}
