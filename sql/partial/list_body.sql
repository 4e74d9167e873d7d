{{- /* The body of list and list_all: one page. $.where is the condition that differs. */ -}}
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
    return query
    select r.id, r.subject, r.data, r.codec, r.created_at, r.expires_at, r.absolute_expires_at,
           r.idle_timeout, r.version, r.columns
      from (
        select t.id, t.subject, t.data, t.codec, t.created_at, t.expires_at, t.absolute_expires_at,
               date_part('epoch', t.idle_timeout) as idle_timeout, t.version,
               {{ template "partial/columns_json.sql" . }} as columns,
               -- The length of a toasted value is in its pointer: nothing is fetched for this.
               sum(octet_length(t.data)) over w as bytes,
               row_number() over w as n
          from {{ .table }} as t
         where {{ .where }}
           and t.revoked_at is null
           and t.expires_at > clock_timestamp()
           and (p_after is null or t.id > p_after)
           {{- template "partial/columns_filter.sql" . }}
        window w as (order by t.id)
         order by t.id
         limit p_limit
      ) as r
     where r.bytes <= p_max_bytes
        or r.n = 1
     order by r.id;
end
