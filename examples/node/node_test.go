package node_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// pgPackage is node-postgres, pinned.
const pgPackage = "pg@8.16.3"

// main reads a session that Go wrote, writes one back, ends it, and tries to write again.
const program = `
import pg from 'pg'
import { sessions } from './sessions.mjs'
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL })
const store = sessions(pool)
const token = process.env.TOKEN
const out = { got: await store.get(token), none: await store.get('no such token') }
out.set = await store.set(token, { visits: out.got.visits + 1 })
out.again = await store.set(token, { visits: out.got.visits + 1 })
if (process.env.END) {
  await store.destroy(token)
  out.ended = await store.get(token)
  out.late = await store.set(token, { visits: 99 })
}
console.log(JSON.stringify(out))
await pool.end()
`

type value struct {
	Visits int `json:"visits"`
}

func TestANodeClientSharesTheSessions(t *testing.T) {
	if _, err := exec.LookPath("npm"); err != nil {
		pgtest.Skip(t, "npm is not installed")
	}
	ctx := t.Context()
	url := pgtest.Database(t)
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	store, err := pgsession.New(pool.Query, pgsession.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	if err := store.Setup(ctx); err != nil {
		t.Fatal(err)
	}
	visits := pgsession.JSON[value](store)
	token, _, err := visits.Create(ctx, pgsession.TypedSession[value]{Value: value{Visits: 1}})
	if err != nil {
		t.Fatal(err)
	}

	dir := install(t, ctx)
	got := run(t, ctx, dir, "DATABASE_URL="+url, "TOKEN="+string(token))
	if want := `{"got":{"visits":1},"none":null,"set":"updated","again":"unchanged"}`; got != want {
		t.Errorf("the first run printed\n%s, want\n%s", got, want)
	}
	session, err := visits.Get(ctx, token)
	if err != nil || session.Value.Visits != 2 {
		t.Errorf("after Node's write Go reads %d visits and %v, want 2", session.Value.Visits, err)
	}
	got = run(t, ctx, dir, "DATABASE_URL="+url, "TOKEN="+string(token), "END=1")
	want := `{"got":{"visits":2},"none":null,"set":"updated","again":"unchanged","ended":null,"late":"revoked"}`
	if got != want {
		t.Errorf("the second run printed\n%s, want\n%s", got, want)
	}
}

// install makes a directory with the client, the program and node-postgres.
func install(t *testing.T, ctx context.Context) string {
	t.Helper()
	dir := t.TempDir()
	client, err := os.ReadFile("sessions.mjs")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"sessions.mjs": string(client), "main.mjs": program, "package.json": "{}"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(ctx, "npm", "install", "--no-audit", "--no-fund", "--silent", pgPackage)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm install %s: %v\n%s", pgPackage, err, out)
	}
	return dir
}

func run(t *testing.T, ctx context.Context, dir string, env ...string) string {
	t.Helper()
	cmd := exec.CommandContext(ctx, "node", "main.mjs")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node: %v\n%s", err, out)
	}
	if n := len(out); n > 0 && out[n-1] == '\n' {
		out = out[:n-1]
	}
	return string(out)
}
