package pgsession

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Parts that the schema consists of. Each is named after the table: by the suffix of a relation, or by "_" and the
// name of a function.
var (
	relationSuffixes = []string{"", "_view", "_beat", "_cleanup", "_audit", "_events", "_result"}
	appFunctions     = []string{
		"audit_status", "beat", "cleanup_status", "count", "destroy", "get", "list", "notify", "patch", "renew", "reused",
		"revoke", "schema_version", "set", "touch",
	}
	adminFunctions = []string{
		"audit_status", "beat", "claim", "cleanup_job", "cleanup_status", "clear", "confirm", "count", "count_all", "events",
		"hook", "json", "list", "list_all", "prune", "prune_all", "prune_events", "revoke", "revoke_all", "schema_version",
	}
	allFunctions = slices.Compact(slices.Sorted(slices.Values(slices.Concat(
		appFunctions, adminFunctions,
		[]string{"admit", "audit", "disown", "lock", "merge", "publish", "reap", "settle", "successor"}))))
)

// catalogSQL tells what there is, as rows of (kind, name, detail, ok): in one statement, with no
// right to anything but the catalogue, and with no name or operator that a hostile search_path
// could replace. What several parts ask of is read once, by its names: PostgreSQL takes longer to plan
// this statement than to carry it out.
//
//	$1 schema, $2 table, $3 Config.AppRole, $4 Config.AdminRole and $5 Config.Owner, or ''
var catalogSQL = `
with n as materialized (
    select n.oid, n.nspname, n.nspowner
      from pg_catalog.pg_namespace as n
     where n.nspname operator(pg_catalog.=) $1::pg_catalog.text::pg_catalog.name
), c as materialized (
    select c.oid, c.relname, c.relkind, c.relpersistence, c.relowner
      from n
      join pg_catalog.pg_class as c on c.relnamespace operator(pg_catalog.=) n.oid
     where c.relname operator(pg_catalog.=) any (array(
               select ($2::pg_catalog.text operator(pg_catalog.||) s.suffix)::pg_catalog.name
                 from pg_catalog.unnest('{"` + strings.Join(relationSuffixes, `","`) + `"}'::pg_catalog.text[]) as s(suffix)))
), p as materialized (
    select p.oid, p.proname, p.proowner
      from n
      join pg_catalog.pg_proc as p on p.pronamespace operator(pg_catalog.=) n.oid
     where p.proname operator(pg_catalog.=) any (array(
               select ($2::pg_catalog.text operator(pg_catalog.||) '_' operator(pg_catalog.||) s.suffix)::pg_catalog.name
                 from pg_catalog.unnest('{"` + strings.Join(allFunctions, `","`) + `"}'::pg_catalog.text[]) as s(suffix)))
), r as materialized (
    select u.kind, r.oid, r.rolname, r.rolsuper, r.rolcanlogin
      from (values ('current', current_user::pg_catalog.text), ('app', $3::pg_catalog.text),
                   ('admin', $4::pg_catalog.text), ('owner', $5::pg_catalog.text)) as u(kind, name)
      join pg_catalog.pg_roles as r on r.rolname operator(pg_catalog.=) u.name::pg_catalog.name
)
select 'schema'::pg_catalog.text, n.nspname::pg_catalog.text, ''::pg_catalog.text,
       pg_catalog.has_schema_privilege(n.oid, 'usage')
  from n
union all
select 'relation', c.relname::pg_catalog.text,
       case when exists (select from pg_catalog.pg_inherits as i where i.inhparent operator(pg_catalog.=) c.oid)
            then 'parent'
            when exists (
                select
                  from (values ('_beat', 'nonce'), ('_cleanup', 'ran_at'), ('_audit', 'audited'), ('_events', 'kind')
                       ) as own(suffix, attname)
                 where c.relname::pg_catalog.text operator(pg_catalog.=) ($2::pg_catalog.text operator(pg_catalog.||) own.suffix)
                   and not exists (
                       select
                         from pg_catalog.pg_attribute as a
                        where a.attrelid operator(pg_catalog.=) c.oid
                          and a.attname::pg_catalog.text operator(pg_catalog.=) own.attname))
            then 'other' else c.relkind::pg_catalog.text end, true
  from c
union all
select 'persistence', c.relname::pg_catalog.text, c.relpersistence::pg_catalog.text, true
  from c
 where c.relname operator(pg_catalog.=) $2::pg_catalog.text::pg_catalog.name
union all
select 'cron', e.extversion, '', pg_catalog.has_schema_privilege(n.oid, 'usage')
       and pg_catalog.has_function_privilege(p.oid, 'execute')
  from pg_catalog.pg_extension as e
  join pg_catalog.pg_namespace as n on n.nspname operator(pg_catalog.=) 'cron'::pg_catalog.name
  join pg_catalog.pg_proc as p on p.pronamespace operator(pg_catalog.=) n.oid
   and p.proname operator(pg_catalog.=) 'schedule'::pg_catalog.name
   and p.pronargs operator(pg_catalog.=) 3::pg_catalog.int2
 where e.extname operator(pg_catalog.=) 'pg_cron'::pg_catalog.name
union all
select 'cron database', coalesce(
           -- For others it is an error to read it.
           case when pg_catalog.pg_has_role(current_user, 'pg_read_all_settings', 'usage')
                then pg_catalog.current_setting('cron.database_name', true) end, ''),
       pg_catalog.current_database()::pg_catalog.text, r.rolcanlogin
  from r
 where r.kind operator(pg_catalog.=) 'current'
union all
select 'current role', r.rolname::pg_catalog.text, '', r.rolsuper
  from r
 where r.kind operator(pg_catalog.=) 'current'
union all
select 'lender', o.rolname::pg_catalog.text, '', not o.rolsuper
  from p
  join pg_catalog.pg_roles as o on o.oid operator(pg_catalog.=) p.proowner
 where p.proname operator(pg_catalog.=) ($2::pg_catalog.text operator(pg_catalog.||) '_prune_all')::pg_catalog.name
union all
select 'owner', o.name::pg_catalog.text, r.rolname::pg_catalog.text,
       r.rolsuper or r.rolname operator(pg_catalog.=) current_user or r.oid operator(pg_catalog.=) n.nspowner
  from (select c.relname as name, c.relowner as owner from c
        union all
        select p.proname, p.proowner from p) as o
 cross join n
  join pg_catalog.pg_roles as r on r.oid operator(pg_catalog.=) o.owner
union all
select 'index', a.attname::pg_catalog.text,
       case when i.indisunique and i.indimmediate and i.indnkeyatts operator(pg_catalog.=) 1::pg_catalog.int2
             and i.indpred is null then 'unique' else '' end,
       (i.indisvalid and m.amname operator(pg_catalog.=) 'btree'::pg_catalog.name
       and o.opcdefault and i.indcollation[0] operator(pg_catalog.=) a.attcollation
       and (a.attname operator(pg_catalog.<>) 'subject'::pg_catalog.name or i.indkey[1] operator(pg_catalog.=) (
            select b.attnum from pg_catalog.pg_attribute as b
             where b.attrelid operator(pg_catalog.=) c.oid and b.attname operator(pg_catalog.=) 'id'::pg_catalog.name))
       -- What it leaves out is not looked for: nulls, and for a subject tombstones. Read as a tree, for
       -- pg_get_expr would lock the table.
       and (i.indpred is null or pg_catalog.regexp_replace(i.indpred::pg_catalog.text, pg_catalog.format(
            '[{]NULLTEST :arg [{]VAR :varno 1 :varattno (%s [^}]*[}] :nulltesttype 1|%s [^}]*[}] :nulltesttype 0) [^}]*[}]',
            a.attnum, case when a.attname operator(pg_catalog.=) 'subject'::pg_catalog.name then (
                select b.attnum from pg_catalog.pg_attribute as b
                 where b.attrelid operator(pg_catalog.=) c.oid
                   and b.attname operator(pg_catalog.=) 'revoked_at'::pg_catalog.name) end), '', 'g')
            operator(pg_catalog.~) '^([{]BOOLEXPR :boolop and :args [(] *[)] :location -?[0-9]+[}])?$')) is true
  from c
  join pg_catalog.pg_index as i on i.indrelid operator(pg_catalog.=) c.oid
  join pg_catalog.pg_class as x on x.oid operator(pg_catalog.=) i.indexrelid
  join pg_catalog.pg_am as m on m.oid operator(pg_catalog.=) x.relam
  join pg_catalog.pg_opclass as o on o.oid operator(pg_catalog.=) i.indclass[0]
  join pg_catalog.pg_attribute as a
    on a.attrelid operator(pg_catalog.=) c.oid and a.attnum operator(pg_catalog.=) i.indkey[0]
 where c.relname operator(pg_catalog.=) $2::pg_catalog.text::pg_catalog.name
union all
select 'column', a.attname::pg_catalog.text, t.typname::pg_catalog.text,
       t.typnamespace operator(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace
  from c
  join pg_catalog.pg_attribute as a on a.attrelid operator(pg_catalog.=) c.oid
  join pg_catalog.pg_type as t on t.oid operator(pg_catalog.=) a.atttypid
 where c.relname operator(pg_catalog.=) $2::pg_catalog.text::pg_catalog.name
   and a.attnum operator(pg_catalog.>) 0::pg_catalog.int2
   and not a.attisdropped
union all
select 'function', p.proname::pg_catalog.text, u.kind, pg_catalog.has_function_privilege(u.role, p.oid, 'execute')
  from p
 cross join (select r.kind, r.oid as role from r where r.kind operator(pg_catalog.<>) 'owner'
             union all
             select 'public', 0::pg_catalog.oid) as u
union all
select 'grant', r.kind, '', pg_catalog.has_schema_privilege(r.oid, n.oid, 'usage')
       and (r.kind operator(pg_catalog.=) 'app' or coalesce((
            select pg_catalog.has_table_privilege(r.oid, c.oid, 'select') from c
             where c.relname operator(pg_catalog.=)
                   ($2::pg_catalog.text operator(pg_catalog.||) '_view')::pg_catalog.name), true))
  from n
 cross join r
 where r.kind operator(pg_catalog.=) any ('{app,admin}'::pg_catalog.text[])
union all
select 'role', r.rolname::pg_catalog.text, '', true
  from r
 where r.kind operator(pg_catalog.<>) 'current'`

// schemaState is what there is in the database.
type schemaState struct {
	exists, usable bool   // the schema
	table          string // "", or pg_class.relkind, or "parent"
	view           bool
	beat           bool     // the table of the nonce
	cleanup        bool     // the table of the last prune
	audit, events  bool     // the tables of what happened, and of whether it is recorded
	taken          []string // names of those tables that are other ones
	unlogged       bool     // the table
	cron           string   // the version of pg_cron in this database; "": it is not there
	mayCron        bool     // the current role may schedule jobs
	cronDatabase   string   // where pg_cron runs, as far as the current role may know
	database       string
	lender         string                     // who owns what a job runs, and is no superuser
	role           string                     // the current one
	super          bool                       // it is a superuser
	mayLogIn       bool                       // it may
	result         bool                       // the composite type
	types          map[string]string          // of the table's columns; words for a type that is not pg_catalog's
	indexed        map[string]string          // first column of an index that serves -> "unique", or ""
	functions      map[string]map[string]bool // name -> "current", "app", "admin", "public" -> may execute
	owners         map[string]string          // of the tables, the view, the type and the functions
	strangers      map[string]bool            // owners that are not known to be the store's
	granted        map[string]bool            // "app", "admin": USAGE on the schema; for admin, SELECT on the view
	roles          map[string]bool            // of Config's, those that exist
	migration      int32                      // 0: unknown
	version        int32                      // of the functions; 0: not installed
	columnsText    string                     // the promoted columns that the functions know, as they say it
	columns        []Column

	audited   bool           // events are recorded; only known where Config.Audit.Table asks
	retention *time.Duration // of events; nil: unknown
}

func newSchemaState() *schemaState {
	return &schemaState{
		types: map[string]string{}, indexed: map[string]string{}, functions: map[string]map[string]bool{},
		owners: map[string]string{}, strangers: map[string]bool{}, granted: map[string]bool{},
		roles: map[string]bool{},
	}
}

// inspect reads the catalogue and then, if there is one, asks the version function.
func (s *Store) inspect(ctx context.Context) (*schemaState, error) {
	cfg := s.store.cfg
	var state *schemaState
	begin := func() { state = newSchemaState() }
	var kind, name, detail string
	var ok bool
	args := []any{cfg.Schema, cfg.Table, cfg.AppRole, cfg.AdminRole, cfg.Owner}
	err := s.each(ctx, s.store.sql.catalog, args, []any{&kind, &name, &detail, &ok}, begin, func() {
		switch kind {
		case "schema":
			state.exists, state.usable = true, ok
		case "relation":
			if detail == "other" {
				state.taken = append(state.taken, name)
			}
			switch name {
			case cfg.Table:
				state.table = detail
			case cfg.Table + "_view":
				state.view = detail == "v"
			case cfg.Table + "_beat":
				state.beat = detail == "r"
			case cfg.Table + "_cleanup":
				state.cleanup = detail == "r"
			case cfg.Table + "_audit":
				state.audit = detail == "r"
			case cfg.Table + "_events":
				state.events = detail == "r"
			default:
				state.result = detail == "c"
			}
		case "persistence":
			state.unlogged = detail == "u"
		case "cron":
			state.cron, state.mayCron = name, ok
		case "cron database":
			state.cronDatabase, state.database, state.mayLogIn = name, detail, ok
		case "current role":
			state.role, state.super = name, ok
		case "lender":
			if ok {
				state.lender = name
			}
		case "owner":
			state.owners[name] = detail
			state.strangers[detail] = !ok && detail != cfg.Owner
		case "index":
			if ok && state.indexed[name] == "" {
				state.indexed[name] = detail
			}
		case "column":
			if !ok {
				detail = "a type of another schema, " + detail
			}
			state.types[name] = detail
		case "function":
			if state.functions[name] == nil {
				state.functions[name] = map[string]bool{}
			}
			state.functions[name][detail] = state.functions[name][detail] || ok
		case "grant":
			state.granted[name] = ok
		case "role":
			state.roles[name] = true
		}
	})
	if err != nil {
		return nil, err
	}
	version := cfg.Table + "_schema_version"
	if !state.usable || !state.functions[version]["current"] || state.strangers[state.owners[version]] {
		return state, nil
	}
	err = s.one(ctx, s.store.sql.schemaVersion, nil, &state.migration, &state.version, &state.columnsText)
	if err != nil {
		return nil, err
	}
	var columns []struct{ Name, Type string }
	if err := json.Unmarshal([]byte(state.columnsText), &columns); err != nil {
		return nil, fmt.Errorf("%s_schema_version: columns: %w", cfg.Table, err)
	}
	for _, c := range columns {
		state.columns = append(state.columns, Column(c))
	}
	return state, s.inspectAudit(ctx, state)
}

// mayExecute says whether the current role may execute functions of the store.
func (state *schemaState) mayExecute(cfg *config, functions ...string) bool {
	return !slices.ContainsFunc(functions, func(f string) bool {
		return !state.functions[cfg.Table+"_"+f]["current"]
	})
}

// problems lists what is missing or differs, and whether Setup's script can mend it.
func (state *schemaState) problems(cfg *config) (problems []string, mendable bool) {
	mendable = true
	missing := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	hopeless := func(format string, args ...any) {
		missing(format, args...)
		mendable = false
	}

	for _, role := range []struct{ field, name string }{
		{"Config.Owner", cfg.Owner}, {"Config.AppRole", cfg.AppRole}, {"Config.AdminRole", cfg.AdminRole},
	} {
		if role.name != "" && !state.roles[role.name] {
			hopeless("the role %q of %s does not exist", role.name, role.field)
		}
	}
	if !state.exists {
		missing("the schema %q is missing", cfg.Schema)
		return problems, mendable
	}
	if !state.usable {
		missing("the current role has no USAGE on the schema %q", cfg.Schema)
		return problems, mendable
	}

	for _, name := range slices.Sorted(maps.Keys(state.owners)) {
		switch owner := state.owners[name]; {
		case state.strangers[owner]:
			hopeless("%q is owned by %q; if that role is the store's, name it in Config.Owner", name, owner)
		case cfg.Owner != "" && owner != cfg.Owner:
			missing("%q is owned by %q instead of %q", name, owner, cfg.Owner)
		}
	}

	for _, name := range state.taken {
		hopeless("%q is not this store's table of that name", name)
	}
	switch state.table {
	case "":
		missing("the table %q is missing", cfg.Table)
	case "r":
		for _, c := range tableColumns {
			switch t := state.types[c.Name]; t {
			case c.Type:
			case "":
				hopeless("the column %q is missing; it has the type %s", c.Name, c.Type)
			default:
				hopeless("the column %q has the type %s instead of %s", c.Name, t, c.Type)
			}
		}
		if state.indexed["id"] != "unique" && state.types["id"] == "text" {
			hopeless("the column %q has no unique index", "id")
		}
	default:
		hopeless("%q is not a plain table", cfg.Table)
	}
	newer := state.version > functionsVersion
	for _, c := range cfg.columns {
		known := slices.ContainsFunc(state.columns, func(o Column) bool { return o.Name == c.Name })
		switch t := state.types[c.Name]; {
		case t != "" && t != c.Type:
			hopeless("the promoted column %q has the type %s instead of %s", c.Name, t, c.Type)
		case t != "" && known:
		case t != "" && !newer:
			missing("the functions do not know the column %q", c.Name)
		case newer:
			hopeless("the promoted column %q is missing, and only the newer program can add it", c.Name)
		default:
			missing("the promoted column %q is missing", c.Name)
		}
	}
	if !state.view {
		missing("the view %q is missing", cfg.Table+"_view")
	}
	if !state.beat {
		missing("the table %q is missing", cfg.Table+"_beat")
	}
	if !state.cleanup {
		missing("the table %q is missing", cfg.Table+"_cleanup")
	}
	if !state.audit {
		missing("the table %q is missing", cfg.Table+"_audit")
	}
	if !state.events {
		missing("the table %q is missing", cfg.Table+"_events")
	}
	if !state.result {
		missing("the type %q is missing", cfg.Table+"_result")
	}
	for _, f := range allFunctions {
		if name := cfg.Table + "_" + f; state.functions[name] == nil {
			missing("the function %q is missing", name)
		}
	}
	for _, f := range allFunctions {
		// A newer program's grants are not ours to mend.
		if name := cfg.Table + "_" + f; state.functions[name]["public"] && !newer {
			missing("PUBLIC has EXECUTE on the function %q", name)
		}
	}
	for _, grant := range []struct {
		kind, role string
		functions  []string
	}{{"app", cfg.AppRole, appFunctions}, {"admin", cfg.AdminRole, adminFunctions}} {
		if grant.role == "" || !state.roles[grant.role] {
			continue
		}
		if !state.granted[grant.kind] && grant.kind == "app" {
			missing("the role %q has no USAGE on the schema %q", grant.role, cfg.Schema)
		} else if !state.granted[grant.kind] {
			missing("the role %q has no USAGE on the schema %q or no SELECT on its view", grant.role, cfg.Schema)
		}
		for _, f := range grant.functions {
			name := cfg.Table + "_" + f
			if may := state.functions[name]; may != nil && !may[grant.kind] {
				missing("the role %q has no EXECUTE on the function %q", grant.role, name)
			}
		}
	}
	switch {
	case state.functions[cfg.Table+"_schema_version"] == nil:
	case !state.functions[cfg.Table+"_schema_version"]["current"]:
		missing("the current role has no EXECUTE on the function %q", cfg.Table+"_schema_version")
	case state.version < functionsVersion:
		missing("the functions have version %d, this program needs %d", state.version, functionsVersion)
	}
	if problem := state.auditProblem(cfg); problem != "" {
		missing("%s", problem)
	}
	if last, err := lastMigration(); err == nil && state.version > 0 && state.migration < last {
		missing("migration %d of %d is the last that was applied", state.migration, last)
	}
	return problems, mendable
}

// neededIndex is one without which calls read the whole table.
type neededIndex struct{ column, definition, serves string }

// missingIndexes are those that Setup makes with the table, and only then: on one that has grown they
// are a DBA's to make, concurrently.
func (state *schemaState) missingIndexes() []neededIndex {
	return slices.DeleteFunc([]neededIndex{
		{"prune_after", "(prune_after)", "prunes"},
		{"subject", "(subject, id) where subject is not null and revoked_at is null", "calls for a subject's sessions"},
		{"renewed_to", "(renewed_to) where renewed_to is not null", "logins by Set"},
	}, func(i neededIndex) bool {
		_, ok := state.indexed[i.column]
		return ok
	})
}

// names are those of the tables, the view, the type and the functions.
func (*schemaState) names(cfg *config) []string {
	var names []string
	for _, suffix := range relationSuffixes {
		names = append(names, cfg.Table+suffix)
	}
	for _, f := range allFunctions {
		names = append(names, cfg.Table+"_"+f)
	}
	return names
}
