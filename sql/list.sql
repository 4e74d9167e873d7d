-- <table>_list(p_subject, ...) reads one page of a subject's live sessions, in ascending order of id.
--
-- arguments  p_subject: whose
--            p_filter: a JSON object of promoted columns that must be equal (null = NULL)
--            p_after: the last id of the page before; null: the first page
--            p_limit, p_max_bytes: the page ends at whichever comes first, but holds one row at least
-- result     a row for each session; none: there are no more
-- locks      none
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_list"(
    p_subject   text,
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
{{ template "partial/list_body.sql" (merge (dict "where" "t.subject = p_subject") .) -}}
{{ .body }};
