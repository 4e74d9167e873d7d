package pgsession_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pgsession/pgsession"
)

// owners are the roles that own what is in the schema.
func owners(t *testing.T, db executor) []string {
	t.Helper()
	return column[string](t, db, `
		select distinct pg_get_userbyid(o.owner)::text
		  from (
		    select c.relowner as owner from pg_class as c where c.relnamespace = 'pgsession'::regnamespace
		     union all
		    select p.proowner from pg_proc as p where p.pronamespace = 'pgsession'::regnamespace
		  ) as o`)
}

func TestOneRoleOwnsAllWhoeverRunsSetup(t *testing.T) {
	t.Parallel()
	damages := []string{
		"drop function pgsession.session_touch", "drop view pgsession.session_view",
		"drop function pgsession.session_schema_version; drop table pgsession.session_schema_version",
	}
	for _, who := range []struct {
		name string
		// first and then are the addresses of those who run Setup on the empty database and afterwards.
		roles func(t *testing.T, c *cast) (first, then, owner, configured string)
	}{
		{"a superuser after a plain owner", func(_ *testing.T, c *cast) (first, then, owner, configured string) {
			return c.ownerAddress, c.address, c.owner, ""
		}},
		{"the plain owner again", func(_ *testing.T, c *cast) (first, then, owner, configured string) {
			return c.ownerAddress, c.ownerAddress, c.owner, ""
		}},
		{"a member of the owner", func(t *testing.T, c *cast) (first, then, owner, configured string) {
			exec(t, c.superuser, fmt.Sprintf("grant %s to %s", identifier(c.owner), identifier(c.other)))
			return c.ownerAddress, c.otherAddress, c.owner, ""
		}},
		{"a superuser for Config.Owner", func(_ *testing.T, c *cast) (first, then, owner, configured string) {
			return c.address, c.address, c.owner, c.owner
		}},
		{"Config.Owner itself", func(_ *testing.T, c *cast) (first, then, owner, configured string) {
			return c.ownerAddress, c.ownerAddress, c.owner, c.owner
		}},
		{"a member for Config.Owner, after a superuser", func(t *testing.T, c *cast) (first, then, owner, configured string) {
			exec(t, c.superuser, fmt.Sprintf("grant %s to %s", identifier(c.owner), identifier(c.other)))
			return c.address, c.otherAddress, c.owner, c.owner
		}},
	} {
		t.Run(who.name, func(t *testing.T) {
			t.Parallel()
			c := newCast(t)
			first, then, owner, configured := who.roles(t, c)
			c.cfg.Owner = configured
			useAll(t, setUp(t, dial(t, first, nil).Query, c.cfg), castColumns)
			if got := owners(t, c.superuser); !slices.Equal(got, []string{owner}) {
				t.Fatalf("first all is owned by %q, want %q", got, owner)
			}
			store := storeOf(t, dial(t, then, nil).Query, c.cfg)
			for _, damage := range damages {
				for statement := range strings.SplitSeq(damage, "; ") {
					exec(t, c.superuser, statement)
				}
				if err := store.Setup(t.Context()); err != nil {
					t.Fatalf("after %s: %v", damage, err)
				}
			}
			more := c.cfg
			more.Columns = append(more.Columns, pgsession.Column{Name: "country", Type: "text"})
			must(t, storeOf(t, dial(t, then, nil).Query, more).Setup(t.Context()))
			if got := owners(t, c.superuser); !slices.Equal(got, []string{owner}) {
				t.Errorf("then all is owned by %q, want %q", got, owner)
			}
			expectSame(t, privileges(t, c.superuser), wantPrivileges(c.app, c.admin))
			useAsRequest(t, setUp(t, dial(t, c.appAddress, nil).Query, c.cfg), castColumns)
		})
	}
}

func TestAnotherConfigOwnerThanTheOwnerDoesNotMixThem(t *testing.T) {
	t.Parallel()
	for _, member := range []bool{false, true} {
		t.Run(fmt.Sprintf("a member of the owner: %t", member), func(t *testing.T) {
			t.Parallel()
			c := newCast(t)
			setUp(t, dial(t, c.ownerAddress, nil).Query, c.cfg)
			exec(t, c.superuser, "grant all on schema pgsession to "+identifier(c.other)) // may create
			if member {
				exec(t, c.superuser, fmt.Sprintf("grant %s to %s", identifier(c.owner), identifier(c.other))) // and replace
			}
			exec(t, c.superuser, "drop function pgsession.session_touch")
			before := fingerprint(t, c.superuser)
			cfg := c.cfg
			cfg.Owner = c.other
			// Refused or done, but not by halves.
			if err := storeOf(t, dial(t, c.address, nil).Query, cfg).Setup(t.Context()); err != nil {
				_ = schemaErrorOf(t, err)
				expectSame(t, fingerprint(t, c.superuser), before)
			}
			if got := owners(t, c.superuser); len(got) != 1 {
				t.Errorf("the owners are %q", got)
			}
		})
	}
}

func TestSetupSaysSoWhereItCannotGrantTheSchema(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	// The schema is a DBA's, who lets the owner create in it and no more.
	exec(t, c.superuser, "create schema pgsession")
	exec(t, c.superuser, "grant create, usage on schema pgsession to "+identifier(c.owner))
	err := storeOf(t, dial(t, c.ownerAddress, nil).Query, c.cfg).Setup(t.Context())
	usable := value[bool](t, c.superuser, "select has_schema_privilege($1::text, 'pgsession', 'usage')", c.app)
	if err == nil && !usable {
		t.Error("Setup succeeded, and AppRole cannot use the schema")
	}
	if err != nil && !strings.Contains(schemaErrorOf(t, err).Error(), "USAGE") {
		t.Errorf("the error does not say what is missing: %v", err)
	}

	// Once the DBA has granted it, nothing is.
	exec(t, c.superuser, fmt.Sprintf("grant usage on schema pgsession to %s, %s", identifier(c.app), identifier(c.admin)))
	setUp(t, dial(t, c.ownerAddress, nil).Query, c.cfg)
	// The owner is not the schema's, so the application must say whom it trusts.
	cfg := c.cfg
	cfg.Owner = c.owner
	useAsRequest(t, setUp(t, dial(t, c.appAddress, nil).Query, cfg), castColumns)
}

func TestSetupNoticesThatTheAdminCannotReadTheView(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	owner := dial(t, c.ownerAddress, nil)
	store := setUp(t, owner.Query, c.cfg)
	exec(t, owner, "revoke select on pgsession.session_view from "+identifier(c.admin))
	must(t, store.Setup(t.Context()))
	expectSame(t, privileges(t, c.superuser), wantPrivileges(c.app, c.admin))
}

// plants are what a role that may create in the schema can put there, to be taken for the store's:
// each calls lure, which remembers who ran it.
var plants = map[string]string{
	"the version function": `
		create function pgsession.session_schema_version(out migration int4, out functions int4, out columns text)
		language plpgsql as $$ begin perform lair.lure(); migration := 1; functions := 0; columns := '[]'; end $$;
		grant execute on function pgsession.session_schema_version() to public`,
	"a function": `
		create function pgsession.session_lock(p_ids text[], p_subject text, p_timeout float8, p_delete bool) returns bool
		language plpgsql as $$ begin return lair.lure(); end $$`,
	"a function that only functions call": `
		create function pgsession.session_settle() returns void
		language plpgsql as $$ begin perform lair.lure(); end $$`,
	"a function with other arguments": `
		create function pgsession.session_get(p_id text, p_more int4 default lair.lure()::int4) returns text language sql as 'select p_id'`,
	"the version table": `
		create table pgsession.session_schema_version (version int4 not null);
		insert into pgsession.session_schema_version values (0);
		create function lair.change() returns trigger language plpgsql as $$ begin perform lair.lure(); return new; end $$;
		create trigger lure before update or insert on pgsession.session_schema_version for each row execute function lair.change()`,
	"the table": `
		create table pgsession.session (
		    version int8, created_at timestamptz, expires_at timestamptz, absolute_expires_at timestamptz,
		    prune_after timestamptz, revoked_at timestamptz, idle_timeout interval, codec int2,
		    id text primary key default lair.lure()::text, subject text, renewed_to text, data bytea)`,
	"the table of the beat": `
		create table pgsession.session_beat (one bool primary key default lair.lure()::bool, n int8, at timestamptz, nonce text)`,
	"the view": "create view pgsession.session_view as select lair.lure() as id",
}

func TestNothingOfAStrangersIsCalledOrAdopted(t *testing.T) {
	t.Parallel()
	for name, plant := range plants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCast(t)
			// A schema in which too many may create.
			exec(t, c.superuser, "create schema pgsession")
			exec(t, c.superuser, fmt.Sprintf("grant all on schema pgsession to %s, %s", identifier(c.other), identifier(c.owner)))
			exec(t, c.superuser, "create schema lair authorization "+identifier(c.other))
			other := dial(t, c.otherAddress, nil)
			execAsIs(t, other, `
				create table lair.luck (who text);
				grant usage on schema lair to public;
				grant insert on lair.luck to public;
				create function lair.lure() returns bool language plpgsql volatile
				as $$ begin insert into lair.luck values (current_user); return true; end $$`)
			execAsIs(t, other, plant)
			before := fingerprint(t, c.superuser)
			for who, address := range map[string]string{"the superuser": c.address, "the owner": c.ownerAddress, "the app": c.appAddress} {
				for _, owner := range []string{"", c.owner} {
					if owner != "" && who == "the app" {
						continue
					}
					cfg := c.cfg
					cfg.Owner = owner
					err := storeOf(t, dial(t, address, nil).Query, cfg).Setup(t.Context())
					if e := schemaErrorOf(t, err); who != "the app" && !strings.Contains(e.Error(), c.other) {
						t.Errorf("%s, Config.Owner %q: the error does not name the stranger: %v", who, owner, err)
					}
				}
				var script strings.Builder
				must(t, pgsession.SetupSQL(&script, c.cfg))
				if _, err := dial(t, address, nil).Exec(t.Context(), script.String()); err == nil {
					t.Errorf("SetupSQL's script, run by %s, adopts it", who)
				}
			}
			expectSame(t, fingerprint(t, c.superuser), before)
			for _, lured := range column[string](t, c.superuser, "select distinct who from lair.luck") {
				t.Errorf("the stranger's code ran as %s", lured)
			}
		})
	}
}

// What Check advises of a store whose owner is a superuser.
func TestASuperusersStoreIsHandedToConfigOwner(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	first := setUp(t, dial(t, c.address, nil).Query, c.cfg)
	finding(t, check(t, first), pgsession.FindingOwner, pgsession.SeverityWarning)
	token, session, err := first.Create(t.Context(), pgsession.Session{Subject: "ada", Data: []byte("kept")})
	must(t, err)
	cfg := c.cfg
	cfg.Owner = c.other // which has no right to anything yet
	must(t, storeOf(t, dial(t, c.address, nil).Query, cfg).Migrate(t.Context()))
	if got := owners(t, c.superuser); !slices.Equal(got, []string{c.other}) {
		t.Errorf("the owners are %q", got)
	}
	expectSame(t, slices.DeleteFunc(privileges(t, c.superuser), func(p string) bool {
		return strings.HasPrefix(p, c.other+" ") // USAGE and CREATE of the schema, which stays the superuser's
	}), wantPrivileges(c.app, c.admin))
	owner := setUp(t, dial(t, c.otherAddress, nil).Query, cfg)
	for _, f := range check(t, owner) {
		if f.Code == pgsession.FindingOwner || f.Severity > pgsession.SeverityInfo {
			t.Error(f)
		}
	}
	app := setUp(t, dial(t, c.appAddress, nil).Query, cfg)
	if got, err := app.Get(t.Context(), token); err != nil || string(got.Data) != "kept" || got.ID != session.ID {
		t.Errorf("got %+v, %v", got, err)
	}
	useAll(t, owner, castColumns)
	useAsRequest(t, app, castColumns)
	// It upgrades too.
	exec(t, c.superuser, "drop function pgsession.session_touch")
	must(t, owner.Setup(t.Context()))
	if got := owners(t, c.superuser); !slices.Equal(got, []string{c.other}) {
		t.Errorf("then the owners are %q", got)
	}
}
