-- <table>_json(p_data) decodes JSON for the view; null for what is not JSON that jsonb can hold, or has
-- what looks like a number from 1e1000 on.
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
declare
    v_text text;
begin
    v_text := convert_from(p_data, 'UTF8');
    -- As text a number has all the digits that its exponent says: some thousands of such are a gigabyte.
    return case when v_text collate "C" !~ '(^|[[:space:]:,[])-?[0-9.]+[eE][+-]?0*[1-9][0-9]{3}' then v_text::jsonb end;
exception
    -- One corrupt row, \u0000 or a number out of range must not kill a view over all rows.
    when {{ template "partial/not_json.sql" }} then
        return null;
end
{{ .body }};
