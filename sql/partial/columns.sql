-- Adds the promoted columns that the table lacks. Columns are never removed and never retyped.
{{ range .columns -}}
do {{ $.body }}
begin
    -- ADD COLUMN IF NOT EXISTS would take its ACCESS EXCLUSIVE lock where there is nothing to add.
    if not exists (
        select
          from pg_catalog.pg_attribute as a
         where a.attrelid operator(pg_catalog.=) {{ $.lit }}{{ $.table }}{{ $.lit }}::pg_catalog.regclass
           and a.attname operator(pg_catalog.=) {{ .key }}::pg_catalog.name
           and not a.attisdropped
    ) then
        alter table {{ $.table }} add column {{ .ident }} {{ .type }};
    end if;
end
{{ $.body }};
{{ end -}}
