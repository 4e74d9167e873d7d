-- <table>_touch(p_id, ...) extends a session's idle deadline. It changes neither data nor version,
-- creates nothing and revives nothing.
--
-- arguments  p_id: the id
--            p_touch_interval: seconds by which the deadline must move to be worth a write;
--              null: a twentieth of the idle timeout; negative: never extend
--            p_lock: 'wait' (at most p_lock_timeout seconds; 0: no limit), 'skip' or 'fail'
--            p_relaxed: as <table>_set's
-- result     one row, always. status is
--              'touched'    the deadline was moved
--              'unchanged'  a live session whose deadline is near enough, or is the absolute one
--              'missing'    none, or an expired one
--              'revoked'    it was ended
--              'renewed', 'reused'  as <table>_get's. renewed_to: p_id is an old one in its grace; call again
--                           for this one. A call that may hold the old one's lock must not wait for another
--              'busy', 'skipped'  the session was locked
--            server: as <table>_set's
-- locks      the id's advisory lock, then the row; neither for a touch that writes nothing
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_touch"(
    p_id             text,
    p_touch_interval float8 default null,
    p_lock           text   default 'wait',
    p_lock_timeout   float8 default 5,
    p_relaxed        bool   default false,
    out status       text,
    out expires_at   timestamptz,
    out version      int8,
    out renewed_to   text,
    out server       timestamptz
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
{{ template "partial/plans.sql" . }}
as {{ .body }}
#variable_conflict use_variable
declare
    v_now      timestamptz := clock_timestamp();
    v_deadline timestamptz;
    v_idle     interval;
    v_revoked  timestamptz;
    v_ready    bool;
    v_held     bool := false;
    v_marked   bool;
begin
    if p_lock is null or p_lock not in ('wait', 'skip', 'fail') then
        raise exception using errcode = 'invalid_parameter_value', message = 'p_lock is none of wait, skip, fail';
    end if;
    server := case when {{ template "partial/cacheable.sql" }}
               then pg_postmaster_start_time() end;

    -- Without a lock first: most touches have nothing to write.
    select t.revoked_at, t.expires_at, t.version, t.renewed_to, t.idle_timeout,
           least(v_now + t.idle_timeout, t.absolute_expires_at)
      into v_revoked, expires_at, version, renewed_to, v_idle, v_deadline
      from {{ .table }} as t
     where t.id = p_id;

    if expires_at > v_now and v_revoked is null then
        if v_idle is null or p_touch_interval < 0 or v_deadline <= expires_at
           or v_deadline - expires_at < coalesce(make_interval(secs => p_touch_interval), v_idle / 20) then
            status := 'unchanged';
            return;
        end if;

        v_ready := pg_try_advisory_xact_lock(hashtextextended(p_id, {{ .id_seed }}));
        for v_attempt in 1 .. 100 loop
            if not v_ready then
                if p_lock = 'skip' then
                    status := 'skipped';
                    return;
                elsif p_lock = 'fail' or not {{ .schema }}."{{ .prefix }}_lock"(array[p_id], null::text, p_lock_timeout, false, false) then
                    status := 'busy';
                    expires_at := null;
                    version := null;
                    return;
                end if;
            end if;
            v_now := clock_timestamp();
            -- The ordinary touch is this one statement. Of a row that a bulk operation has marked the lock is
            -- tried first: see <table>_set.
            update {{ .table }} as t
               set expires_at = least(v_now + t.idle_timeout, t.absolute_expires_at)
             where t.id = p_id
               and (v_held or t.xmax = '0'::xid)
               and t.revoked_at is null
               and t.expires_at > v_now
               and least(v_now + t.idle_timeout, t.absolute_expires_at) - t.expires_at
                   >= greatest(coalesce(make_interval(secs => p_touch_interval), t.idle_timeout / 20), '1 microsecond')
            returning t.expires_at, t.version
                 into expires_at, version;
            if found then
                status := 'touched';
                if p_relaxed then
                    perform set_config('synchronous_commit', 'off', true);
                end if;
                return;
            end if;

            select t.xmax <> '0'::xid, t.revoked_at, t.expires_at, t.version, t.renewed_to, t.idle_timeout,
                   least(v_now + t.idle_timeout, t.absolute_expires_at)
              into v_marked, v_revoked, expires_at, version, renewed_to, v_idle, v_deadline
              from {{ .table }} as t
             where t.id = p_id;
            if v_marked and not v_held then
                {{ template "partial/probe.sql" . }}
                v_ready := v_held;
                continue;
            end if;
            exit when v_revoked is not null or (expires_at > v_now) is not true;
            -- Of those that waited behind one touch only the first need write.
            if v_deadline - expires_at < greatest(
                   coalesce(make_interval(secs => p_touch_interval), v_idle / 20), '1 microsecond') then
                status := 'unchanged';
                return;
            end if;
        end loop;
        if v_revoked is null and expires_at > v_now then
            {{ template "partial/attempts.sql" }}
        end if;
    end if;

    status := case when v_revoked is null then 'missing' else 'revoked' end;
    if v_revoked is not null and renewed_to is not null then
        select s.id, case when s.status = 'found' then 'renewed' else s.status end
          into renewed_to, status
          from {{ .schema }}."{{ .prefix }}_successor"(p_id, null) as s;
    end if;
    expires_at := null;
    if v_revoked is null then
        version := null;
    end if;
end
{{ .body }};
