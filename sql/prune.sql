-- <table>_prune(...) deletes expired sessions and old tombstones, a batch a call.
--
-- prune_after is a lower bound that touches never move, so a row past it may be alive: such a row
-- gets a new one here, at most once in an idle period, and this is what keeps touches HOT.
--
-- Where a batch cannot be deleted, as by a foreign key to one of its sessions, <table>_reap deletes those that can.
--
-- arguments  p_limit: look at this many rows at most
--            p_from: next_from of the call before; null: the first call. Without it each call would
--              wade through the index entries of the rows that the calls before deleted
--            p_wait: whether to wait while another prune runs
--            p_deleted: what the calls before deleted, of the run of which this is one
--            p_job: the run is <table>_prune_all's
-- result     deleted: rows deleted, expired: of them those that were no tombstones;
--            moved: rows given a new prune_after, since they are alive or cannot be deleted;
--            next_from: pass it on as p_from; null: there are no more
--            busy: another prune runs, or a hook is registered (<table>_hook), and expired sessions are for
--            an instance with one to delete: nothing was done
--            lapsed: when the registration of a hook was last renewed, once, where that was too long ago: it is
--            removed, and expired sessions are deleted unseen from now on
-- locks      the store's prune lock; the rows, skipping those that are locked: they come again
-- records    'expired' of each session that was deleted, where <table>_audit says so
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_prune"(
    p_limit       int4        default 200,
    p_from        timestamptz default null,
    p_wait        bool        default true,
    p_deleted     int8        default 0,
    p_job         bool        default false,
    out deleted   int8,
    out moved     int8,
    out next_from timestamptz,
    out busy      bool,
    out expired   int8,
    out lapsed    timestamptz
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
{{ template "partial/plans.sql" . }}
as {{ .body }}
#variable_conflict use_variable
declare
    v_now    timestamptz;
    v_dead   tid[];
    v_alive  tid[];
    v_seen   int8;
    v_last   timestamptz;
begin
    if p_limit is null or p_limit < 1 then
        raise exception using errcode = 'invalid_parameter_value', message = 'p_limit must be at least 1';
    end if;
    deleted := '0';
    moved := '0';
    expired := '0';
    busy := false;
    if p_wait then
        perform pg_advisory_xact_lock({{ .prune_key }});
    else
        busy := not pg_try_advisory_xact_lock({{ .prune_key }});
    end if;
    v_now := clock_timestamp();
    if not busy then
        select c.hooked_at into lapsed from {{ .cleanup_table }} as c where c.one;
        -- What a hook shall see must not be deleted by those who have none. A time to come is of a clock that
        -- was wrong.
        busy := coalesce(lapsed > v_now - interval '1 day' and lapsed < v_now + interval '1 day', false);
    end if;
    if busy then
        lapsed := null;
        if p_job then -- which runs, although others do its work; for one that has the row it does not wait
            perform from {{ .cleanup_table }} as c where c.one for update skip locked;
            if found then
                update {{ .cleanup_table }} as c set job_at = v_now where c.one;
            end if;
        end if;
        return;
    end if;
    if lapsed is not null then
        update {{ .cleanup_table }} as c set hooked_at = null where c.one;
        if p_job then -- nobody else reads its answer
            raise warning using message = format(
                'pgsession: no hook has asked for expired sessions of %s since %s: they are deleted unseen from now on',
                {{ .lit }}{{ .raw_schema }}.{{ .raw_table }}{{ .lit }}, lapsed);
        end if;
    end if;
    {{ template "partial/begin_run.sql" . }}

    -- The lock, and what was seen under it, outlast a batch that fails.
    begin
        -- The inner FOR UPDATE rechecks a row that was touched since the snapshot, and fixes its ctid.
        select array_agg(c.ctid) filter (where c.dead),
               array_agg(c.ctid) filter (where not c.dead),
               count(*),
               count(*) filter (where c.dead and not c.revoked),
               max(c.prune_after)
          into v_dead, v_alive, v_seen, expired, v_last
          from (
            select t.ctid, t.prune_after, t.revoked_at is not null as revoked,
                   (t.revoked_at is not null or t.expires_at <= v_now) as dead
              from {{ .table }} as t
             where t.prune_after >= coalesce(p_from, '-infinity')
               and t.prune_after <= v_now
             order by t.prune_after
             limit p_limit
               for update skip locked
          ) as c;

        if expired > 0 and {{ template "partial/audited.sql" . }} then
            with gone as (
                delete from {{ .table }} as t
                 where t.ctid = any (v_dead)
                returning t.id, t.subject, t.expires_at, t.revoked_at
            ),
            recorded as (
                insert into {{ .events_table }} (kind, id, subject, expired_at)
                select 'expired', g.id, g.subject, g.expires_at
                  from gone as g
                 where g.revoked_at is null
            )
            select count(*) into deleted from gone;
        elsif v_dead is not null then
            delete from {{ .table }} as t where t.ctid = any (v_dead);
            get diagnostics deleted = row_count;
        end if;
        {{ template "partial/all_deleted.sql" (merge (dict "deleted" "deleted" "rows" "v_dead") .) }}
        if v_alive is not null then
            update {{ .table }} as t
               set prune_after = {{ printf .prune_after "t.expires_at" }}
             where t.ctid = any (v_alive);
            get diagnostics moved = row_count;
        end if;
        -- A batch without effect, by a trigger say, would come again for ever.
        next_from := case when v_seen >= p_limit and deleted + moved > 0 then v_last end;
        {{ template "partial/ran.sql" (merge (dict "job" "p_job") .) }}
    exception
        {{ template "partial/one_by_one.sql" (merge (dict
            "unless" "" "which" "s.revoked_at is not null or s.expires_at <= v_now" "expired" true "job" "p_job") .) }}
                moved := v_moved;
            end;
    end;
end
{{ .body }};
