-- <table>_revoke(...) ends the live sessions that are named by id, by subject, or by both: an id with a
-- subject ends that session only if it is the subject's. Ids are those that a list has shown: an old one
-- stands for the session that it was renewed to, whoever's it is, for as long as there is its tombstone:
-- a page on which users end sessions gives the subject too, or lists anew.
--
-- arguments  p_ids: a JSON array of ids; null: all of the subject's
--            p_subject: null: whoever's, and then p_ids must be given
--            p_except: a JSON array of ids that stay
--            p_tombstone: seconds that a tombstone stays; negative: delete the rows at once
--            p_limit: end at most this many; call again unless it ended less. null: no limit
--            p_actor, p_reason: by whom and why, for <table>_events
--            p_filter: a JSON object of promoted columns: only sessions where these are equal (null = NULL)
-- result     a row for each session that was ended: its id and the version of its end
-- locks      the subject's advisory lock exclusive, so that no session of the subject can appear
--            meanwhile; then the rows, of several ids all or none, of a subject in ascending order of id. No
--            advisory lock for an id: a bulk of them would exhaust the lock table
-- records    'revoked' of each session that was ended, where <table>_audit says so
-- notifies   where p_ids and p_filter are null, and a session was ended, the subject's hash, with the ids of p_except if
--            they fit in; otherwise the ids and versions of the sessions that were ended
create or replace function {{ .schema }}."{{ .prefix }}_revoke"(
    p_ids       text   default null,
    p_subject   text   default null,
    p_except    text   default null,
    p_tombstone float8 default 300,
    p_limit     int4   default null,
    p_actor     text   default null,
    p_reason    text   default null,
    p_filter    text   default null
)
returns table (id text, version int8)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
{{- template "partial/styles.sql" . }}
{{ template "partial/plans.sql" . }}
as {{ .body }}
#variable_conflict use_variable
declare
    v_filter   jsonb := coalesce(p_filter, '{}')::jsonb;
{{- if .columns }}
    v_values   jsonb := v_filter;
{{- end }}
    v_ids      text[];
    v_id       text;
    v_taking   bool := false;
    v_except   text[] := array(select e.value from jsonb_array_elements_text(coalesce(p_except, '[]')::jsonb) as e(value));
    v_batch    text[];
    v_now      timestamptz;
    v_versions int8[];
    v_payload  text;
begin
    {{ template "partial/tombstone_check.sql" . }}
    if p_ids is null and coalesce(p_subject, '') = '' then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'neither ids nor a subject: nothing was revoked';
    end if;
    {{ if .columns -}}
    {{ template "partial/columns_check.sql" . }}
    {{- else -}}
    if v_filter <> '{}' then
        raise exception using errcode = 'invalid_parameter_value', message = 'this store has no promoted columns';
    end if;
    {{- end }}
    v_ids := array(select e.value from jsonb_array_elements_text(p_ids::jsonb) as e(value));
    if array_position(v_ids, null) is not null or array_position(v_except, null) is not null then
        raise exception using errcode = 'invalid_parameter_value', message = 'p_ids or p_except has a null';
    end if;
    if p_subject is not null
       and not pg_try_advisory_xact_lock(hashtextextended(p_subject, {{ .subject_seed }})) then
        perform pg_advisory_xact_lock(hashtextextended(p_subject, {{ .subject_seed }}));
        {{ template "partial/snapshot_check.sql" . }}
    end if;

    -- Statements of their own, after the lock: they see what was committed while we waited. What is to stay is
    -- followed in the statement itself: in one snapshot a session has one id.
    loop
        -- Only the last ones: the way to them may be long, and must not be gone again for each renewal.
        v_ids := {{ template "partial/follow.sql" (merge (dict "ids" "v_ids" "ends" true) .) }};
        begin
            if p_ids is null then
                -- This waits with some of them locked: but only for those who hold no other's row, or no row of
                -- this subject.
                v_batch := array(
                    select t.id
                      from {{ .table }} as t
                     where t.subject = p_subject
                       {{- template "revocable" . }}
                     order by t.id
                     limit p_limit
                       for update);
            else
                if cardinality(v_ids) > 1 then
                    v_taking := true;
                    foreach v_id in array v_ids loop
                        perform from {{ .table }} as t where t.id = v_id for update nowait;
                    end loop;
                    v_taking := false;
                end if;
                v_batch := array(
                    select t.id
                      from {{ .table }} as t
                     where t.id = any (v_ids)
                       and (p_subject is null or t.subject = p_subject)
                       {{- template "revocable" . }}
                     order by t.id
                     limit p_limit
                       for update);
                -- For a renewal that was under way we have waited: what was named has another id now.
                if exists (
                    select
                      from {{ .table }} as t
                     where t.id = any (v_ids)
                       and t.renewed_to <> all (v_ids))
                then
                    raise exception using errcode = 'PGS00';
                end if;
            end if;
            v_now := clock_timestamp();
            {{ template "partial/end_batch.sql" (merge (dict "kind" "'revoked'" "actor" "p_actor" "reason" "p_reason") .) }}
            exit;
        exception
            when sqlstate 'PGS00' then
                null;
            when lock_not_available then
                if not v_taking then
                    raise; -- a lock_timeout's, or a trigger's
                end if;
                v_taking := false;
                {{ template "partial/wait_alone.sql" (merge (dict "lock" "update") .) }}
        end;
    end loop;
    if v_batch is null then
        return;
    elsif p_ids is null and v_filter = '{}' then
        -- One for all of them. Whom it is about only those can tell who know the subject, or guess it.
        v_except := {{ template "partial/follow.sql" (merge (dict "ids" "v_except") .) }};
        v_payload := '{"v":1,"subject":"' || left(encode(sha256(convert_to(p_subject, 'UTF8')), 'hex'), 16) || '"';
        perform pg_notify({{ .channel }}, v_payload || case
                    when v_except <> '{}' and octet_length(array_to_json(v_except)::text) < 7900
                        then ',"except":' || array_to_json(v_except)::text || '}'
                    else '}' end);
    else
        perform {{ .schema }}."{{ .prefix }}_publish"('revoked', jsonb_object_agg(e.id, e.version))
           from unnest(v_batch, v_versions) as e(id, version);
    end if;
    return query select e.id, e.version from unnest(v_batch, v_versions) as e(id, version);
end
{{ .body }};
{{- define "revocable" }}
                       and t.revoked_at is null
                       and t.expires_at > clock_timestamp()
                       and t.id <> all ({{ template "partial/follow.sql" (merge (dict "ids" "v_except") .) }})
                       {{- template "partial/columns_filter.sql" . }}
{{- end -}}
