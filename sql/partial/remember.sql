-- Remembers what exists, so that grants.sql knows the new: it comes with whatever ALTER DEFAULT
-- PRIVILEGES gave away, while the old keeps what its DBA granted.
select pg_catalog.set_config(
    'pgsession.existing',
    coalesce((
        select pg_catalog.string_agg(o.oid::pg_catalog.text, ',')
          from pg_catalog.pg_namespace as n
         cross join lateral (
            select p.oid
              from pg_catalog.pg_proc as p
             where p.pronamespace operator(pg_catalog.=) n.oid
               and p.proname operator(pg_catalog.=) any ({{ template "partial/function_names.sql" . }})
            union all
            select c.oid
              from pg_catalog.pg_class as c
             where c.relnamespace operator(pg_catalog.=) n.oid
               and c.relname operator(pg_catalog.=) {{ .lit }}{{ .raw_table }}_view{{ .lit }}::pg_catalog.name
          ) as o
         where n.nspname operator(pg_catalog.=) {{ .lit }}{{ .raw_schema }}{{ .lit }}::pg_catalog.name
    ), ''),
    true);
