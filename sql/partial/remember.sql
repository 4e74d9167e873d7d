-- Remembers which functions exist, so that grants.sql knows the new ones: they come with whatever
-- ALTER DEFAULT PRIVILEGES gave away, while an old one keeps what its DBA granted.
select pg_catalog.set_config(
    'pgsession.existing_functions',
    coalesce((
        select pg_catalog.string_agg(p.oid::pg_catalog.text, ',')
          from pg_catalog.pg_proc as p
          join pg_catalog.pg_namespace as n on n.oid operator(pg_catalog.=) p.pronamespace
         where n.nspname operator(pg_catalog.=) {{ .lit }}{{ .raw_schema }}{{ .lit }}::pg_catalog.name
    ), ''),
    true);
