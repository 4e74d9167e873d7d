package pgsession

import (
	"context"
	"fmt"
	"strings"
)

const (
	// minDead is from how many dead rows on they are worth a finding.
	minDead = 10_000
	// minPages is from how many pages on it is worth one that they are empty.
	minPages = 1000
	// maxRowBytes: values over 2 kB are stored apart, so rows that take twice as much are half empty.
	maxRowBytes = 4096
	// maxIndexShare is how many times the room that its entries need an index may take. Keys that come in
	// any order leave a third of it empty, and what was deleted half of the rest.
	maxIndexShare = 4
	// entryBytes is what an entry of a btree takes beside its key.
	entryBytes = 20
)

func (c *checker) checkTable(ctx context.Context) error {
	var live, dead, pages, block int64
	var rows float64 // below 0: unknown
	var hides bool
	return c.each(ctx, tableSQL, []any{c.cfg.Schema, c.cfg.Table},
		[]any{&live, &dead, &pages, &rows, &block, &hides, &c.mayRead}, func() {
			if hides {
				c.find(SeverityError, FindingRowSecurity, fmt.Sprintf("alter table %s.%s no force row level security",
					quoteIdentifier(c.cfg.Schema), quoteIdentifier(c.cfg.Table)),
					"row-level security is forced on the table: what its policies hide from the owner is not found, nor ended")
			}
			if all := live + dead; dead >= minDead && float64(dead) > c.cfg.Check.Dead*float64(all) {
				c.find(SeverityWarning, FindingBloat, "see whether autovacuum runs, and whether something holds the horizon",
					"%d of the table's %d rows are dead", dead, all)
			}
			if bytes := float64(pages*block) / max(rows, 1); pages >= minPages && rows >= 0 && bytes > maxRowBytes {
				c.find(SeverityWarning, FindingBloat, "rewrite it once, by pg_repack, or by VACUUM FULL, which locks it",
					"the table takes %d kB for %d rows: most of it is empty", pages*block/1024, int64(rows))
			}
		})
}

// checkIndexes looks at all indexes of the table, a DBA's too.
func (c *checker) checkIndexes(ctx context.Context) error {
	var index string
	var valid, btree bool
	var pages, block int64
	var entries, width float64
	return c.each(ctx, indexesSQL, []any{c.cfg.Schema, c.cfg.Table},
		[]any{&index, &valid, &btree, &pages, &entries, &width, &block}, func() {
			if !valid {
				c.find(SeverityWarning, FindingIndex, "reindex index concurrently "+index,
					"the index %s is not valid, as when making it concurrently has failed: writes pay for it, no read uses it",
					index)
			}
			needed := max(float64(block), max(entries, 1)*(entryBytes+width))
			if size := float64(pages * block); btree && entries >= 0 && pages >= minPages && size > maxIndexShare*needed {
				c.find(SeverityWarning, FindingBloat, "reindex index concurrently "+index,
					"the index %s takes %d kB, and its %d entries need some %d: most of it is empty",
					index, pages*block/1024, int64(entries), int64(needed/1024))
			}
		})
}

// checkHOT looks for indexes that have in them what touches or all writes change.
func (c *checker) checkHOT(ctx context.Context) error {
	var index, column, method string
	return c.each(ctx, hotSQL, []any{c.cfg.Schema, c.cfg.Table}, []any{&index, &column, &method}, func() {
		what := "each write"
		if column == "expires_at" {
			what = "each touch, and each write,"
		}
		c.find(SeverityWarning, FindingHOT, "drop it; for reports use a copy, or an expression that these do not change",
			"the index %q (%s) has the column %q in it: %s writes all indexes, and the table bloats",
			index, method, column, what)
	})
}

func (c *checker) checkForeignKeys(ctx context.Context) error {
	var constraint, table string
	var keepsRows, keepsID bool
	return c.each(ctx, foreignKeysSQL, []any{c.cfg.Schema, c.cfg.Table},
		[]any{&constraint, &table, &keepsRows, &keepsID}, func() {
			var fails, remedy []string
			if keepsRows {
				fails = append(fails, "no prune can delete a session that it refers to")
				remedy = append(remedy, "on delete cascade or set null")
			}
			if keepsID {
				fails = append(fails, "Renew of such a session fails")
				remedy = append(remedy, "on update cascade")
			}
			c.find(SeverityWarning, FindingForeignKey, "make it again, with "+strings.Join(remedy, " and "),
				"the foreign key %q of the table %s refers to sessions: %s", constraint, table, strings.Join(fails, ", and "))
		})
}

const tableSQL = `
select pg_catalog.pg_stat_get_live_tuples(c.oid), pg_catalog.pg_stat_get_dead_tuples(c.oid),
       c.relpages::pg_catalog.int8, c.reltuples::pg_catalog.float8,
       pg_catalog.current_setting('block_size')::pg_catalog.int8,
       c.relrowsecurity and c.relforcerowsecurity and not o.rolsuper and not o.rolbypassrls,
       pg_catalog.has_table_privilege(c.oid, 'select') and pg_catalog.has_schema_privilege(n.oid, 'usage')
  from pg_catalog.pg_class as c
  join pg_catalog.pg_roles as o on o.oid operator(pg_catalog.=) c.relowner
  join pg_catalog.pg_namespace as n on n.oid operator(pg_catalog.=) c.relnamespace
 where n.nspname operator(pg_catalog.=) $1::pg_catalog.text::pg_catalog.name
   and c.relname operator(pg_catalog.=) $2::pg_catalog.text::pg_catalog.name`

// indexesSQL tells of each index how many pages and entries it had when they were last counted, and how wide
// a key is. A column is taken to be wide where the current role may not see how wide it is.
const indexesSQL = `
select pg_catalog.format('%I.%I', n.nspname, x.relname), i.indisvalid,
       m.amname operator(pg_catalog.=) 'btree'::pg_catalog.name,
       x.relpages::pg_catalog.int8, x.reltuples::pg_catalog.float8, (
       select pg_catalog.sum(case when t.typlen operator(pg_catalog.>) 0::pg_catalog.int2
                                  then t.typlen::pg_catalog.int4 else coalesce(s.avg_width, 128) end)
         from pg_catalog.unnest(i.indkey::pg_catalog.int2[]) as k(attnum)
         left join pg_catalog.pg_attribute as a
           on a.attrelid operator(pg_catalog.=) c.oid and a.attnum operator(pg_catalog.=) k.attnum
         left join pg_catalog.pg_type as t on t.oid operator(pg_catalog.=) a.atttypid
         left join pg_catalog.pg_stats as s
           on s.schemaname operator(pg_catalog.=) n.nspname and s.tablename operator(pg_catalog.=) c.relname
          and s.attname operator(pg_catalog.=) a.attname and not s.inherited
       )::pg_catalog.float8,
       pg_catalog.current_setting('block_size')::pg_catalog.int8
  from pg_catalog.pg_index as i
  join pg_catalog.pg_class as x on x.oid operator(pg_catalog.=) i.indexrelid
  join pg_catalog.pg_am as m on m.oid operator(pg_catalog.=) x.relam
  join pg_catalog.pg_class as c on c.oid operator(pg_catalog.=) i.indrelid
  join pg_catalog.pg_namespace as n on n.oid operator(pg_catalog.=) c.relnamespace
 where n.nspname operator(pg_catalog.=) $1::pg_catalog.text::pg_catalog.name
   and c.relname operator(pg_catalog.=) $2::pg_catalog.text::pg_catalog.name
 order by 1`

// An index depends on the columns of its expressions and of its condition too. One that summarizes
// does not end HOT since PostgreSQL 16.
const hotSQL = `
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

// foreignKeysSQL tells of foreign keys that keep a session from being deleted, or its id from being changed.
// A deferred one of the latter finds the tombstone that Renew leaves.
const foreignKeysSQL = `
select r.constraint_name, r.table_name, r.keeps_rows, r.keeps_id
  from (
        select k.conname::pg_catalog.text as constraint_name, pg_catalog.format('%I.%I', o.nspname, f.relname) as table_name,
               k.confdeltype::pg_catalog.text operator(pg_catalog.=) any (array['a', 'r']) as keeps_rows,
               k.confupdtype::pg_catalog.text operator(pg_catalog.=) any (array['a', 'r'])
               and not (k.condeferred and k.confupdtype::pg_catalog.text operator(pg_catalog.=) 'a')
               and a.attnum operator(pg_catalog.=) any (k.confkey) as keeps_id
          from pg_catalog.pg_constraint as k
          join pg_catalog.pg_class as f on f.oid operator(pg_catalog.=) k.conrelid
          join pg_catalog.pg_namespace as o on o.oid operator(pg_catalog.=) f.relnamespace
          join pg_catalog.pg_class as c on c.oid operator(pg_catalog.=) k.confrelid
          join pg_catalog.pg_namespace as n on n.oid operator(pg_catalog.=) c.relnamespace
          join pg_catalog.pg_attribute as a
            on a.attrelid operator(pg_catalog.=) c.oid and a.attname operator(pg_catalog.=) 'id'::pg_catalog.name
         where k.contype::pg_catalog.text operator(pg_catalog.=) 'f'
           and k.conparentid operator(pg_catalog.=) 0::pg_catalog.oid
           and n.nspname operator(pg_catalog.=) $1::pg_catalog.text::pg_catalog.name
           and c.relname operator(pg_catalog.=) $2::pg_catalog.text::pg_catalog.name
       ) as r
 where r.keeps_rows or r.keeps_id
 order by 1, 2`
