-- <table>_claim(...) is <table>_prune for those who want to see the expired sessions before they are
-- deleted, a batch a call: it deletes old tombstones, moves the living, and returns the expired, which
-- are then the caller's for p_lease seconds, and to be deleted by <table>_confirm. Those that are not
-- come again after the lease.
--
-- The lease is prune_after: a claimed row is one that must not go yet. Nothing else changes in it, so
-- what happens to the session meanwhile happens as if it were not claimed.
--
-- arguments  p_limit, p_from, p_wait, p_deleted: as <table>_prune's
--            p_lease: seconds
--            p_max_bytes: claim no more data than that, but one session at least
-- result     a row for each claimed session, and at last one whose id is null, with
--              deleted: tombstones deleted; next_from, busy: as <table>_prune's
-- locks      the store's prune lock; the rows, skipping those that are locked: they come again
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_claim"(
    p_limit     int4        default 1000,
    p_from      timestamptz default null,
    p_wait      bool        default true,
    p_deleted   int8        default 0,
    p_lease     float8      default 300,
    p_max_bytes int8        default 8388608
)
returns table (
    id                  text,
    subject             text,
    data                bytea,
    codec               int2,
    created_at          timestamptz,
    expires_at          timestamptz,
    absolute_expires_at timestamptz,
    idle_timeout        float8,
    version             int8,
    columns             text,
    deleted             int8,
    next_from           timestamptz,
    busy                bool
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
{{- template "partial/styles.sql" . }}
{{ template "partial/plans.sql" . }}
as {{ .body }}
#variable_conflict use_variable
declare
    v_now     timestamptz;
    v_ended   tid[];
    v_alive   tid[];
    v_expired tid[];
    v_seen    int8;
    v_whole   bool;
    v_done    int8;
    v_last    timestamptz;
begin
    if p_limit is null or p_limit < 1 then
        raise exception using errcode = 'invalid_parameter_value', message = 'p_limit must be at least 1';
    elsif (p_lease > 0 and p_lease <= 86400) is not true then
        raise exception using errcode = 'invalid_parameter_value', message = 'p_lease must be from 0 to 86400 seconds';
    end if;
    deleted := '0';
    v_done := deleted;
    busy := false;
    if p_wait then
        perform pg_advisory_xact_lock({{ .prune_key }});
    elsif not pg_try_advisory_xact_lock({{ .prune_key }}) then
        busy := true;
        return next;
        return;
    end if;

    v_now := clock_timestamp();
    {{ template "partial/hooked.sql" . }}
    {{ template "partial/begin_run.sql" . }}

    -- The lock, and what was seen under it, outlast a batch that fails.
    begin
        -- The inner FOR UPDATE rechecks a row that was touched since the snapshot, and fixes its ctid.
        select array_agg(s.ctid) filter (where s.revoked),
               array_agg(s.ctid) filter (where not s.revoked and not s.expired),
               array_agg(s.ctid) filter (where not s.revoked and s.expired),
               count(*),
               max(s.n) = max(s.total),
               max(s.prune_after)
          into v_ended, v_alive, v_expired, v_seen, v_whole, v_last
          from (
            select c.ctid, c.prune_after, c.revoked, c.expired,
                   row_number() over w as n,
                   count(*) over () as total,
                   sum(case when c.expired and not c.revoked then c.bytes else 0 end) over w as bytes
              from (
                select t.ctid, t.prune_after, t.revoked_at is not null as revoked, t.expires_at <= v_now as expired,
                       octet_length(t.data) as bytes
                  from {{ .table }} as t
                 where t.prune_after >= coalesce(p_from, '-infinity')
                   and t.prune_after <= v_now
                 order by t.prune_after
                 limit p_limit
                   for update skip locked
              ) as c
            window w as (order by c.prune_after, c.ctid)
          ) as s
         where s.bytes <= p_max_bytes
            or s.n = 1;

        if v_ended is not null then
            delete from {{ .table }} as t where t.ctid = any (v_ended);
            get diagnostics deleted = row_count;
            {{ template "partial/all_deleted.sql" (merge (dict "deleted" "deleted" "rows" "v_ended") .) }}
            v_ended := null; -- for the handler
        end if;
        if v_alive is not null then
            update {{ .table }} as t
               set prune_after = {{ printf .prune_after "t.expires_at" }}
             where t.ctid = any (v_alive);
            get diagnostics v_done = row_count;
        end if;
        v_done := v_done + deleted;
        if v_expired is not null then
            return query
            update {{ .table }} as t
               set prune_after = v_now + make_interval(secs => p_lease)
             where t.ctid = any (v_expired)
            returning t.id, t.subject, t.data, t.codec, t.created_at, t.expires_at, t.absolute_expires_at,
                      date_part('epoch', t.idle_timeout), t.version, {{ template "partial/columns_json.sql" . }},
                      null::int8, null::timestamptz, null::bool;
            get diagnostics v_seen = row_count;
            v_done := v_done + v_seen;
            v_seen := p_limit::int8; -- whether it was the last is seen when these are gone
        end if;
        -- A batch without effect, by a trigger say, would come again for ever.
        next_from := case when (v_seen >= p_limit or not v_whole) and v_done > 0 then v_last end;
        {{ template "partial/ran.sql" (merge (dict "job" "false") .) }}
        return next;
    exception -- of tombstones that cannot be deleted: they go by <table>_reap, and the sessions come with the next call
        {{ template "partial/one_by_one.sql" (merge (dict
            "unless" "v_ended is null" "which" "s.revoked_at is not null" "job" "false") .) }}
                return next;
            end;
    end;
end
{{ .body }};
