package pgsession_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// follow does what the remedy of each finding of a code says, in SQL.
func follow(t *testing.T, db executor, store *pgsession.Store, code string) {
	t.Helper()
	for _, f := range check(t, store) {
		if f.Code != code {
			continue
		}
		remedy := strings.TrimPrefix(f.Remedy, "if that is not on purpose: ")
		for statement := range strings.SplitSeq(remedy, "; ") {
			exec(t, db, statement)
		}
		exec(t, db, "reset role")
	}
}

// followed fails the test where the remedies do not end all findings of a code.
func followed(t *testing.T, db executor, store *pgsession.Store, code string) {
	t.Helper()
	follow(t, db, store, code)
	for _, f := range check(t, store) {
		if f.Code == code {
			t.Errorf("the remedy has not ended it: %s", f)
		}
	}
}

func TestCheckFindsWhatIsGrantedToOthersThanSetupDoes(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	setUp(t, pgtest.Connect(t, c.ownerAddress).Query, c.cfg)
	app, admin, other := identifier(c.app), identifier(c.admin), identifier(c.other)
	for _, test := range []struct {
		name, do string
		cfg      func(*pgsession.Config)
		severity pgsession.Severity
		words    []string
	}{
		{"all functions to the app", "grant execute on all routines in schema pgsession to " + app, nil, pgsession.SeverityWarning, []string{`the role "the app`, "session_clear", "session_list_all", "session_publish"}},
		{"all functions to the admin", "grant execute on all routines in schema pgsession to " + admin, nil, pgsession.SeverityWarning, []string{"session_get,", "session_audit,"}},
		{"all functions to a stranger", "grant execute on all routines in schema pgsession to " + other, nil, pgsession.SeverityWarning, []string{`the role "other`, "nobody but the functions", "session_publish"}},
		{"a function to a stranger", "grant execute on function pgsession.session_count_all to " + other, nil, pgsession.SeverityInfo, []string{`the role "other`, "session_count_all"}},
		{"one role's to the other", "select", func(cfg *pgsession.Config) { cfg.AppRole, cfg.AdminRole = c.admin, c.app }, pgsession.SeverityWarning, []string{`the role "the app`, "session_get,"}},
		{"with what a stranger has passed on", "grant usage on schema pgsession to " + other + "; grant execute on function pgsession.session_clear to " + other + " with grant option; set local role " + other + "; grant execute on function pgsession.session_clear to " + app + "; reset role", nil, pgsession.SeverityWarning, []string{`"the app`, "session_clear"}},
		{"a function of which there are two", "create function pgsession.session_clear(bytea) returns int4 language sql as 'select 1'; grant execute on all functions in schema pgsession to " + app, nil, pgsession.SeverityWarning, []string{"session_clear"}},
		{"functions to everyone", "grant execute on all routines in schema pgsession to public", nil, pgsession.SeverityError, []string{"everyone may execute", "session_clear"}},
		{"newer functions to everyone", "create or replace function pgsession.session_schema_version(out migration int4, out functions int4, out columns text) language sql as $$select 99, 99, '[{\"name\":\"ip\",\"type\":\"inet\"}]'$$; grant execute on function pgsession.session_get to public", nil, pgsession.SeverityError, []string{"everyone may execute session_get"}},
		{"the events' sequence to everyone", "grant usage on sequence pgsession.session_events_seq_seq to public", nil, pgsession.SeverityError, []string{"everyone has USAGE on the sequence session_events_seq_seq"}},
		{"the events' sequence to a stranger", "alter sequence pgsession.session_events_seq_seq rename to s; grant all on sequence pgsession.s to " + other, nil, pgsession.SeverityInfo, []string{"SELECT, UPDATE, USAGE on the sequence s"}},
		{"the table to everyone", "grant select, update on pgsession.session to public", nil, pgsession.SeverityError, []string{"SELECT, UPDATE on the table session"}},
		{"a column to everyone", "grant select (data), update (data) on pgsession.session to public", nil, pgsession.SeverityError, []string{"SELECT, UPDATE on the column data"}},
		{"a column of the events to the app", "grant select (subject) on pgsession.session_events to " + app, nil, pgsession.SeverityWarning, []string{"the column subject of the table session_events"}},
		{"the view to the app", "grant select on pgsession.session_view to " + app, nil, pgsession.SeverityWarning, []string{"session_view"}},
		{"the schema to everyone", "grant create on schema pgsession to public", nil, pgsession.SeverityError, []string{"CREATE on the schema"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := c.cfg
			if test.cfg != nil {
				test.cfg(&cfg)
			}
			conn := dial(t, c.address, nil)
			inTransaction(t, conn, func(tx pgx.Tx) {
				if test.cfg == nil {
					for _, f := range check(t, storeOf(t, tx.Query, cfg)) {
						if f.Code == pgsession.FindingACL {
							t.Errorf("before: %s", f)
						}
					}
				}
				for statement := range strings.SplitSeq(test.do, "; ") {
					exec(t, tx, statement)
				}
				store := storeOf(t, tx.Query, cfg)
				finding(t, check(t, store), pgsession.FindingACL, test.severity, test.words...)
				followed(t, tx, store, pgsession.FindingACL)
			})
		})
	}
}

func TestARemedyOfGrantsLeavesWhatSetupGrants(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	store := setUp(t, pgtest.Connect(t, c.ownerAddress).Query, c.cfg)
	for _, to := range []string{identifier(c.app), identifier(c.admin), identifier(c.other), "public"} {
		exec(t, c.superuser, "grant all on all tables in schema pgsession to "+to)
		exec(t, c.superuser, "grant all on all sequences in schema pgsession to "+to)
		exec(t, c.superuser, "grant all on all routines in schema pgsession to "+to)
	}
	must(t, store.Migrate(t.Context())) // which takes back only what everyone may execute
	finding(t, check(t, store), pgsession.FindingACL, pgsession.SeverityWarning, "session_list_all")
	follow(t, c.superuser, store, pgsession.FindingACL)
	got := slices.DeleteFunc(privileges(t, c.superuser), func(p string) bool {
		return strings.HasPrefix(p, "other") && strings.HasSuffix(p, " SELECT session_view")
	})
	expectSame(t, got, wantPrivileges(c.app, c.admin))
}

func TestCheckFindsFunctionsOfASuperuser(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	setUp(t, pgtest.Connect(t, c.ownerAddress).Query, c.cfg)
	for _, test := range []struct {
		name string
		do   []string
	}{
		{"one function", []string{"alter function pgsession.session_get owner to postgres"}},
		{"the view and a procedure", []string{"alter view pgsession.session_view owner to postgres", "alter procedure pgsession.session_prune_all owner to postgres"}},
		{"one of two of a name", []string{"create function pgsession.session_get(bytea) returns int4 language sql as 'select 1'", "revoke all on function pgsession.session_get(bytea) from public"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			inTransaction(t, dial(t, c.address, nil), func(tx pgx.Tx) {
				store := storeOf(t, tx.Query, c.cfg)
				for _, statement := range test.do {
					exec(t, tx, statement)
				}
				finding(t, check(t, store), pgsession.FindingOwner, pgsession.SeverityWarning, `the superuser "postgres"`, "session_")
				followed(t, tx, store, pgsession.FindingOwner)
				noFinding(t, check(t, store), bugged(t, c.superuser)...)
				must(t, store.Setup(t.Context()))
				expectSame(t, slices.Compact(owners(t, tx)), []string{c.owner})
			})
		})
	}
}

// A remedy that is a configuration: the owner is another role from then on.
func TestTheRemedyForASuperusersTableWorks(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	super := pgtest.Connect(t, c.address)
	finding(t, check(t, setUp(t, super.Query, c.cfg)), pgsession.FindingOwner, pgsession.SeverityWarning,
		`grant usage, create on schema "pgsession" to it`, "Config.Owner")
	cfg := c.cfg
	cfg.Owner = c.owner
	exec(t, c.superuser, "grant usage, create on schema pgsession to "+identifier(c.owner))
	noFinding(t, check(t, setUp(t, super.Query, cfg)), bugged(t, super)...)
}
