-- <table>_list_all(...) reads one page of all live sessions, in ascending order of id.
--
-- arguments  as <table>_list, less the subject
-- result     as <table>_list
-- locks      none
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_list_all"(
    p_filter    text default null,
    p_after     text default null,
    p_limit     int4 default 1000,
    p_max_bytes int8 default 8388608
)
{{ template "partial/list_result.sql" . -}}
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
{{- template "partial/styles.sql" . }}
{{ template "partial/plans.sql" . }}
as {{ .body }}
{{ template "partial/list_body.sql" (merge (dict "where" "true") .) -}}
{{ .body }};
