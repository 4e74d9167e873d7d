-- <table>_audit_status() tells whether what happens to sessions is recorded. It shows no event.
--
-- result     one row:
--              audited: whether it is
--              retention: seconds that an event stays; negative: for ever; null: it was never recorded
-- locks      none
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_audit_status"(
    out audited   bool,
    out retention float8
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
{{ template "partial/plans.sql" . }}
as {{ .body }}
#variable_conflict use_variable
begin
    select a.audited, coalesce(date_part('epoch', a.retention), -1)
      into audited, retention
      from {{ .audit_table }} as a
     where a.one;
    audited := coalesce(audited, false);
end
{{ .body }};
