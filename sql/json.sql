-- <table>_json(p_data) decodes JSON for the view; null for what is not JSON that jsonb can hold.
--
-- arguments  p_data: bytes, UTF-8
-- result     jsonb, or null
-- locks      none
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_json"(p_data bytea)
returns jsonb
language plpgsql immutable strict
set search_path = pg_catalog, pg_temp
as {{ .body }}
begin
    return convert_from(p_data, 'UTF8')::jsonb;
exception
    -- One corrupt row, \u0000 or a number out of range must not kill a view over all rows.
    when data_exception or program_limit_exceeded or statement_too_complex or character_not_in_repertoire
        or untranslatable_character then
        return null;
end
{{ .body }};
