package pgsession

import (
	"context"
	"maps"
	"slices"
	"strings"
)

// checkOwners looks for what runs, or is read, as a superuser.
func (c *checker) checkOwners(ctx context.Context) error {
	remedy := "create a role without rights, grant usage, create on schema " + quoteIdentifier(c.cfg.Schema) +
		" to it, make it the owner by Config.Owner, and run Setup as a superuser"
	table := c.state.owners[c.cfg.Table]
	if table == "" {
		return nil // checkSchema has it
	}
	var name, object, owner string
	owned := map[string][]string{} // superuser -> objects
	names := c.state.names(c.cfg)
	err := c.store.each(ctx, statement{sql: superusersSQL}, []any{c.cfg.Schema, c.cfg.Table}, []any{&name, &object, &owner},
		func() { clear(owned) }, func() {
			if slices.Contains(names, name) {
				owned[owner] = append(owned[owner], object)
			}
		})
	if err != nil {
		return err
	}
	for _, owner := range slices.Sorted(maps.Keys(owned)) {
		objects := owned[owner]
		switch {
		case owner == table:
			c.find(SeverityWarning, FindingOwner, remedy,
				"the table's owner, %q, is a superuser, and the functions run with its rights", owner)
		case owned[table] != nil:
			c.find(SeverityWarning, FindingOwner, remedy, "the superuser %q owns %s", owner, strings.Join(objects, ", "))
		default:
			var statements []string
			for _, object := range objects {
				statements = append(statements, "alter "+object+" owner to "+quoteIdentifier(table))
			}
			c.find(SeverityWarning, FindingOwner, strings.Join(statements, "; "),
				"the superuser %q owns %s, and not the table's owner: what it is used for is done with its rights",
				owner, strings.Join(objects, ", "))
		}
	}
	return nil
}

// checkFunctionACLs compares who may execute what with what Setup grants: the lists of schema.go. Setup itself
// takes back only what everyone may: what a DBA has granted is kept.
func (c *checker) checkFunctionACLs(ctx context.Context) error {
	type grant struct{ grantee, grantor string }
	type excess struct{ names, objects []string }
	var grants []grant
	found := map[grant]*excess{}
	var name, object string
	var g grant
	args, dest := []any{c.cfg.Schema, c.cfg.Table}, []any{&name, &object, &g.grantee, &g.grantor}
	err := c.store.each(ctx, statement{sql: functionACLsSQL}, args, dest, func() { grants = nil; clear(found) }, func() {
		function := strings.TrimPrefix(name, c.cfg.Table+"_")
		if !slices.Contains(allFunctions, function) || slices.Contains(c.granted(g.grantee), function) ||
			g.grantee == c.state.owners[c.cfg.Table] {
			return
		}
		if found[g] == nil {
			found[g] = &excess{}
			grants = append(grants, g)
		}
		e := found[g]
		e.names, e.objects = append(e.names, name), append(e.objects, object)
	})
	for _, g := range grants {
		e := found[g]
		names := strings.Join(e.names, ", ")
		remedy := revocation("execute", "routine "+strings.Join(e.objects, ", "), g.grantee, g.grantor)
		internal := slices.DeleteFunc(slices.Clone(e.names), func(name string) bool {
			function := strings.TrimPrefix(name, c.cfg.Table+"_")
			return slices.Contains(appFunctions, function) || slices.Contains(adminFunctions, function)
		})
		switch {
		case g.grantee == "":
			c.find(SeverityError, FindingACL, remedy, "everyone may execute %s, as after a restore without privileges", names)
		case g.grantee == c.cfg.AppRole || g.grantee == c.cfg.AdminRole:
			c.find(SeverityWarning, FindingACL, remedy, "the role %q may execute %s, which is not for it", g.grantee, names)
		case len(internal) > 0:
			c.find(SeverityWarning, FindingACL, remedy,
				"the role %q may execute %s, of which for nobody but the functions are: %s",
				g.grantee, names, strings.Join(internal, ", "))
		default:
			c.find(SeverityInfo, FindingACL, "if that is not on purpose: "+remedy, "the role %q may execute %s", g.grantee, names)
		}
	}
	return err
}

// granted are the functions that a role is to have.
func (c *checker) granted(role string) (functions []string) {
	if role != "" && role == c.cfg.AppRole {
		functions = append(functions, appFunctions...)
	}
	if role != "" && role == c.cfg.AdminRole {
		functions = append(functions, adminFunctions...)
	}
	return functions
}

// checkACLs looks at what is not a function, of which Setup grants the view, to AdminRole.
func (c *checker) checkACLs(ctx context.Context) error {
	var object, target, grantee, grantor, privileges, list string
	noView := c.cfg.AppRole
	if noView == c.cfg.AdminRole {
		noView = ""
	}
	return c.each(ctx, aclsSQL, []any{c.cfg.Schema, c.cfg.Table, noView},
		[]any{&object, &target, &grantee, &grantor, &privileges, &list}, func() {
			remedy := revocation(list, target, grantee, grantor)
			switch grantee {
			case c.state.owners[c.cfg.Table]: // which Setup gave what it needs
			case "":
				c.find(SeverityError, FindingACL, remedy, "everyone has %s on %s", privileges, object)
			case c.cfg.AppRole, c.cfg.AdminRole:
				c.find(SeverityWarning, FindingACL, remedy,
					"the role %q has %s on %s, which the functions are there to keep from it", grantee, privileges, object)
			default:
				c.find(SeverityInfo, FindingACL, "if that is not on purpose: "+remedy,
					"the role %q has %s on %s", grantee, privileges, object)
			}
		})
}

// revocation is the statement that takes back what grantor ("": the owner, for whom a superuser may) granted.
func revocation(privileges, object, grantee, grantor string) string {
	from, as := "public", ""
	if grantee != "" {
		from = quoteIdentifier(grantee)
	}
	if grantor != "" {
		as = "set role " + quoteIdentifier(grantor) + "; "
	}
	return as + "revoke " + privileges + " on " + object + " from " + from
}

// routinesSQL names functions as GRANT, REVOKE and ALTER do: with their arguments where there are two of a name.
const routinesSQL = `
    select p.proname::pg_catalog.text as name, p.proacl as acl, p.proowner as owner,
           pg_catalog.format('%I.%I', n.nspname, p.proname) operator(pg_catalog.||)
           case when pg_catalog.count(*) over (partition by p.proname) operator(pg_catalog.>) 1::pg_catalog.int8
                then pg_catalog.format('(%s)', pg_catalog.oidvectortypes(p.proargtypes)) else '' end as object
      from pg_catalog.pg_proc as p
      join pg_catalog.pg_namespace as n on n.oid operator(pg_catalog.=) p.pronamespace
     where n.nspname operator(pg_catalog.=) $1::pg_catalog.text::pg_catalog.name
       and pg_catalog.starts_with(p.proname::pg_catalog.text, $2::pg_catalog.text operator(pg_catalog.||) '_')`

const superusersSQL = `
with routines as (` + routinesSQL + `
),
objects as (
    select r.name, 'routine ' operator(pg_catalog.||) r.object as object, r.owner
      from routines as r
     union all
    select c.relname::pg_catalog.text, pg_catalog.format('table %I.%I', n.nspname, c.relname), c.relowner
      from pg_catalog.pg_class as c
      join pg_catalog.pg_namespace as n on n.oid operator(pg_catalog.=) c.relnamespace
     where n.nspname operator(pg_catalog.=) $1::pg_catalog.text::pg_catalog.name
       and (c.relname operator(pg_catalog.=) $2::pg_catalog.text::pg_catalog.name
            or pg_catalog.starts_with(c.relname::pg_catalog.text, $2::pg_catalog.text operator(pg_catalog.||) '_'))
       and c.relkind::pg_catalog.text operator(pg_catalog.=) any (array['r', 'v'])
)
select o.name, o.object, r.rolname::pg_catalog.text
  from objects as o
  join pg_catalog.pg_roles as r on r.oid operator(pg_catalog.=) o.owner and r.rolsuper
 order by 3, 2`

// Columns of who was granted something, and by whom, if not by the owner.
const granteeSQL = `
       case when a.grantee operator(pg_catalog.=) 0::pg_catalog.oid then ''
            else pg_catalog.pg_get_userbyid(a.grantee)::pg_catalog.text end,
       case when a.grantor operator(pg_catalog.=) o.owner then ''
            else pg_catalog.pg_get_userbyid(a.grantor)::pg_catalog.text end`

const functionACLsSQL = `
with objects as (` + routinesSQL + `
)
select o.name, o.object,` + granteeSQL + `
  from objects as o
 cross join lateral pg_catalog.aclexplode(coalesce(o.acl, pg_catalog.acldefault('f', o.owner))) as a
 where a.grantee operator(pg_catalog.<>) o.owner
 order by 3, 4, 1`

// What is to be taken back, as REVOKE has it, beside what there is in words. The sequence of the events
// is found by what owns it: its name depends on others.
//
//	$3 a role that is not to have the view; who else was given it is meant to have it
const aclsSQL = `
with relations as (
    select c.oid, c.relname, c.relacl, c.relowner, n.nspname, c.relkind::pg_catalog.text as kind
      from pg_catalog.pg_class as c
      join pg_catalog.pg_namespace as n on n.oid operator(pg_catalog.=) c.relnamespace
     where n.nspname operator(pg_catalog.=) $1::pg_catalog.text::pg_catalog.name
       and (c.relname operator(pg_catalog.=) any (array[
                $2::pg_catalog.text, $2::pg_catalog.text operator(pg_catalog.||) '_view',
                $2::pg_catalog.text operator(pg_catalog.||) '_beat',
                $2::pg_catalog.text operator(pg_catalog.||) '_cleanup',
                $2::pg_catalog.text operator(pg_catalog.||) '_audit',
                $2::pg_catalog.text operator(pg_catalog.||) '_events',
                $2::pg_catalog.text operator(pg_catalog.||) '_schema_version']::pg_catalog.name[])
            or c.relkind::pg_catalog.text operator(pg_catalog.=) 'S' and exists (
               select
                 from pg_catalog.pg_depend as d
                 join pg_catalog.pg_class as e on e.oid operator(pg_catalog.=) d.refobjid
                where d.classid operator(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
                  and d.objid operator(pg_catalog.=) c.oid
                  and d.refclassid operator(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
                  and d.deptype::pg_catalog.text operator(pg_catalog.=) any (array['a', 'i'])
                  and e.relnamespace operator(pg_catalog.=) n.oid
                  and e.relname operator(pg_catalog.=)
                      ($2::pg_catalog.text operator(pg_catalog.||) '_events')::pg_catalog.name))
),
objects as (
    select pg_catalog.format('the %s %I', k.kind, r.relname) as object, r.relacl as acl, r.relowner as owner,
           pg_catalog.format('%s %I.%I', k.kind, r.nspname, r.relname) as target, '' as attname,
           r.relname operator(pg_catalog.=) ($2::pg_catalog.text operator(pg_catalog.||) '_view')::pg_catalog.name as shown
      from relations as r
     cross join lateral (
           select case when r.kind operator(pg_catalog.=) 'S' then 'sequence' else 'table' end as kind
           ) as k
     union all
    select pg_catalog.format('the column %I of the table %I', a.attname, r.relname), a.attacl, r.relowner,
           pg_catalog.format('table %I.%I', r.nspname, r.relname), pg_catalog.format(' (%I)', a.attname), false
      from relations as r
      join pg_catalog.pg_attribute as a on a.attrelid operator(pg_catalog.=) r.oid
     where r.kind operator(pg_catalog.<>) 'S'
     union all
    select pg_catalog.format('the schema %I', n.nspname), n.nspacl, n.nspowner,
           pg_catalog.format('schema %I', n.nspname), '', false
      from pg_catalog.pg_namespace as n
     where n.nspname operator(pg_catalog.=) $1::pg_catalog.text::pg_catalog.name
)
select o.object, o.target,` + granteeSQL + `,
       pg_catalog.string_agg(a.privilege_type, ', ' order by a.privilege_type),
       pg_catalog.string_agg(pg_catalog.lower(a.privilege_type) operator(pg_catalog.||) o.attname, ', '
                             order by a.privilege_type)
  from objects as o
 cross join lateral pg_catalog.aclexplode(o.acl) as a
 where a.grantee operator(pg_catalog.<>) o.owner
   and not (a.privilege_type operator(pg_catalog.=) 'USAGE' and pg_catalog.starts_with(o.target, 'schema '))
   and not (o.shown and a.privilege_type operator(pg_catalog.=) 'SELECT'
            and a.grantee operator(pg_catalog.<>) 0::pg_catalog.oid
            and pg_catalog.pg_get_userbyid(a.grantee)::pg_catalog.text operator(pg_catalog.<>) $3::pg_catalog.text)
 group by 1, 2, 3, 4
 order by 1, 3, 4`
