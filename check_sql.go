package pgsession

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// checkListener opens a connection as the listener does, and looks where it ends.
func (c *checker) checkListener(ctx context.Context, i int, listen func(context.Context) (*pgx.Conn, error)) error {
	conn, err := openQuiet(ctx, listen, "pgsession check")
	if err != nil {
		return err
	}
	defer func() {
		_ = conn.Close(ctx) // it was only looked at
		awaitCleanup(c.store.store.life, conn)
	}()
	var pid int32
	var recovery bool
	err = conn.QueryRow(ctx, `select pg_catalog.pg_backend_pid(), pg_catalog.pg_is_in_recovery()`,
		pgx.QueryExecModeExec).Scan(&pid, &recovery)
	if err != nil {
		return err
	}
	if uint32(pid) != conn.PgConn().PID() {
		c.find(SeverityWarning, FindingPooler, "let Config.Listen reach the server itself: a pooler passes no notifications on",
			"a pooler is between listener %d and the server", i+1)
	}
	if recovery {
		c.find(SeverityError, FindingReplica, "let Config.Listen connect to the primary",
			"listener %d is connected to a standby, where notifications cannot be heard", i+1)
	}
	return nil
}

// What Check asks of the catalogue. Every name and operator is qualified: the caller's search_path may
// be hostile.

const serverSQL = `
select pg_catalog.current_setting('server_version_num')::pg_catalog.int8,
       pg_catalog.pg_is_in_recovery(),
       pg_catalog.current_setting('transaction_isolation'),
       pg_catalog.pg_notification_queue_usage(),
       pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'usage'),
       pg_catalog.clock_timestamp()`

const tableSQL = `
select r.rolname::pg_catalog.text, r.rolsuper,
       pg_catalog.pg_stat_get_live_tuples(c.oid), pg_catalog.pg_stat_get_dead_tuples(c.oid),
       c.relpages::pg_catalog.int8, c.reltuples::pg_catalog.float8,
       pg_catalog.current_setting('block_size')::pg_catalog.int8
  from pg_catalog.pg_class as c
  join pg_catalog.pg_namespace as n on n.oid operator(pg_catalog.=) c.relnamespace
  join pg_catalog.pg_roles as r on r.oid operator(pg_catalog.=) c.relowner
 where n.nspname operator(pg_catalog.=) $1::pg_catalog.text::pg_catalog.name
   and c.relname operator(pg_catalog.=) $2::pg_catalog.text::pg_catalog.name`

// An index depends on the columns of its expressions and of its condition too. One that summarizes
// does not end HOT since PostgreSQL 16.
const indexesSQL = `
select distinct x.relname::pg_catalog.text, a.attname::pg_catalog.text, m.amname::pg_catalog.text
  from pg_catalog.pg_index as i
  join pg_catalog.pg_class as x on x.oid operator(pg_catalog.=) i.indexrelid
  join pg_catalog.pg_am as m on m.oid operator(pg_catalog.=) x.relam
  join pg_catalog.pg_class as c on c.oid operator(pg_catalog.=) i.indrelid
  join pg_catalog.pg_namespace as n on n.oid operator(pg_catalog.=) c.relnamespace
  join pg_catalog.pg_attribute as a on a.attrelid operator(pg_catalog.=) c.oid
 where n.nspname operator(pg_catalog.=) $1::pg_catalog.text::pg_catalog.name
   and c.relname operator(pg_catalog.=) $2::pg_catalog.text::pg_catalog.name
   and a.attname operator(pg_catalog.=) any (array['expires_at', 'version', 'data', 'codec']::pg_catalog.name[])
   and (a.attnum operator(pg_catalog.=) any (i.indkey::pg_catalog.int2[]) or exists (
        select
          from pg_catalog.pg_depend as d
         where d.classid operator(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
           and d.objid operator(pg_catalog.=) x.oid
           and d.refclassid operator(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
           and d.refobjid operator(pg_catalog.=) c.oid
           and d.refobjsubid operator(pg_catalog.=) a.attnum))
   and (m.amname operator(pg_catalog.<>) 'brin'::pg_catalog.name
        or pg_catalog.current_setting('server_version_num')::pg_catalog.int4 operator(pg_catalog.<) 160000)
 order by 1, 2`

const aclsSQL = `
with objects as (
    select pg_catalog.format('the table %I', c.relname) as object, c.relacl as acl, c.relowner as owner,
           c.relname operator(pg_catalog.=) ($2::pg_catalog.text operator(pg_catalog.||) '_view')::pg_catalog.name as shown
      from pg_catalog.pg_class as c
      join pg_catalog.pg_namespace as n on n.oid operator(pg_catalog.=) c.relnamespace
     where n.nspname operator(pg_catalog.=) $1::pg_catalog.text::pg_catalog.name
       and c.relname operator(pg_catalog.=) any (array[
               $2::pg_catalog.text, $2::pg_catalog.text operator(pg_catalog.||) '_view',
               $2::pg_catalog.text operator(pg_catalog.||) '_beat',
               $2::pg_catalog.text operator(pg_catalog.||) '_cleanup',
               $2::pg_catalog.text operator(pg_catalog.||) '_audit',
               $2::pg_catalog.text operator(pg_catalog.||) '_events',
               $2::pg_catalog.text operator(pg_catalog.||) '_schema_version']::pg_catalog.name[])
     union all
    select pg_catalog.format('the column %I of the table %I', a.attname, c.relname), a.attacl, c.relowner, false
      from pg_catalog.pg_attribute as a
      join pg_catalog.pg_class as c on c.oid operator(pg_catalog.=) a.attrelid
      join pg_catalog.pg_namespace as n on n.oid operator(pg_catalog.=) c.relnamespace
     where n.nspname operator(pg_catalog.=) $1::pg_catalog.text::pg_catalog.name
       and c.relname operator(pg_catalog.=) $2::pg_catalog.text::pg_catalog.name
     union all
    select pg_catalog.format('the schema %I', n.nspname), n.nspacl, n.nspowner, false
      from pg_catalog.pg_namespace as n
     where n.nspname operator(pg_catalog.=) $1::pg_catalog.text::pg_catalog.name
)
select o.object,
       case when a.grantee operator(pg_catalog.=) 0::pg_catalog.oid then ''
            else pg_catalog.pg_get_userbyid(a.grantee)::pg_catalog.text end,
       pg_catalog.string_agg(a.privilege_type, ', ' order by a.privilege_type)
  from objects as o
 cross join lateral pg_catalog.aclexplode(o.acl) as a
 where a.grantee operator(pg_catalog.<>) o.owner
   and a.privilege_type operator(pg_catalog.<>) 'USAGE'
   -- Whoever was given the view, as AdminRole is, is meant to have it.
   and not (o.shown and a.grantee operator(pg_catalog.<>) 0::pg_catalog.oid
            and a.privilege_type operator(pg_catalog.=) 'SELECT')
 group by 1, 2
 order by 1, 2`

// Of other databases only what replicates holds rows of this one. An autovacuum's snapshot holds none.
const horizonSQL = `
select 'session'::pg_catalog.text, pg_catalog.concat_ws(' ', a.pid, a.usename, a.application_name, a.backend_type),
       pg_catalog.age(coalesce(a.backend_xmin, a.backend_xid))::pg_catalog.int8,
       coalesce(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() operator(pg_catalog.-) a.xact_start),
                '-1'::pg_catalog.float8)
  from pg_catalog.pg_stat_activity as a
 where coalesce(a.backend_xmin, a.backend_xid) is not null
   and a.pid operator(pg_catalog.<>) pg_catalog.pg_backend_pid()
   and (a.datname is null or a.datname operator(pg_catalog.=) pg_catalog.current_database())
   and (a.backend_type operator(pg_catalog.<>) 'autovacuum worker') is not false
 union all
select 'replication slot', s.slot_name::pg_catalog.text, pg_catalog.age(s.xmin)::pg_catalog.int8, -1
  from pg_catalog.pg_replication_slots as s
 where s.xmin is not null
 union all
select 'prepared transaction', p.gid, pg_catalog.age(p.transaction)::pg_catalog.int8,
       pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() operator(pg_catalog.-) p.prepared)
  from pg_catalog.pg_prepared_xacts as p
 where p.database operator(pg_catalog.=) pg_catalog.current_database()
 order by 3 desc
 limit 10`
