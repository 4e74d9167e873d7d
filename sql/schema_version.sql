-- <table>_schema_version() tells what is installed. Setup reads it to know what is missing.
--
-- result     migration: the last migration applied; functions: the version of the functions (the
--            number here is Go's functionsVersion); columns: the promoted columns they know, as JSON
-- locks      none
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_schema_version"(
    out migration int4,
    out functions int4,
    out columns   text
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as {{ .body }}
#variable_conflict use_variable
begin
    functions := 1;
    columns := {{ .columns_json }};
    -- Where tern keeps another version table, these functions need at least migration 4.
    if to_regclass({{ .lit }}{{ .version_table }}{{ .lit }}) is not null then
        select v.version into migration from {{ .version_table }} as v;
    end if;
    migration := coalesce(migration, 4);
end
{{ .body }};
