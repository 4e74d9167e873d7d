-- Remembers what exists, so that grants.sql knows the new: it comes with whatever ALTER DEFAULT
-- PRIVILEGES gave away, while the old keeps what its DBA granted.
select pg_catalog.set_config(
    'pgsession.existing',
    coalesce((
        select pg_catalog.string_agg(o.oid::pg_catalog.text, ',')
          from (
            select p.oid, p.pronamespace as namespace from pg_catalog.pg_proc as p
            union all
            select c.oid, c.relnamespace from pg_catalog.pg_class as c
          ) as o
          join pg_catalog.pg_namespace as n on n.oid operator(pg_catalog.=) o.namespace
         where n.nspname operator(pg_catalog.=) {{ .lit }}{{ .raw_schema }}{{ .lit }}::pg_catalog.name
    ), ''),
    true);
