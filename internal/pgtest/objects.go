package pgtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession/internal/postgres"
)

// Waits is a condition on a row of pg_stat_activity: it waits for a lock that somebody's transaction holds, for as
// long as that is open. A wait for the lock of all notifications ("object"), which a commit has for a moment, is none,
// nor is one for a file that grows ("extend"): any call may meet those.
const Waits = `(wait_event_type = 'Lock' and wait_event not in ('object', 'extend'))`

// maxIdentifier is PostgreSQL's limit on the length of a name, in bytes.
const maxIdentifier = 63

// uniqueName returns a name that no other test has, made from the test's own: lower-case letters,
// digits and underscores, so that it needs no quotes.
func uniqueName(tb testing.TB) string {
	var random [5]byte
	_, _ = rand.Read(random[:]) // never fails: crypto/rand ends the program instead
	suffix := "_" + hex.EncodeToString(random[:])
	name := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '_'
	}, tb.Name())
	return name[:min(len(name), maxIdentifier-len(suffix))] + suffix
}

// Schema returns a name for a schema that no other test uses. The schema is not created; when the
// test ends it is dropped with all it holds, if it is there.
func Schema(tb testing.TB) string {
	tb.Helper()
	return SchemaAt(tb, URL(tb))
}

// SchemaAt is [Schema] for another database than the shared one.
func SchemaAt(tb testing.TB, url string) string {
	tb.Helper()
	name := uniqueName(tb)
	tb.Cleanup(func() {
		if err := execute(url, "drop schema if exists "+name+" cascade"); err != nil {
			tb.Error(err)
		}
	})
	return name
}

// Database creates a database on the server of this test binary, and returns a connection string for
// it. It is dropped when the test ends, connected clients or not.
func Database(tb testing.TB) string {
	tb.Helper()
	server := Server(tb)
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
	defer cancel()
	url, drop, err := server.CreateDatabase(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(drop)
	return url
}

// password is that of every role of this test binary. It is one for all, so that the PgBouncer, which
// needs to know it, can be told once.
var password = sync.OnceValue(rand.Text)

// Role creates a role that can log in and do nothing else, and returns its name and the connection
// string of the shared database for it. The parts of a name, if any, go into the role's name. When
// the test ends, its sessions are ended, what it owns and what it was granted goes, in whatever
// database, and then the role.
func Role(tb testing.TB, name ...string) (role, url string) {
	tb.Helper()
	admin := URL(tb)
	role = uniqueName(tb)
	if len(name) > 0 {
		role = strings.Join(name, "_") + role[strings.LastIndexByte(role, '_'):]
	}
	url, err := postgres.WithUser(admin, role, password())
	if err != nil {
		tb.Fatal(err)
	}
	// rand.Text is letters and digits, which need no escaping.
	create := fmt.Sprintf("create role %s login password '%s'", identifier(role), password())
	if err := execute(admin, create); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := dropRole(admin, role); err != nil {
			tb.Error(err)
		}
	})
	return role, url
}

// dropRole drops a role and what depends on it. DROP OWNED sees one database at a time, and the role
// cannot go while there is anything in another.
func dropRole(admin, role string) error {
	conn, ctx, done, err := connect(admin)
	if err != nil {
		return err
	}
	defer done()
	_, err = conn.Exec(ctx, `
		select pg_catalog.pg_terminate_backend(pid)
		  from pg_catalog.pg_stat_activity
		 where usename = $1`, role)
	if err != nil {
		return fmt.Errorf("pgtest: end the sessions of role %s: %w", role, err)
	}
	rows, err := conn.Query(ctx, `
		select distinct d.datname
		  from pg_catalog.pg_shdepend s
		  join pg_catalog.pg_roles r on r.oid = s.refobjid
		  join pg_catalog.pg_database d on d.oid = s.dbid
		 where s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
		   and r.rolname = $1`, role)
	if err != nil {
		return fmt.Errorf("pgtest: what depends on role %s: %w", role, err)
	}
	databases, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("pgtest: what depends on role %s: %w", role, err)
	}
	dropOwned := "drop owned by " + identifier(role) + " cascade"
	for _, database := range databases {
		url, err := postgres.WithDatabase(admin, database)
		if err != nil {
			return err
		}
		if err := execute(url, dropOwned); err != nil {
			return err
		}
	}
	// Once here for what belongs to no database, such as privileges on one.
	return execute(admin, dropOwned, "drop role "+identifier(role))
}

// Extension creates an extension in the shared database, where it stays. Where the server does not
// have it the test is skipped.
func Extension(tb testing.TB, name string) {
	tb.Helper()
	ExtensionAt(tb, URL(tb), name)
}

// ExtensionAt is [Extension] for another database than the shared one.
func ExtensionAt(tb testing.TB, url, name string) {
	tb.Helper()
	conn, ctx, done, err := connect(url)
	if err != nil {
		tb.Fatal(err)
	}
	defer done()
	var available bool
	err = conn.QueryRow(ctx, `
		select exists (select from pg_catalog.pg_available_extensions where name = $1)`,
		name).Scan(&available)
	if err != nil {
		tb.Fatal(err)
	}
	if !available {
		Skip(tb, "the server does not have the extension "+name)
	}
	// "if not exists" does not keep two sessions from creating it at once.
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext($1))",
			"pgtest.Extension "+name)
		if err == nil {
			_, err = tx.Exec(ctx, "create extension if not exists "+identifier(name)+" cascade")
		}
		return err
	})
	if err != nil {
		tb.Fatalf("pgtest: create the extension %s: %v", name, err)
	}
}

func identifier(name string) string { return pgx.Identifier{name}.Sanitize() }
