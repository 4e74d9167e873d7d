-- <table>_count_all(p_filter) counts all live sessions. It reads the whole table.
--
-- arguments  p_filter: a JSON object of promoted columns that must be equal (null = NULL)
-- result     the number
-- locks      none
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_count_all"(p_filter text default null)
returns int8
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
{{- template "partial/styles.sql" . }}
as {{ .body }}
{{ template "partial/count_body.sql" (merge (dict "where" "true") .) -}}
{{ .body }};
