// Package examples_test runs each example as its users do, as a process, and visits it as browsers do.
package examples_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
	"github.com/pgsession/pgsession/internal/process"
	"github.com/pgsession/pgsession/internal/webtest"
)

func TestMain(m *testing.M) {
	pgtest.Main(process.Tests(m))
}

// start starts an instance of an example on a database.
func start(t *testing.T, example, database string, env ...string) *process.Server {
	t.Helper()
	return process.Start(t, append(env, "DATABASE_URL="+database), process.Build(t, example))
}

// Two instances count the visits of one session; one of them is restarted; a logout ends it for the
// thief of the cookie as well.
func TestVisitsAreCounted(t *testing.T) {
	t.Parallel()
	for example, setup := range map[string]func(t *testing.T) (database string, env []string){
		"ownpool":     ownDatabase,
		"databasesql": ownDatabase,
		"pgbouncer":   behindPgBouncer,
		"tworoles":    twoRoles,
		"fiberv2":     ownDatabase,
		"fiberv3":     ownDatabase,
	} {
		t.Run(example, func(t *testing.T) {
			t.Parallel()
			database, env := setup(t)
			a, b := start(t, example, database, env...), start(t, example, database, env...)
			ada, bob := webtest.NewBrowser(t), webtest.NewBrowser(t)
			ada.Want(http.MethodGet, a.URL+"/", "visit 1\n")
			ada.Want(http.MethodGet, b.URL+"/", "visit 2\n")
			bob.Want(http.MethodGet, b.URL+"/", "visit 1\n")
			ada.Want(http.MethodGet, a.URL+"/", "visit 3\n")

			a.Stop(t)
			a = start(t, example, database, env...)
			ada.Want(http.MethodGet, a.URL+"/", "visit 4\n")

			thief := ada.Copy(a.URL)
			if r := ada.Post(a.URL + "/logout"); r.Status != http.StatusOK {
				t.Errorf("logout: %d %q", r.Status, r.Body)
			}
			ada.Want(http.MethodGet, b.URL+"/", "visit 1\n")
			thief.Want(http.MethodGet, b.URL+"/", "visit 1\n")
			bob.Want(http.MethodGet, a.URL+"/", "visit 2\n")
			a.Stop(t)
			b.Stop(t)
		})
	}
}

// A login gives a new token, a logout ends it for the thief of the cookie as well, and a restart of the
// server ends nothing.
func TestTheFrameworksKeepTheirSessions(t *testing.T) {
	t.Parallel()
	for _, example := range []string{"scs", "gorilla", "echo", "gin"} {
		t.Run(example, func(t *testing.T) {
			t.Parallel()
			database, key := pgtest.Database(t), "SESSION_KEY=0123456789abcdef0123456789abcdef"
			start(t, example, pgtest.Database(t), "SESSION_KEY=").Stop(t) // which makes a key
			server := start(t, example, database, key)
			ada := webtest.NewBrowser(t)
			ada.Want(http.MethodGet, server.URL+"/", "visit 1 of nobody\n")
			attacker := ada.Copy(server.URL)
			ada.Want(http.MethodPost, server.URL+"/login", "logged in\n")
			ada.Want(http.MethodGet, server.URL+"/", "visit 2 of ada\n")
			attacker.Want(http.MethodGet, server.URL+"/", "visit 1 of nobody\n")

			server.Stop(t)
			server = start(t, example, database, key)
			ada.Want(http.MethodGet, server.URL+"/", "visit 3 of ada\n")
			thief := ada.Copy(server.URL)
			ada.Want(http.MethodPost, server.URL+"/logout", "logged out\n")
			thief.Want(http.MethodGet, server.URL+"/", "visit 1 of nobody\n")
			ada.Want(http.MethodGet, server.URL+"/", "visit 1 of nobody\n")

			// All of a user's sessions end with her, and no login says that it was one where it was not.
			store := openStore(t, database)
			ada.Want(http.MethodPost, server.URL+"/login", "logged in\n")
			if n, err := store.Revoke(t.Context(), pgsession.Revocation{Subject: "ada"}); n != 1 || err != nil {
				t.Errorf("logging ada out everywhere ends %d sessions, %v", n, err)
			}
			eventually(t, func() bool { return ada.Get(server.URL+"/").Body == "visit 1 of nobody\n" })
			login := whileEnded(t, store, database, func() webtest.Response { return ada.Post(server.URL + "/login") })
			is := "nobody"
			if login.Status == http.StatusOK {
				is = "ada"
			}
			if r := ada.Get(server.URL + "/"); !strings.HasSuffix(r.Body, "of "+is+"\n") {
				t.Errorf("the login says %d %q, and after it there is a %s", login.Status, login.Body, r.Body)
			}
			ada.Want(http.MethodPost, server.URL+"/login", "logged in\n")
			if r := ada.Get(server.URL + "/"); !strings.HasSuffix(r.Body, "of ada\n") {
				t.Errorf("after another login: %q", r.Body)
			}
			server.Stop(t)
		})
	}
}

// eventually waits until one notification had its way.
func eventually(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to that")
		}
	}
}

// whileEnded calls request while another transaction ends all sessions. That is committed when the request
// waits for it, or has gone on without.
func whileEnded(t *testing.T, store *pgsession.Store, database string, request func() webtest.Response) webtest.Response {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var ids []pgsession.ID
	for session, err := range store.All(t.Context(), pgsession.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, session.ID)
	}
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n, err := store.WithQuery(tx.Query).Revoke(t.Context(), pgsession.Revocation{IDs: ids}); n == 0 || err != nil {
		t.Fatalf("%d sessions were ended, %v", n, err)
	}
	answer := make(chan webtest.Response, 1)
	go func() { answer <- request() }()
	eventually(t, func() (waits bool) {
		err := tx.QueryRow(t.Context(), `select exists (
			select from pg_stat_activity where datname = current_database() and `+pgtest.Waits+`)`).Scan(&waits)
		if err != nil {
			t.Fatal(err)
		}
		return waits || len(answer) == 1
	})
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	return <-answer
}

func ownDatabase(t *testing.T) (string, []string) {
	t.Helper()
	return pgtest.Database(t), nil
}

func behindPgBouncer(t *testing.T) (string, []string) {
	t.Helper()
	direct := pgtest.Database(t)
	return withDatabase(t, pgtest.Bouncer(t), direct), []string{"DIRECT_URL=" + direct}
}

// withDatabase returns a connection string with the database of another.
func withDatabase(t *testing.T, url, of string) string {
	t.Helper()
	config, err := pgx.ParseConfig(of)
	if err != nil {
		t.Fatal(err)
	}
	url, err = postgres.WithDatabase(url, config.Database)
	if err != nil {
		t.Fatal(err)
	}
	return url
}

// twoRoles creates the roles as the README says, and runs the deploy job.
func twoRoles(t *testing.T) (string, []string) {
	t.Helper()
	database := pgtest.Database(t)
	owner, _ := pgtest.Role(t, "owner")
	deploy, deployURL := pgtest.Role(t, "deploy")
	app, appURL := pgtest.Role(t, "app")
	admin, adminURL := pgtest.Role(t, "admin")
	execute(t, database,
		fmt.Sprintf("grant %s to %s", owner, deploy),
		fmt.Sprintf(`do $$ begin execute format('grant create on database %%I to %s', current_database()); end $$`, owner))
	env := []string{"OWNER=" + owner, "APP_ROLE=" + app, "ADMIN_ROLE=" + admin}
	run := func(url, command string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), process.Build(t, "tworoles"), command)
		cmd.Env = append(append(os.Environ(), env...), "DATABASE_URL="+withDatabase(t, url, database))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		return string(out)
	}
	run(deployURL, "migrate")
	if out := run(adminURL, "prune"); !strings.HasSuffix(out, "pruned 0\n") {
		t.Errorf("prune printed %q", out)
	}
	conn, err := pgx.Connect(t.Context(), withDatabase(t, appURL, database))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), "select from pgsession.session"); err == nil {
		t.Error("the application's role can read the table")
	}
	return withDatabase(t, appURL, database), env
}

// openStore opens a store beside the examples, on a database that it sets up.
func openStore(t *testing.T, database string) *pgsession.Store {
	t.Helper()
	store, err := pgsession.Open(t.Context(), database, pgsession.Config{
		Logger: slog.New(slog.DiscardHandler), Cache: pgsession.Cache{Mode: pgsession.CacheOff},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	if err := store.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	return store
}

func execute(t *testing.T, url string, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, statement := range statements {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

func TestNetHTTP(t *testing.T) {
	t.Parallel()
	s := start(t, "nethttp", pgtest.Database(t))
	ada := webtest.NewBrowser(t)
	ada.Want(http.MethodPost, s.URL+"/cart/apple", "in the cart\n")
	planted := ada.Copy(s.URL)
	ada.Want(http.MethodPost, s.URL+"/login/ada", "logged in\n")
	ada.Want(http.MethodPost, s.URL+"/cart/pear", "in the cart\n")
	ada.Want(http.MethodGet, s.URL+"/", "ada's cart: \"apple\" \"pear\"\n")
	thief := ada.Copy(s.URL)
	ada.Want(http.MethodPost, s.URL+"/logout", "logged out\n")
	for _, b := range []*webtest.Browser{planted, thief, ada} {
		b.Want(http.MethodGet, s.URL+"/", "nobody's cart:\n")
	}
	s.Stop(t)
}

// What the README shows of an example is part of it. Whole programs are compared by the library's tests.
func TestTheREADMEShowsPartsOfExamples(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(readme), "\n<!-- of examples/")[1:]
	for _, part := range parts {
		name, rest, _ := strings.Cut(part, ";")
		_, code, _ := strings.Cut(rest, "-->\n```go\n")
		code, _, found := strings.Cut(code, "```\n")
		text, err := os.ReadFile(filepath.FromSlash(name))
		if err != nil {
			t.Fatal(err)
		}
		if !found || !strings.Contains(string(text), "\n"+code) {
			t.Errorf("README.md shows what is not in %s:\n%s", name, code)
		}
	}
	if len(parts) < 2 {
		t.Errorf("README.md shows %d parts", len(parts))
	}
}

// Two instances show a user's devices; each logs out what the other one has in its cache.
func TestUsersSeeTheirDevicesAndEndThem(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	a, b := start(t, "devices", database), start(t, "devices", database)
	const hostile = `<script>alert("1")</script>'); drop table pgsession.session; --`
	do := func(method, url, agent string, cookie *http.Cookie) (status int, body string, set *http.Cookie) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("User-Agent", agent)
		if cookie != nil {
			request.AddCookie(cookie)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		content, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range response.Cookies() {
			set = c
		}
		return response.StatusCode, string(content), set
	}
	login := func(server, user, agent string) *http.Cookie {
		t.Helper()
		status, _, cookie := do(http.MethodPost, server+"/login/"+user, agent, nil)
		if status != http.StatusOK || cookie == nil {
			t.Fatalf("login: %d", status)
		}
		return cookie
	}
	laptop, phone, tablet := login(a.URL, "ada", "laptop"), login(b.URL, "ada", "phone"), login(a.URL, "ada", hostile)
	bob := login(b.URL, "bob", "laptop of bob")
	status, list, _ := do(http.MethodGet, a.URL+"/devices", "laptop", laptop)
	for _, want := range []string{"laptop at 127.0.0.1", "phone at 127.0.0.1", "&lt;script&gt;", "(this one)"} {
		if status != http.StatusOK || !strings.Contains(list, want) {
			t.Errorf("%d, and the page has no %s: %s", status, want, list)
		}
	}
	if strings.Contains(list, "<script>") || strings.Contains(list, "bob") || strings.Contains(list, laptop.Value) {
		t.Errorf("the page is %s", list)
	}
	of := func(agent string) string { // the id in the form of a device
		t.Helper()
		form, _, _ := strings.Cut(list, "\n"+agent+" at")
		id := form[strings.LastIndex(form, "/devices/")+len("/devices/"):]
		return strings.TrimSuffix(id, `/end">`)
	}
	ended := func(cookie *http.Cookie, want int) {
		t.Helper()
		for _, server := range []string{a.URL, b.URL} {
			deadline := time.Now().Add(time.Minute) // one notification's way
			for {
				status, _, _ := do(http.MethodGet, server+"/devices", "", cookie)
				if status == want {
					break
				} else if time.Now().After(deadline) {
					t.Fatalf("%d, want %d", status, want)
				}
			}
		}
	}
	if _, body, _ := do(http.MethodPost, b.URL+"/devices/"+of("phone")+"/end", "", bob); body != "0 logged out\n" {
		t.Errorf("of another user: %s", body)
	}
	ended(phone, http.StatusOK)
	if _, body, _ := do(http.MethodPost, a.URL+"/devices/"+of("phone")+"/end", "", laptop); body != "1 logged out\n" {
		t.Errorf("one: %s", body)
	}
	ended(phone, http.StatusUnauthorized)
	if _, body, _ := do(http.MethodPost, b.URL+"/devices/others/end", "", laptop); body != "1 logged out\n" {
		t.Errorf("all others: %s", body)
	}
	ended(tablet, http.StatusUnauthorized)
	ended(laptop, http.StatusOK)
	ended(bob, http.StatusOK)
	a.Stop(t)
	b.Stop(t)
}

// A session of two seconds lives on while its pages are read, and no longer.
func TestPagesThatOnlyReadAreAUse(t *testing.T) {
	t.Parallel()
	for example, c := range map[string]struct {
		cookie, login string
		alive         func(b *webtest.Browser, url string) bool
	}{
		"devices": {"session", "/login/ada", func(b *webtest.Browser, url string) bool {
			return b.Get(url+"/devices").Status == http.StatusOK
		}},
		"live": {"live", "/login", func(b *webtest.Browser, url string) bool {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			return events(ctx, t, b, url)() == "here"
		}},
	} {
		t.Run(example, func(t *testing.T) {
			t.Parallel()
			database := pgtest.Database(t)
			server, store := start(t, example, database), openStore(t, database)
			reader := webtest.NewBrowser(t)
			reader.Post(server.URL + c.login)
			token := pgsession.Token(reader.Cookie(server.URL, c.cookie))
			// An hour, of which half has passed. The example has it from the database, since it was changed.
			_, err := store.Update(t.Context(), token, func(s *pgsession.Session) error {
				s.IdleTimeout = time.Hour
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			_, err = pgtest.Connect(t, database).Exec(t.Context(),
				"update pgsession.session set expires_at = expires_at - interval '30 minutes'")
			if err != nil {
				t.Fatal(err)
			}
			if !c.alive(reader, server.URL) {
				t.Fatal("it has ended")
			}
			session, err := store.GetFresh(t.Context(), token)
			if err != nil || time.Until(session.ExpiresAt) < 45*time.Minute {
				t.Errorf("it was used, and ends at %v: %v", session.ExpiresAt, err)
			}
			server.Stop(t)
		})
	}
}

func TestAnOrderAndTheSessionAreWrittenTogether(t *testing.T) {
	t.Parallel()
	s := start(t, "transaction", pgtest.Database(t))
	ada := webtest.NewBrowser(t)
	ada.Want(http.MethodPost, s.URL+"/cart/apple", "")
	ada.Want(http.MethodPost, s.URL+"/cart/unicorn", "") // which the table of orders refuses
	if r := ada.Post(s.URL + "/order"); r.Status != http.StatusConflict {
		t.Errorf("an order of a unicorn: %d %q", r.Status, r.Body)
	}
	ada.Want(http.MethodGet, s.URL+"/", "cart: apple, unicorn; orders of all: 0\n")

	bob := webtest.NewBrowser(t)
	bob.Want(http.MethodPost, s.URL+"/cart/apple", "")
	bob.Want(http.MethodPost, s.URL+"/cart/pear", "")
	bob.Want(http.MethodPost, s.URL+"/order", "ordered\n")
	bob.Want(http.MethodGet, s.URL+"/", "cart: ; orders of all: 2\n")
	s.Stop(t)
}

func TestThePageGoesBlankWhenItsSessionIsRevokedElsewhere(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	database := pgtest.Database(t)
	a, b := start(t, "live", database), start(t, "live", database)
	laptop, stranger := webtest.NewBrowser(t), webtest.NewBrowser(t)

	if name := events(ctx, t, stranger, a.URL)(); name != "gone" {
		t.Errorf("without a session the first event is %q", name)
	}
	laptop.Post(a.URL + "/login")
	next := events(ctx, t, laptop, a.URL)
	if name := next(); name != "here" {
		t.Fatalf("the first event is %q", name)
	}
	stranger.Post(b.URL + "/end")
	name := next()
	for name == "here" { // it may have looked in between
		name = next()
	}
	if name != "gone" {
		t.Errorf("after the end on another instance comes %q", name)
	}
	a.Stop(t)
	b.Stop(t)
}

// events returns the next event's name, each time it is called.
func events(ctx context.Context, t *testing.T, b *webtest.Browser, url string) (next func() string) {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.AddCookie(&http.Cookie{Name: "live", Value: b.Cookie(url, "live")})
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = response.Body.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	lines := bufio.NewScanner(response.Body)
	return func() string {
		for lines.Scan() {
			if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				return name
			}
		}
		return "the end"
	}
}

// client is what the README shows, used on one session until after its end.
const client = `
import pg from 'pg'
import { sessions } from './sessions.mjs'
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL })
const store = sessions(pool)
const get = async (token) => { const s = await store.get(token); return s && [s.subject, JSON.stringify(s.value)].join() }
console.log(await get('token'))
console.log(await store.set('token', { value: { visits: 1 } }), await store.set('token', { value: { visits: 2 } }))
console.log(await store.set('token', { value: { visits: 2 } }), await get('token'), await store.touch('token'))
await store.destroy('token')
console.log(await get('token'), await store.set('token', { value: { visits: 3 } }))

// What Go began: its subject stays, and a save of what was read before another one is told so.
const go = process.env.TOKEN
const read = await store.get(go)
console.log(await get(go), await store.set(go, { ...read, value: { visits: 1 } }), await store.set(go, { ...read, value: {} }))
console.log(await get(go), await store.set('another', { ...read, value: { visits: 1 } }))

// What Go renewed: the old token goes on for its grace.
const old = process.env.RENEWED
console.log(await get(old), await store.touch(old), await store.destroy(old), await get(old), await get(process.env.RENEWAL))
await pool.end()
`

const clientSays = `null
created updated
unchanged ,{"visits":2} unchanged
null revoked
ada,{} updated conflict
ada,{"visits":1} missing
bob,{} unchanged undefined null null
`

func TestNodeSharesTheSessionsWithGo(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("node/*.mjs")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, name := range append(names, "node/package.json") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Base(name)] = string(text)
		if n := strings.Count(string(text), "\n"); strings.HasSuffix(name, "-store.mjs") && n > 35 {
			t.Errorf("%s has %d lines, and is to show that some 30 are enough", name, n)
		}
	}
	files["client.mjs"] = client
	dir := process.NodeModules(t, files)
	database := pgtest.Database(t)
	golang := start(t, "node", database)
	store := openStore(t, database)
	token, _, err := store.Create(t.Context(), pgsession.Session{Subject: "ada"})
	if err != nil {
		t.Fatal(err)
	}
	renewed, _, err := store.Create(t.Context(), pgsession.Session{Subject: "bob"})
	if err != nil {
		t.Fatal(err)
	}
	renewal, _, err := store.Renew(t.Context(), renewed, pgsession.Renewal{})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "client.mjs")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "DATABASE_URL="+database,
		"TOKEN="+string(token), "RENEWED="+string(renewed), "RENEWAL="+string(renewal))
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != clientSays {
		t.Errorf("the client says %s, %v; want %s", out, err, clientSays)
	}
	if n, err := store.Revoke(t.Context(), pgsession.Revocation{Subject: "ada"}); n != 1 || err != nil {
		t.Errorf("logging ada out everywhere ends %d sessions, %v", n, err)
	}
	for _, program := range []string{"express.mjs", "koa.mjs"} {
		node := process.StartIn(t, dir, []string{"DATABASE_URL=" + database}, "node", program)
		ada := webtest.NewBrowser(t)
		for _, url := range []string{node.URL, golang.URL} {
			if r := ada.Get(url + "/"); r.Status != http.StatusUnauthorized || len(r.Cookies) != 0 {
				t.Errorf("%s: before a login: %d %q, cookies %v", program, r.Status, r.Body, r.Cookies)
			}
		}
		ada.Post(node.URL + "/login/ada")
		ada.Want(http.MethodGet, node.URL+"/", "ada 1")
		ada.Want(http.MethodGet, golang.URL+"/", "ada 2")
		ada.Want(http.MethodGet, node.URL+"/", "ada 3")
		ada.Want(http.MethodGet, golang.URL+"/", "ada 4")

		// A logout there ends it here, and a logout here there.
		for _, end := range []string{node.URL, golang.URL} {
			ada.Post(node.URL + "/login/ada")
			ada.Want(http.MethodGet, golang.URL+"/", "ada 1")
			thief := ada.Copy(golang.URL)
			if r := ada.Post(end + "/logout"); r.Status >= 300 {
				t.Errorf("%s: logout: %d %q", program, r.Status, r.Body)
			}
			for _, b := range []*webtest.Browser{ada, thief} {
				for _, url := range []string{node.URL, golang.URL} {
					if r := b.Get(url + "/"); r.Status != http.StatusUnauthorized {
						t.Errorf("%s: after the end: %d %q", program, r.Status, r.Body)
					}
				}
			}
		}

		// Nor does a save in Node take the session from its user: it ends with all of hers.
		ada.Post(node.URL + "/login/ada")
		ada.Want(http.MethodGet, node.URL+"/", "ada 1")
		if n, err := store.Revoke(t.Context(), pgsession.Revocation{Subject: "ada"}); n != 1 || err != nil {
			t.Errorf("%s: logging ada out everywhere ends %d sessions, %v", program, n, err)
		}
		if r := ada.Get(node.URL + "/"); r.Status != http.StatusUnauthorized {
			t.Errorf("%s: after that: %d %q", program, r.Status, r.Body)
		}
		node.Kill(t)
	}
	golang.Stop(t)
}
