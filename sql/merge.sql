-- <table>_merge(p_target, p_patch) is RFC 7396's MergePatch: https://www.rfc-editor.org/rfc/rfc7396#section-2
--
-- arguments  p_target: a JSON value; null: there is none
--            p_patch: the merge patch. How deep it may be nested is limited by the server's stack
-- result     the patched value
-- locks      none
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_merge"(p_target jsonb, p_patch jsonb)
returns jsonb
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as {{ .body }}
#variable_conflict use_variable
begin
    if jsonb_typeof(p_patch) <> 'object' then
        return p_patch;
    end if;
    return (
        select coalesce(
                   jsonb_object_agg(
                       coalesce(p.key, t.key),
                       case
                           when p.key is null then t.value
                           when jsonb_typeof(p.value) = 'object' then {{ .schema }}."{{ .prefix }}_merge"(t.value, p.value)
                           else p.value end)
                       filter (where p.key is null or p.value <> 'null'),
                   '{}')
          from jsonb_each(case when jsonb_typeof(p_target) = 'object' then p_target else '{}' end) as t
          full join jsonb_each(p_patch) as p on p.key = t.key);
end
{{ .body }};
