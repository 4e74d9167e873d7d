package libraries_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/webtest"
	"github.com/pgsession/pgsession/movein"
)

func TestMain(m *testing.M) {
	var ignored []goleak.Option
	for _, name := range []string{
		"github.com/alexedwards/scs/v2/memstore.(*MemStore).startCleanup", // each scs.New begins with one
		// What fasthttp leaves behind, for ten seconds or for ever.
		"github.com/valyala/fasthttp.(*workerPool).Start.func2",
		"github.com/valyala/fasthttp.updateServerDate.func1",
	} {
		ignored = append(ignored, goleak.IgnoreAnyFunction(name))
	}
	pgtest.Main(m, ignored...)
}

// zone is the time zone of every database here, far from that of the machine: some columns have none.
const zone = "Asia/Tokyo"

// library is an application on a library, before and after. Its routes are GET /, which says who one is
// and counts the visits, POST /login/USER and POST /logout.
type library struct {
	old, new func(t *testing.T, database string, importer *movein.Importer) (url string, stop func())
	later    func(t *testing.T, database string, importer *movein.Importer) (url string, stop func()) // nil: new
	source   func() movein.Source
	prefix   string // of keys
	create   string // the table, where the library does not
	expire   string // makes a user's session one of yesterday
	count    string // the rows of the old table
}

var libraries = map[string]library{
	"connect-pg-simple":    connectPgSimple,
	"koa-pg-session":       koaPgSession,
	"scs pgxstore":         scsLibrary(pgxSCS, false),
	"scs postgresstore":    scsLibrary(sqlSCS, false),
	"scs HashTokenInStore": scsLibrary(pgxSCS, true),
	"gorilla pgstore":      gorillaPGStore,
	"gofiber storage":      gofiber,
}

// setup makes a database with the old table, a store and an importer.
func setup(t *testing.T, l library) (url string, pool *pgxpool.Pool, store *pgsession.Store, importer *movein.Importer) {
	t.Helper()
	url = pgtest.Database(t)
	pool = pgtest.Connect(t, url)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := pool.Exec(t.Context(), `do $$ begin
		execute format('alter database %I set timezone to %L', current_database(), '`+zone+`'); end $$`)
	must(err)
	pool.Reset()
	if l.create != "" {
		_, err = pool.Exec(t.Context(), l.create)
		must(err)
	}
	// A short idle timeout, so that what is left of an imported session can be told.
	store, err = pgsession.New(pool.Query, pgsession.Config{IdleTimeout: time.Minute})
	must(err)
	t.Cleanup(func() { _ = store.Close() })
	must(store.Setup(t.Context()))
	importer, err = movein.New(pool.Query, store, l.source(), movein.Options{TrimPrefix: l.prefix})
	must(err)
	must(importer.Setup(t.Context()))
	return url, pool, store, importer
}

func TestLoginsGoOn(t *testing.T) {
	t.Parallel()
	nodeDir = nodeModules(t)
	for name, l := range libraries {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, pool, store, importer := setup(t, l)
			before, stop := l.old(t, url, nil)
			ada, bob, carol, dan := webtest.NewBrowser(t), webtest.NewBrowser(t), webtest.NewBrowser(t), webtest.NewBrowser(t)
			for user, b := range map[string]*webtest.Browser{"ada": ada, "bob": bob, "dan": dan} {
				b.Post(before + "/login/" + user)
				b.Want(http.MethodGet, before+"/", user+" 1")
			}
			carol.Post(before + "/login/carol")
			if tag, err := pool.Exec(t.Context(), l.expire, "carol"); err != nil || tag.RowsAffected() != 1 {
				t.Fatalf("carol's session: %v, %v", tag, err)
			}
			stop()

			// Dan comes while the copy has not begun, and leaves. Ada comes, and stays.
			after, stop := l.new(t, url, importer)
			ada.Want(http.MethodGet, after+"/", "ada 2")
			thief := dan.Copy(after)
			dan.Want(http.MethodGet, after+"/", "dan 2")
			dan.Post(after + "/logout")
			dan.Want(http.MethodGet, after+"/", "nobody 1")
			// Tombstones do not last.
			if _, err := pool.Exec(t.Context(), `delete from pgsession.session where revoked_at is not null`); err != nil {
				t.Fatal(err)
			}

			want := movein.Progress{Total: 2, Copied: 1, Present: 1}
			for range 2 {
				if got, err := importer.Copy(t.Context()); got != want || err != nil {
					t.Errorf("copied %+v, %v; want %+v", got, err, want)
				}
				want = movein.Progress{Total: 2, Present: 2}
			}
			wantLeft(t, store)
			// The server is restarted in between; of Node's it is one with pgsession's store.
			stop()
			if l.later != nil {
				l.new = l.later
			}
			after, _ = l.new(t, url, importer)
			ada.Want(http.MethodGet, after+"/", "ada 3")
			bob.Want(http.MethodGet, after+"/", "bob 2")
			carol.Want(http.MethodGet, after+"/", "nobody 1")
			thief.Want(http.MethodGet, after+"/", "nobody 1")

			// Of the old table nothing is gone but what was ended.
			var rows int
			if err := pool.QueryRow(t.Context(), l.count).Scan(&rows); err != nil || rows != 3 {
				t.Errorf("the old table has %d rows, %v; want ada's, bob's and carol's", rows, err)
			}
		})
	}
}

// wantLeft checks that imported sessions live as long as they would have: an hour, or a month.
func wantLeft(t *testing.T, store *pgsession.Store) {
	t.Helper()
	lasting := 0
	for session, err := range store.All(t.Context(), pgsession.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		left := time.Until(session.ExpiresAt)
		hour := left > 58*time.Minute && left <= time.Hour+time.Second
		month := left > 29*24*time.Hour && left <= 30*24*time.Hour+time.Second
		fresh := left <= time.Minute // a visitor's of the new application, by the store's own timeout
		if hour || month {
			lasting++
		} else if !fresh {
			t.Errorf("session %s, created at %v, has %v left", session.ID, session.CreatedAt, left)
		}
	}
	if lasting < 2 {
		t.Errorf("%d sessions live as long as they would have, want ada's and bob's", lasting)
	}
}
