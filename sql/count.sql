-- <table>_count(p_subject, p_filter) counts a subject's live sessions.
--
-- arguments  p_subject: whose
--            p_filter: a JSON object of promoted columns that must be equal (null = NULL)
-- result     the number
-- locks      none
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_count"(p_subject text, p_filter text default null)
returns int8
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
{{- template "partial/styles.sql" . }}
{{ template "partial/plans.sql" . }}
as {{ .body }}
{{ template "partial/count_body.sql" (merge (dict "where" "t.subject = p_subject") .) -}}
{{ .body }};
