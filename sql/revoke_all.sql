-- <table>_revoke_all(p_filter, ...) ends everyone's live sessions whose promoted columns equal some values,
-- a batch a call, in ascending order of id.
--
-- arguments  p_filter: a JSON object of promoted columns that must be equal (null = NULL); it has one at least
--            p_after: the last id of the call before; null: the first call
--            p_except: a JSON array of ids that stay; an old one stands for the session that it was renewed to
--            p_tombstone: seconds that a tombstone stays; negative: delete the rows at once
--            p_limit: end at most this many
--            p_actor, p_reason: by whom and why, for <table>_events
-- result     a row for each session that was ended: its id and the version of its end. After less than p_limit
--            begin again without p_after, until none is ended: what was locked, or was renewed, is among those
-- locks      the first row, for which it waits; then the others, but those that are locked
-- records    'revoked' of each session that was ended, where <table>_audit says so
-- notifies   the ids and versions of the sessions that were ended
create or replace function {{ .schema }}."{{ .prefix }}_revoke_all"(
    p_filter    text,
    p_after     text   default null,
    p_except    text   default null,
    p_tombstone float8 default 300,
    p_limit     int4   default 10000,
    p_actor     text   default null,
    p_reason    text   default null
)
returns table (id text, version int8)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
{{- template "partial/styles.sql" . }}
{{ template "partial/plans.sql" . }}
as {{ .body }}
#variable_conflict use_variable
declare
    v_filter   jsonb := p_filter::jsonb;
{{- if .columns }}
    v_values   jsonb := v_filter;
{{- end }}
    v_except   text[] := array(select e.value from jsonb_array_elements_text(coalesce(p_except, '[]')::jsonb) as e(value));
    v_batch    text[];
    v_taken    text[];
    v_now      timestamptz;
    v_versions int8[];
begin
    {{ template "partial/tombstone_check.sql" . }}
    if (v_filter <> '{}' and p_limit > 0) is not true then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = case when p_limit > 0 then 'no filter: nothing was revoked' else 'p_limit must be at least 1' end;
    end if;
    if array_position(v_except, null) is not null then
        raise exception using errcode = 'invalid_parameter_value', message = 'p_except has a null';
    end if;
    {{ if .columns -}}
    {{ template "partial/columns_check.sql" . }}
    {{- else -}}
    if v_filter <> '{}' then
        raise exception using errcode = 'invalid_parameter_value', message = 'this store has no promoted columns';
    end if;
    {{- end }}

    loop
        begin
            {{ template "partial/take_rows.sql" (merge (dict "filtered" true) .) }}
            v_taken := array(
                select t.id
                  from {{ .table }} as t
                 where t.id = any (v_taken)
                   {{- template "partial/columns_filter.sql" . }});
            if v_taken = '{}' and v_batch <> '{}' then
                raise exception using errcode = 'PGS00'; -- none would say that none is left
            end if;
            v_batch := v_taken;
            v_now := clock_timestamp();
            {{ template "partial/end_batch.sql" (merge (dict "kind" "'revoked'" "actor" "p_actor" "reason" "p_reason") .) }}
            exit;
        exception
            when sqlstate 'PGS00' then
                null;
        end;
    end loop;
    if v_batch is not null then
        perform {{ .schema }}."{{ .prefix }}_publish"('revoked', jsonb_object_agg(e.id, e.version))
           from unnest(v_batch, v_versions) as e(id, version);
    end if;
    return query select e.id, e.version from unnest(v_batch, v_versions) as e(id, version);
end
{{ .body }};
