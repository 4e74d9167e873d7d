-- <table>_admit(p_subject, p_id, ...) makes room for one more session of a subject: p_id. <table>_set and
-- <table>_renew call it where there is a limit; it is granted to nobody.
--
-- Evicted are the oldest by created_at, or the idlest: by when a touch last moved their deadline, or by
-- their last change if that was later.
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
set enable_seqscan = off
-- As in <table>_lock.
set lock_timeout = 0
as {{ .body }}
#variable_conflict use_variable
declare
    v_deadline timestamptz := clock_timestamp() + make_interval(secs => nullif(p_lock_timeout, 0));
    v_now      timestamptz;
    v_surplus  int8;
    v_batch    text[];
    v_versions int8[];
    v_ended    text[] := array[]::text[];
    v_ends     int8[] := array[]::int8[];
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
    loop
        -- Nothing is added meanwhile; what is renewed while we wait for it is found under its new id.
        v_now := clock_timestamp();
        v_surplus := 1 - p_max + (
            select count(*)
              from {{ .table }} as t
             where t.subject = p_subject
               and t.revoked_at is null
               and t.expires_at > v_now
               and t.id <> p_id);
        if v_surplus <= 0 then
            {{ template "partial/lock_timeout.sql" }}
            if p_delete then
                perform from {{ .table }} as t where t.id = p_id and t.xmax <> '0'::xid for update;
            else
                perform from {{ .table }} as t where t.id = p_id and t.xmax <> '0'::xid for no key update;
            end if;
            exit;
        end if;
        if p_overflow = 'reject' then
            status := 'full';
            return;
        end if;
        v_batch := array(
            select t.id
              from {{ .table }} as t
             where t.subject = p_subject
               and t.revoked_at is null
               and t.expires_at > v_now
               and t.id <> p_id
             order by case
                          when p_overflow = 'evict_oldest' then t.created_at
                          else greatest(t.expires_at - t.idle_timeout, to_timestamp(t.version / 1000000.0)) end,
                      t.version, t.id
             limit v_surplus);
        {{ template "partial/lock_timeout.sql" }}
        v_batch := array(
            select t.id
              from {{ .table }} as t
             where t.id = any (v_batch || p_id)
             order by t.id
               for update);
        v_batch := array(
            select t.id
              from {{ .table }} as t
             where t.id = any (array_remove(v_batch, p_id))
               and t.subject = p_subject
               and t.revoked_at is null);
        v_now := clock_timestamp();
        {{ template "partial/end_batch.sql" (merge (dict "kind" "'evicted'" "actor" "null" "reason" "null") (deepCopy .)) }}
        v_ended := v_ended || v_batch;
        v_ends := v_ends || v_versions;
    end loop;
    if v_ended <> '{}' then
        v_entries := (select jsonb_object_agg(e.id, e.version) from unnest(v_ended, v_ends) as e(id, version));
        perform {{ .schema }}."{{ .prefix }}_publish"('revoked', v_entries);
        ended := v_entries::text;
    end if;
exception
    when lock_not_available then
        status := 'busy';
        ended := null;
end
{{ .body }};
