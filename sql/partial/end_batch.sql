{{- /* Ends the sessions of v_batch at v_now: their ids and versions are in v_batch and v_versions, null for none.
       $.kind, $.actor and $.reason are what is recorded of each. */ -}}
if p_tombstone < 0 then
        with ended as (
            delete from {{ .table }} as t
             where t.id = any (v_batch)
            returning t.id, greatest(t.version + 1, floor(date_part('epoch', v_now) * 1000000)::int8) as version, t.subject
        ),
        {{ template "end_recorded" . }}
        select array_agg(e.id), array_agg(e.version) into v_batch, v_versions from ended as e;
    else
        with ended as (
            update {{ .table }} as t
               set data        = null,
                   revoked_at  = v_now,
                   prune_after = {{ printf .prune_after "v_now + make_interval(secs => p_tombstone)" }},
                   version     = greatest(t.version + 1, floor(date_part('epoch', v_now) * 1000000)::int8)
             where t.id = any (v_batch)
            returning t.id, t.version, t.subject
        ),
        {{ template "end_recorded" . }}
        select array_agg(e.id), array_agg(e.version) into v_batch, v_versions from ended as e;
    end if;
{{- define "end_recorded" -}}
recorded as (
            insert into {{ .events_table }} (kind, id, subject, actor, reason)
            select {{ .kind }}, e.id, e.subject, {{ .actor }}, {{ .reason }}
              from ended as e
             where {{ template "partial/audited.sql" . }}
        )
{{- end -}}