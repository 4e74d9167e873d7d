-- <table>_prune_events(...) deletes what was recorded longer ago than it shall stay, a batch a call.
--
-- arguments  p_limit: delete at most this many
--            p_from: as <table>_prune's
-- result     deleted: how many; next_from: pass it on as p_from; null: there are no more
-- locks      the rows, skipping those that are locked: they come again
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_prune_events"(
    p_limit       int4        default 10000,
    p_from        timestamptz default null,
    out deleted   int8,
    out next_from timestamptz
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
{{ template "partial/plans.sql" . }}
as {{ .body }}
#variable_conflict use_variable
declare
    v_before timestamptz;
    v_old    tid[];
    v_seen   int8;
    v_last   timestamptz;
begin
    if p_limit is null or p_limit < 1 then
        raise exception using errcode = 'invalid_parameter_value', message = 'p_limit must be at least 1';
    end if;
    deleted := '0';
    select clock_timestamp() - a.retention into v_before from {{ .audit_table }} as a where a.one;
    if v_before is null then
        return;
    end if;
    select array_agg(o.ctid), count(*), max(o.at)
      into v_old, v_seen, v_last
      from (
        select e.ctid, e.at
          from {{ .events_table }} as e
         where e.at >= coalesce(p_from, '-infinity')
           and e.at < v_before
         order by e.at
         limit p_limit
           for update skip locked
      ) as o;
    if v_old is not null then
        delete from {{ .events_table }} as e where e.ctid = any (v_old);
        get diagnostics deleted = row_count;
    end if;
    -- A batch without effect, by a trigger say, would come again for ever.
    next_from := case when v_seen >= p_limit and deleted > 0 then v_last end;
end
{{ .body }};
