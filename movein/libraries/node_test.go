package libraries_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/process"
	"github.com/pgsession/pgsession/movein"
)

// nodeDir has the applications, pgsession's stores and all packages, for as long as TestLoginsGoOn runs.
var nodeDir string

func nodeModules(t *testing.T) string {
	t.Helper()
	files := map[string]string{}
	for _, pattern := range []string{"testdata/*", "../../examples/node/*-store.mjs", "../../examples/node/sessions.mjs"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files[filepath.Base(name)] = string(text)
		}
	}
	return process.NodeModules(t, files)
}

func nodeApp(program, store string) func(t *testing.T, database string, _ *movein.Importer) (string, func()) {
	return func(t *testing.T, database string, _ *movein.Importer) (string, func()) {
		t.Helper()
		// The zone of Node's connections is the database's, which the source is told.
		server := process.StartIn(t, nodeDir, []string{"DATABASE_URL=" + database, "STORE=" + store}, "node", program)
		return server.URL, func() { server.Kill(t) }
	}
}

// fromNode is the application in Go, with the sessions that Node has begun.
func fromNode(cookieName string) func(t *testing.T, _ string, importer *movein.Importer) (string, func()) {
	token := func(r *http.Request) pgsession.Token {
		cookie, err := r.Cookie(cookieName)
		if err != nil {
			return ""
		}
		value, _ := url.QueryUnescape(cookie.Value)
		sid, _, _ := strings.Cut(strings.TrimPrefix(value, "s:"), ".") // before the signature
		return pgsession.Token(sid)
	}
	return func(t *testing.T, _ string, importer *movein.Importer) (string, func()) {
		t.Helper()
		sessions := importer.Through()
		mux := http.NewServeMux()
		mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
			var value map[string]any
			_, err := sessions.Update(r.Context(), token(r), func(s *pgsession.Session) (err error) {
				value = nil
				if err = json.Unmarshal(s.Data, &value); err != nil {
					return err
				}
				visits, _ := value["visits"].(float64)
				value["visits"] = visits + 1
				s.Data, err = json.Marshal(value)
				return err
			})
			switch {
			case errors.Is(err, pgsession.ErrNotFound):
				fmt.Fprint(w, "nobody 1")
			case err != nil:
				http.Error(w, err.Error(), http.StatusInternalServerError)
			default:
				fmt.Fprintf(w, "%v %v", value["user"], value["visits"])
			}
		})
		mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
			if n, err := sessions.Destroy(r.Context(), token(r)); n != 1 || err != nil {
				http.Error(w, fmt.Sprint(n, err), http.StatusInternalServerError)
			}
		})
		return serve(t, mux)
	}
}

var connectPgSimple = library{
	old:    nodeApp("express.mjs", "old"),
	new:    fromNode("connect.sid"),
	later:  nodeApp("express.mjs", "new"),
	source: func() movein.Source { return movein.ConnectPgSimple(pgx.Identifier{"public", "session"}, zone) },
	expire: `update public.session set expire = expire - interval '1 day' where sess::jsonb ->> 'user' = $1`,
	count:  `select count(*) from public.session`,
}

var koaPgSession = library{
	old:    nodeApp("koa-old.cjs", "old"),
	new:    fromNode("koa.sid"),
	later:  nodeApp("koa-new.mjs", "new"),
	source: func() movein.Source { return movein.KoaPgSession(pgx.Identifier{"public", "session"}, zone) },
	prefix: "koa:sess:",
	expire: `update public.session set expiry = expiry - interval '1 day' where session::jsonb ->> 'user' = $1`,
	count:  `select count(*) from public.session`,
}
