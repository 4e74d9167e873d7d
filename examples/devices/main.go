// Devices is a page on which users see where they are logged in, and end what is not theirs.
package main

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"log"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strings"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/examples/visits"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	store, err := pgsession.Open(ctx, os.Getenv("DATABASE_URL"), pgsession.Config{
		Columns: []pgsession.Column{{Name: "user_agent", Type: "text"}, {Name: "ip", Type: "inet"}},
	})
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.Setup(ctx); err != nil { // adds the columns, where the table is there without them
		return err
	}
	return visits.ServeHandler(ctx, handler(store))
}

// device is what the columns tell of a request. Behind a proxy of yours RemoteAddr is the proxy's: take
// the header then that it sets, and only then, since anyone can send one.
func device(r *http.Request) map[string]any {
	columns := map[string]any{"user_agent": clean(r.UserAgent()), "ip": nil}
	if address, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		columns["ip"] = address.Addr().Unmap().WithZone("") // inet has no zones
	}
	return columns
}

var page = template.Must(template.New("").Parse(`<!doctype html><title>My devices</title>
{{range .Sessions}}<form method="post" action="/devices/{{.ID}}/end">
{{.Columns.user_agent}} at {{.Columns.ip}}, since {{.CreatedAt.Format "2 January 15:04"}}
{{if eq .ID $.Current}}(this one){{else}}<button>Log it out</button>{{end}}
</form>
{{end}}<form method="post" action="/devices/others/end"><button>Log all others out</button></form>
`))

func handler(store *pgsession.Store) http.Handler {
	mux := http.NewServeMux()
	// handle calls f with the visitor's session. It has a subject, so that nobody acts for everyone.
	handle := func(pattern string, f func(w http.ResponseWriter, r *http.Request, s pgsession.Session) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			session, err := store.Get(r.Context(), visits.Token(r))
			if err == nil && session.Subject == "" {
				err = pgsession.ErrNotFound
			}
			if err == nil { // it was used
				_, err = store.Touch(r.Context(), visits.Token(r))
			}
			if err == nil {
				err = f(w, r, session)
			}
			switch {
			case visits.Gone(err):
				http.Error(w, "log in first", http.StatusUnauthorized)
			case errors.Is(err, pgsession.ErrInvalid):
				http.Error(w, "there is no such device", http.StatusBadRequest)
			case err != nil:
				http.Error(w, "try again later", http.StatusServiceUnavailable)
			}
		})
	}
	// A password would be checked here. There is nothing in a session but the device, so a login begins a new
	// one, rather than renew the old. That ends first: it may have been planted, or be another user's.
	mux.HandleFunc("POST /login/{user}", func(w http.ResponseWriter, r *http.Request) {
		var next pgsession.Token
		_, err := store.Destroy(r.Context(), visits.Token(r))
		if err == nil || visits.Gone(err) {
			next, _, err = store.Create(r.Context(), pgsession.Session{Subject: r.PathValue("user"), Columns: device(r)})
		}
		if err != nil {
			http.Error(w, "try again later", http.StatusServiceUnavailable)
			return
		}
		visits.SetCookie(w, next, 0)
		fmt.Fprintln(w, "logged in")
	})
	handle("GET /devices", func(w http.ResponseWriter, r *http.Request, s pgsession.Session) error {
		var sessions []pgsession.Session
		for device, err := range store.All(r.Context(), pgsession.Filter{Subject: s.Subject}) {
			if err != nil {
				return err
			}
			sessions = append(sessions, device)
		}
		return page.Execute(w, map[string]any{"Sessions": sessions, "Current": s.ID})
	})
	handle("POST /devices/{id}/end", func(w http.ResponseWriter, r *http.Request, s pgsession.Session) error {
		end := pgsession.Revocation{Subject: s.Subject, IDs: []pgsession.ID{pgsession.ID(r.PathValue("id"))}}
		if r.PathValue("id") == "others" {
			end = pgsession.Revocation{Subject: s.Subject, Except: []pgsession.ID{s.ID}}
		}
		n, err := store.Revoke(r.Context(), end)
		if err == nil {
			fmt.Fprintf(w, "%d logged out\n", n)
		}
		return err
	})
	return http.NewCrossOriginProtection().Handler(mux)
}

// clean makes text of a header, which may be anything.
func clean(header string) string {
	if len(header) > 300 {
		header = header[:300]
	}
	return strings.ToValidUTF8(header, "?") // net/http lets no NUL through
}
