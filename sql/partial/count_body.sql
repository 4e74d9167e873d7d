{{- /* The body of count and count_all. $.where is the condition that differs. */ -}}
#variable_conflict use_variable
declare
    v_filter jsonb := coalesce(p_filter, '{}')::jsonb;
{{- if .columns }}
    v_values jsonb := v_filter;
{{- end }}
begin
    {{ if .columns -}}
    {{ template "partial/columns_check.sql" . }}
    {{- else -}}
    if v_filter <> '{}' then
        raise exception using errcode = 'invalid_parameter_value', message = 'this store has no promoted columns';
    end if;
    {{- end }}
    return (
        select count(*)
          from {{ .table }} as t
         where {{ .where }}
           and t.revoked_at is null
           and t.expires_at > clock_timestamp()
           {{- template "partial/columns_filter.sql" . }}
    );
end
