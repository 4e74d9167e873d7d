package pgsession_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

// withoutCleanup is for stores on one connection, which has no room for another goroutine.
var withoutCleanup = pgsession.Cleanup{Mode: pgsession.CleanupOff}

// roleIn creates a role that can log in, and returns its name and the connection string with which
// it does, to the database at address.
func roleIn(t *testing.T, address string, name ...string) (role, roleAddress string) {
	t.Helper()
	role, roleAddress = pgtest.Role(t, name...)
	config, err := pgx.ParseConfig(address)
	if err != nil {
		t.Fatal(err)
	}
	if roleAddress, err = postgres.WithDatabase(roleAddress, config.Database); err != nil {
		t.Fatal(err)
	}
	return role, roleAddress
}

func TestSetupOfWhatIsThereWritesNothingAndTakesNoLock(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	admin := pgtest.Connect(t, address)
	app, appAddress := roleIn(t, address)
	cfg := pgsession.Config{
		Columns: []pgsession.Column{{Name: "ip", Type: "inet"}}, AppRole: app, Cleanup: withoutCleanup,
	}
	setUp(t, admin.Query, cfg)
	before := fingerprint(t, admin)

	// Whatever Setup would lock is locked, but for the catalogue.
	blocker := dial(t, address, nil)
	inTransaction(t, blocker, func(locked pgx.Tx) {
		exec(t, locked, "select pg_advisory_xact_lock($1)", ternLock)
		exec(t, locked, "lock table pgsession.session, pgsession.session_view in access exclusive mode")
		for _, who := range []struct{ name, address string }{{"superuser", address}, {"AppRole", appAddress}} {
			t.Run(who.name, func(t *testing.T) {
				conn := dial(t, who.address, map[string]string{"lock_timeout": "100ms"})
				inTransaction(t, conn, func(tx pgx.Tx) {
					store := storeOf(t, tx.Query, cfg)
					for range 2 {
						must(t, store.Setup(t.Context()))
						must(t, store.Migrate(t.Context()))
					}
					if value[bool](t, tx, "select pg_current_xact_id_if_assigned() is not null") {
						t.Error("a Setup with nothing to do wrote something")
					}
					for _, lock := range column[string](t, tx, `
						select concat_ws(' ', l.locktype, l.mode, c.relname)
						  from pg_locks as l
						  left join pg_class as c on c.oid = l.relation
						 where l.pid = pg_backend_pid()
						   and l.locktype <> 'virtualxid'
						   and (l.mode <> 'AccessShareLock'
						        or (c.relnamespace <> 'pg_catalog'::regnamespace
						            and c.relname not in ('session_schema_version', 'session_schema_version_pkey', 'session_cleanup', 'session_cleanup_pkey')))`) {
						t.Error("a Setup with nothing to do took a lock: ", lock)
					}
				})
			})
		}
	})
	expectSame(t, fingerprint(t, admin), before)
}

func TestSetupSendsNothingButSelectsWhereNothingIsMissing(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	cfg := pgsession.Config{Schema: pgtest.Schema(t), Cleanup: withoutCleanup}
	var sent []string
	store := setUp(t, func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
		sent = append(sent, sql)
		return pool.Query(ctx, sql, args...)
	}, cfg)
	changing := regexp.MustCompile(`\b(insert into|update|delete from|merge into)\b`)
	isSelect := func(sql string) bool {
		sql = strings.TrimSpace(sql)
		return strings.HasPrefix(sql, "select ") || strings.HasPrefix(sql, "with ") && !changing.MatchString(sql)
	}
	done := slices.IndexFunc(sent, func(sql string) bool { return strings.HasPrefix(sql, "do ") })
	if done < 0 || done == len(sent)-1 || slices.ContainsFunc(sent[done+1:], func(sql string) bool { return !isSelect(sql) }) {
		t.Errorf("the first Setup sent %d statements, and no DO block before it looked again", len(sent))
	}
	sent = nil
	must(t, store.Setup(t.Context()))
	if len(sent) == 0 || !slices.ContainsFunc(sent, isSelect) || slices.ContainsFunc(sent, func(sql string) bool { return !isSelect(sql) }) {
		t.Errorf("the second Setup sent %q", sent)
	}
}

// settingsOf are all of a session's settings.
func settingsOf(t *testing.T, db executor) []string {
	t.Helper()
	return append(
		column[string](t, db, "select name || '=' || setting from pg_catalog.pg_settings"),
		"current_user="+value[string](t, db, "select current_user::text"),
	)
}

func TestSetupLeavesTheSessionsSettingsAsTheyWere(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	admin := pgtest.Connect(t, address)
	owner, _ := roleIn(t, address, "the", "owner")
	caller, _ := roleIn(t, address, `ca"ller`)
	app, _ := roleIn(t, address)
	database := value[string](t, admin, "select quote_ident(current_database())")
	exec(t, admin, fmt.Sprintf("grant create on database %s to %s, %s", database, identifier(caller), identifier(owner)))
	exec(t, admin, fmt.Sprintf("grant %s to %s", identifier(owner), identifier(caller)))
	exec(t, admin, "create schema nowhere")
	settings := []string{
		"set lock_timeout = '7531ms'",
		`set search_path = nowhere, "$user"`,
		"set standard_conforming_strings = off",
		"set work_mem = '7531kB'",
		"set check_function_bodies = off",
		"set client_min_messages = error",
		"set row_security = off",
		"set TimeZone = 'Asia/Tokyo'",
	}
	local := strings.NewReplacer("set ", "set local ")
	for i, c := range []struct {
		name   string
		role   string
		cfg    pgsession.Config
		before string
		fails  bool
	}{
		{name: "a superuser"},
		{name: "a superuser, for an owner", cfg: pgsession.Config{Owner: owner, AppRole: app}},
		{name: "another role set", role: caller, cfg: pgsession.Config{AppRole: app}},
		{name: "another role set, for an owner", role: caller, cfg: pgsession.Config{Owner: owner, AppRole: app}},
		{name: "a failure", before: "create view %s.session_view as select 1 as one", fails: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := c.cfg
			cfg.Schema, cfg.Cleanup = fmt.Sprintf("s%d", i), withoutCleanup
			if c.before != "" {
				exec(t, admin, "create schema "+cfg.Schema)
				exec(t, admin, fmt.Sprintf(c.before, cfg.Schema))
			}
			conn := dial(t, address, nil)
			exec(t, conn, "do 'begin end'") // loads PL/pgSQL, which brings settings of its own
			all := slices.Clone(settings)
			if c.role != "" {
				all = append(all, "set role "+identifier(c.role))
			}
			setup := func(t *testing.T, query pgsession.QueryFunc) {
				t.Helper()
				if err := storeOf(t, query, cfg).Setup(t.Context()); (err != nil) != c.fails {
					t.Fatalf("Setup: %v", err)
				}
			}
			if !c.fails { // which ends the transaction
				inTransaction(t, conn, func(tx pgx.Tx) {
					for _, s := range all {
						exec(t, tx, local.Replace(s))
					}
					before := settingsOf(t, tx)
					for range 2 {
						setup(t, tx.Query)
						expectSame(t, settingsOf(t, tx), before)
					}
				})
			}
			for _, s := range all {
				exec(t, conn, s)
			}
			before := settingsOf(t, conn)
			for range 2 {
				setup(t, conn.Query)
				expectSame(t, settingsOf(t, conn), before)
			}
		})
	}
}

func TestASetupThatFailsHalfwayLeavesNothing(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	admin := pgtest.Connect(t, address)
	app, _ := roleIn(t, address)
	cfg := pgsession.Config{
		Columns: []pgsession.Column{{Name: "ip", Type: "inet"}}, AppRole: app, Cleanup: withoutCleanup,
	}
	exec(t, admin, `
		create function public.refuse() returns event_trigger language plpgsql as $$
		begin
		    raise exception 'refused on purpose';
		end $$`)
	exec(t, admin, `
		create function public.refuse_last() returns event_trigger language plpgsql as $$
		begin
		    if exists (select from pg_event_trigger_ddl_commands() as c
		                where c.object_identity like 'pgsession.session_schema_version(%') then
		        raise exception 'refused on purpose';
		    end if;
		end $$`)
	for _, c := range []struct{ name, before, after, says string }{
		{
			name:   "the view is another one",
			before: "create schema pgsession; create view pgsession.session_view as select 1 as one",
			after:  "drop schema pgsession cascade",
			says:   "view column",
		},
		{
			name:   "a function returns another type",
			before: "create schema pgsession; create function pgsession.session_prune(int4, timestamptz, bool, int8, bool) returns int4 language sql as 'select 1'",
			after:  "drop schema pgsession cascade",
			says:   "return type",
		},
		{
			name:   "an index has its name",
			before: "create schema pgsession; create sequence pgsession.session_subject_idx",
			after:  "drop schema pgsession cascade",
			says:   "session_subject_idx",
		},
		{name: "at CREATE SCHEMA"},
		{name: "at CREATE TABLE"},
		{name: "at CREATE INDEX"},
		{name: "at ALTER TABLE"},
		{name: "at CREATE FUNCTION"},
		{name: "at CREATE PROCEDURE"},
		{name: "at CREATE VIEW"},
		{name: "at REVOKE"},
		{name: "at GRANT"},
		{
			name:   "at the last function",
			before: "create event trigger refuse on ddl_command_end execute function public.refuse_last()",
			after:  "drop event trigger refuse",
			says:   "refused on purpose",
		},
	} {
		if tag, ok := strings.CutPrefix(c.name, "at "); ok && c.before == "" {
			c.before = fmt.Sprintf("create event trigger refuse on ddl_command_end when tag in ('%s') execute function public.refuse()", tag)
			c.after = "drop event trigger refuse"
			c.says = "refused on purpose"
		}
		t.Run(c.name, func(t *testing.T) {
			for statement := range strings.SplitSeq(c.before, "; ") {
				exec(t, admin, statement)
			}
			before := fingerprint(t, admin)
			err := storeOf(t, admin.Query, cfg).Setup(t.Context())
			if e := schemaErrorOf(t, err); e.Err == nil || !strings.Contains(err.Error(), c.says) || len(e.Problems) == 0 {
				t.Errorf("the error does not say what is missing and that it was refused: %v", err)
			}
			expectSame(t, fingerprint(t, admin), before)
			exec(t, admin, c.after)
		})
	}
	useAll(t, setUp(t, admin.Query, cfg), map[string][2]string{"ip": {"10.0.0.1", "::1"}})
}

func TestSetupIsPartOfTheCallersTransaction(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"pgx", "postgres"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			address := pgtest.Database(t)
			admin := pgtest.Connect(t, address)
			cfg := pgsession.Config{Cleanup: withoutCleanup}
			before := fingerprint(t, admin)
			db := openDB(t, driver, address)
			tx, err := db.BeginTx(t.Context(), nil)
			must(t, err)
			inside := setUp(t, pgsession.FromSQL(tx), cfg)
			token, _, err := inside.Create(t.Context(), pgsession.Session{Data: []byte("inside")})
			must(t, err)
			_, err = inside.Get(t.Context(), token)
			must(t, err)
			must(t, tx.Rollback())
			expectSame(t, fingerprint(t, admin), before)

			outside := storeOf(t, pgsession.FromSQL(db), cfg)
			if _, err := outside.Get(t.Context(), token); !errors.Is(err, pgsession.ErrNotSetUp) {
				t.Errorf("after the rollback: %v, want ErrNotSetUp", err)
			}
			must(t, outside.Setup(t.Context()))
			useAll(t, outside, nil)
		})
	}
}

func TestEveryWayInSetsUpTheSameSchema(t *testing.T) {
	t.Parallel()
	want := expectedObjects("pgsession", func(suffix string) string { return "session" + suffix })
	for _, d := range doors {
		if d.kind == inTx {
			continue // the store's own way in is that of another door
		}
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			address := pgtest.Database(t)
			query, _ := d.open(t, address)
			cfg := pgsession.Config{Columns: []pgsession.Column{{Name: "ip", Type: "inet"}}}
			store := setUp(t, query, cfg)
			must(t, store.Setup(t.Context()))
			expectSame(t, objects(t, pgtest.Connect(t, address)), want)
			useAll(t, store, map[string][2]string{"ip": {"10.0.0.1", "::1"}})
		})
	}
}

func TestBackslashesInStringsMayHaveTheirOldMeaning(t *testing.T) {
	t.Parallel()
	// pgx refuses its simple protocol there, so it is the extended one, and lib/pq's.
	for _, driver := range []string{"pgx", "postgres"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			address := withParameter(t, pgtest.Database(t), "standard_conforming_strings", "off")
			db := openDB(t, driver, address)
			cfg := pgsession.Config{
				Schema: `back\slash`, Table: `it's \'`, Columns: []pgsession.Column{{Name: `\'"; c`, Type: "text"}},
			}
			useAll(t, setUp(t, pgsession.FromSQL(db), cfg), map[string][2]string{`\'"; c`: {`\`, `'\x`}})
		})
	}
}

func TestSetupWaitsForWhoeverElseChangesTheSchema(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	admin := pgtest.Connect(t, address)
	blocker := dial(t, address, nil)
	inTransaction(t, blocker, func(locked pgx.Tx) {
		exec(t, locked, "select pg_advisory_xact_lock($1)", ternLock)
		var scripts atomic.Int32
		query := func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
			// The second attempt comes after the first gave up waiting.
			if strings.HasPrefix(sql, "do ") && scripts.Add(1) == 2 {
				must(t, locked.Rollback(ctx))
			}
			return admin.Query(ctx, sql, args...)
		}
		useAll(t, setUp(t, query, pgsession.Config{Cleanup: withoutCleanup}), nil)
		if n := scripts.Load(); n != 2 {
			t.Errorf("Setup tried %d times, want 2", n)
		}
	})
}

func TestSetupOnAReadOnlyServerChecksAndSaysWhatItCannotDo(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	readOnly := dial(t, address, map[string]string{"default_transaction_read_only": "on"})
	store := storeOf(t, readOnly.Query, pgsession.Config{Cleanup: withoutCleanup})
	err := store.Setup(t.Context())
	expectProblems(t, err, `the schema "pgsession" is missing`)
	if e := schemaErrorOf(t, err); e.Err == nil || !strings.Contains(e.Err.Error(), "read-only") {
		t.Errorf("the cause is %v", e.Err)
	}
	setUp(t, dial(t, address, nil).Query, pgsession.Config{Cleanup: withoutCleanup})
	must(t, store.Setup(t.Context()))
}

func TestSetupThatWaitsEndsWithItsContext(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	admin := pgtest.Connect(t, address)
	blocker := dial(t, address, nil)
	inTransaction(t, blocker, func(locked pgx.Tx) {
		exec(t, locked, "select pg_advisory_xact_lock($1)", ternLock)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		store := storeOf(t, admin.Query, pgsession.Config{Cleanup: withoutCleanup})
		done := make(chan error, 1)
		go func() { done <- store.Setup(ctx) }()
		eventually(t, "Setup waits for tern's lock", func() bool { return advisoryWaits(t, locked) == 1 })
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("err = %v, want the context's", err)
		}
		eventually(t, "the server hears that it was cancelled", func() bool { return advisoryWaits(t, locked) == 0 })
	})
	if got := objects(t, admin); len(got) > 0 {
		t.Errorf("there is %q", got)
	}
}

func TestSetupWarnsOfAMissingIndex(t *testing.T) {
	t.Parallel()
	conn := dial(t, pgtest.Database(t), nil)
	for i, column := range []string{"prune_after", "subject"} {
		log := &logs{}
		cfg := pgsession.Config{Table: fmt.Sprint("t", i), Cleanup: withoutCleanup, Logger: slog.New(log)}
		cfg.Cache.Mode = pgsession.CacheOff // of which it would speak
		setUp(t, conn.Query, cfg)
		before := log.count()
		exec(t, conn, "drop index "+identifier("pgsession", cfg.Table+"_"+column+"_idx"))
		must(t, storeOf(t, conn.Query, cfg).Setup(t.Context()))
		if log.count() != before+1 || log.records[before].Level != slog.LevelWarn {
			t.Errorf("without the index on %s Setup logs %v", column, log.records[before:])
		}
	}
}

func TestSetupWithoutADatabaseIsNotASchemaError(t *testing.T) {
	t.Parallel()
	address, err := postgres.WithAddress(pgtest.URL(t), "127.0.0.1:1")
	must(t, err)
	u, err := url.Parse(address)
	must(t, err)
	db := openDB(t, "pgx", u.String())
	err = storeOf(t, pgsession.FromSQL(db), pgsession.Config{}).Setup(t.Context())
	if schemaError := new(*pgsession.SchemaError); err == nil || errors.As(err, schemaError) || errors.Is(err, pgsession.ErrNotSetUp) {
		t.Errorf("err = %v, want what the driver says", err)
	}
}
