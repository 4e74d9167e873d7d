-- <table>_admit(p_subject, p_id, ...) makes room for one more session of a subject: p_id. <table>_set and
-- <table>_renew call it where there is a limit; it is granted to nobody.
--
-- Evicted are the oldest by created_at, or the idlest: by when a touch last moved their deadline, or by
-- their last change if that was later. A deadline that the absolute one holds back says less: within the idle
-- timeout of its absolute deadline a session looks idler than it is.
--
-- arguments  p_subject, p_id: whose and which
--            p_max: the limit
--            p_overflow: 'reject', 'evict_oldest' or 'evict_idlest'
--            p_tombstone: seconds that a tombstone of an evicted session stays; negative: delete it at once
--            p_lock_timeout: seconds to wait for the sessions to be evicted; null or 0: no limit
--            p_delete: lock p_id's row as <table>_lock does
-- result     status: null: there is room; 'full': there is none; 'busy'
--            ended: the sessions that were evicted, as a JSON object of ids and versions; null: none
-- errors     25000 under another isolation than read committed: sessions could not be seen, and so not counted
--            40001 the subject was locked shared, for a session that was this subject's, and others have it so
--            09000 a trigger or a policy keeps sessions from being evicted
-- locks      the subject's advisory lock exclusive, which the caller took before p_id's; then the rows of the
--            sessions to be evicted, and of p_id, in ascending order of id: the caller must have none yet. Where
--            none is evicted, p_id's row if somebody may have it
-- records    'evicted', where <table>_audit says so
-- notifies   the ids and versions of the evicted
create or replace function {{ .schema }}."{{ .prefix }}_admit"(
    p_subject      text,
    p_id           text,
    p_max          int4,
    p_overflow     text,
    p_tombstone    float8,
    p_lock_timeout float8,
    p_delete       bool,
    out status     text,
    out ended      text
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
{{ template "partial/plans.sql" . }}
-- As in <table>_lock.
set lock_timeout = 0
as {{ .body }}
#variable_conflict use_variable
declare
    v_deadline timestamptz := clock_timestamp() + make_interval(secs => nullif(p_lock_timeout, 0));
    v_now      timestamptz;
    v_surplus  text[];
    v_batch    text[];
    v_versions int8[];
    v_entries  jsonb;
begin
    {{ template "partial/tombstone_check.sql" . }}
    if p_overflow is null or p_overflow not in ('reject', 'evict_oldest', 'evict_idlest') then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'p_overflow is none of reject, evict_oldest, evict_idlest';
    elsif current_setting('transaction_isolation') <> 'read committed' then
        raise exception using
            errcode = 'invalid_transaction_state',
            message = 'a limit of sessions per subject needs the isolation level read committed';
    elsif not pg_try_advisory_xact_lock(hashtextextended(p_subject, {{ .subject_seed }})) then
        raise exception using
            errcode = 'serialization_failure',
            message = 'could not serialize access: the session was another one before it was locked';
    end if;
    -- Nothing is added meanwhile, but what is there may be renewed or ended while we wait for it. Then there is
    -- another try, which begins without the rows of this one: all are locked in order, or none.
    for v_attempt in 1 .. 100 loop
        begin
            {{ template "admit_surplus" . }}
            {{ template "partial/lock_timeout.sql" }}
            if v_surplus = '{}' then
                if p_delete then
                    perform from {{ .table }} as t where t.id = p_id and t.xmax <> '0'::xid for update;
                else
                    perform from {{ .table }} as t where t.id = p_id and t.xmax <> '0'::xid for no key update;
                end if;
                return;
            elsif p_overflow = 'reject' then
                status := 'full';
                return;
            end if;
            v_batch := v_surplus;
            perform from {{ .table }} as t where t.id = any (v_batch || p_id) order by t.id for update;
            {{ template "admit_surplus" . }}
            if v_batch = v_surplus then
                {{ template "partial/end_batch.sql" (merge (dict "kind" "'evicted'" "actor" "null" "reason" "null") .) }}
                if cardinality(v_batch) = cardinality(v_surplus) then
                    v_entries := (select jsonb_object_agg(e.id, e.version) from unnest(v_batch, v_versions) as e(id, version));
                    perform {{ .schema }}."{{ .prefix }}_publish"('revoked', v_entries);
                    ended := v_entries::text;
                    return;
                end if;
            end if;
            raise exception using errcode = 'serialization_failure';
        exception
            when serialization_failure then
                null;
            when lock_not_available then
                status := 'busy';
                return;
        end;
    end loop;
    {{ template "partial/attempts.sql" }}
end
{{ .body }};
{{- define "admit_surplus" -}}
v_now := clock_timestamp();
            v_surplus := array(
                select t.id
                  from {{ .table }} as t
                 where t.subject = p_subject
                   and t.revoked_at is null
                   and t.expires_at > v_now
                   and t.id <> p_id
                 order by case
                              when p_overflow = 'evict_oldest' then t.created_at
                              else greatest(t.expires_at - t.idle_timeout, to_timestamp(t.version / 1000000.0)) end desc,
                          t.version desc, t.id desc
                offset p_max - 1);
{{- end -}}
