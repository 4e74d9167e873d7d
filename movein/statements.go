package movein

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
)

// statements are the texts for one source and one store. Every name is qualified but the old table's,
// where the caller did not.
type statements struct {
	marks       string // the table of marks, quoted
	marksExist  string
	createMarks string
	count       string
	page        string
	one         string
	insert      string
	mark        string
	remove      string
	removeAll   string
}

func newStatements(cfg pgsession.Config, s Source) statements {
	marks := pgx.Identifier{cfg.Schema, cfg.Table + "_moved"}.Sanitize()
	set := pgx.Identifier{cfg.Schema, cfg.Table + "_set"}.Sanitize()
	live := fmt.Sprintf("coalesce(%s operator(pg_catalog.>) pg_catalog.clock_timestamp(), true)", s.expiry)
	usable := fmt.Sprintf("%s and %s is not null and %s is not null", live, s.key, s.data)
	columns := fmt.Sprintf(`o.ctid::pg_catalog.text, o.xmin::pg_catalog.text, (%s)::pg_catalog.text, %s, %s,
       pg_catalog.date_part('epoch', %s operator(pg_catalog.-) pg_catalog.clock_timestamp())`,
		s.cursor, s.key, s.data, s.expiry)
	matched := "t.key"
	if s.hashed {
		matched = "t.id"
	}
	// Names of the caller's, in a body that no name can end.
	body := "$b" + hex.EncodeToString(digest(cfg.Schema + "." + cfg.Table))[:12] + "$"

	var create strings.Builder
	create.WriteString("do " + body + "\nbegin\n")
	if cfg.Owner != "" {
		fmt.Fprintf(&create, "    set local role %s;\n", pgx.Identifier{cfg.Owner}.Sanitize())
	}
	fmt.Fprintf(&create, `    create table if not exists %s (
        id       pg_catalog.text collate pg_catalog."C" primary key,
        moved_at pg_catalog.timestamptz not null default pg_catalog.clock_timestamp()
    );
`, marks)
	if cfg.AppRole != "" {
		fmt.Fprintf(&create, "    grant select, insert on table %s to %s;\n", marks, pgx.Identifier{cfg.AppRole}.Sanitize())
	}
	if cfg.Owner != "" {
		create.WriteString("    set local role none;\n")
	}
	create.WriteString("end\n" + body)

	return statements{
		marks:       marks,
		marksExist:  `select pg_catalog.to_regclass($1::pg_catalog.text) is not null`,
		createMarks: create.String(),
		count:       fmt.Sprintf(`select pg_catalog.count(*) from %s as o where %s`, s.table, usable),
		page: fmt.Sprintf(`
select %s
  from %s as o
 where %s operator(pg_catalog.>) $1::pg_catalog.text::pg_catalog.%s
   and %s
 order by %s
 limit $2::pg_catalog.int8`, columns, s.table, s.cursor, s.order, usable, s.cursor),
		one: fmt.Sprintf(`
select %s
  from %s as o
 where %s
   and %s
 limit 1`, columns, s.table, fmt.Sprintf(s.match, "$1::pg_catalog.text"), usable),

		// The rows must be those that were read: in this version, which is locked until the end. One that
		// is being written just now is passed over, so that this waits for nobody but another importer.
		// Marks are made in one order, so that importers do not wait for each other in a circle.
		insert: fmt.Sprintf(`
with b as materialized (
    select r.*
      from pg_catalog.jsonb_to_recordset($1::pg_catalog.text::pg_catalog.jsonb) as r(
               id pg_catalog.text, place pg_catalog.text, xid pg_catalog.text, data pg_catalog.text,
               codec pg_catalog.int4, subject pg_catalog.text, columns pg_catalog.text,
               idle pg_catalog.float8, absolute pg_catalog.float8)
), o as materialized (
    select b.id
      from b
      join %s as o on o.ctid operator(pg_catalog.=) b.place::pg_catalog.tid
     where o.xmin::pg_catalog.text operator(pg_catalog.=) b.xid
       and %s
       for share of o skip locked
), c as (
    insert into %s as m (id)
    select o.id from o order by o.id collate pg_catalog."C"
    on conflict (id) do nothing
    returning m.id
)
select b.id, o.id is not null, c.id is not null,
       case when c.id is not null then
           coalesce((%s(b.id, pg_catalog.decode(b.data, 'base64'), b.codec, b.subject, b.columns, b.idle,
               b.absolute, p_version => -1, p_lock_timeout => 0)).status, '')
       else '' end
  from b
  left join o on o.id operator(pg_catalog.=) b.id
  left join c on c.id operator(pg_catalog.=) b.id
 order by b.id collate pg_catalog."C"`, s.table, live, marks, set),

		mark: fmt.Sprintf(`
insert into %s as m (id)
select t.id
  from pg_catalog.jsonb_to_recordset($1::pg_catalog.text::pg_catalog.jsonb) as t(id pg_catalog.text)
 order by t.id collate pg_catalog."C"
on conflict (id) do nothing
returning m.id`, marks),
		remove: fmt.Sprintf(`
delete from %s as o
 using pg_catalog.jsonb_to_recordset($1::pg_catalog.text::pg_catalog.jsonb)
           as t(id pg_catalog.text, key pg_catalog.text)
 where %s
returning t.id, %s`, s.table, fmt.Sprintf(s.match, matched), live),
		removeAll: `delete from ` + s.table,
	}
}

func digest(s string) []byte {
	sum := sha256.Sum256([]byte(s))
	return sum[:]
}
