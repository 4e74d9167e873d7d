-- <table>_clear(...) ends every live session, a batch a call, in ascending order of id.
--
-- arguments  p_tombstone: seconds that a tombstone stays; negative: delete the rows at once
--            p_after: last_id of the call before; null: the first call
--            p_limit: end at most this many
--            p_except: a JSON array of ids that stay; an old one stands for the session that it was renewed to
--            p_actor, p_reason: by whom and why, for <table>_events
-- result     cleared: how many this call ended; last_id: pass it on as p_after; null: there are no more
-- locks      the first row, for which it waits; then the others, but those that are locked: they come with the next call
-- records    'cleared', once for all sessions of the batch, where <table>_audit says so
-- notifies   that all sessions have changed, if any was ended
create or replace function {{ .schema }}."{{ .prefix }}_clear"(
    p_tombstone float8 default 300,
    p_after     text   default null,
    p_limit     int4   default 10000,
    p_except    text   default null,
    p_actor     text   default null,
    p_reason    text   default null,
    out cleared int8,
    out last_id text
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
{{ template "partial/plans.sql" . }}
as {{ .body }}
#variable_conflict use_variable
declare
    v_batch  text[];
    v_taken  text[];
    v_missed int4;
    v_except text[] := array(select e.value from jsonb_array_elements_text(coalesce(p_except, '[]')::jsonb) as e(value));
    v_now    timestamptz;
begin
    {{ template "partial/tombstone_check.sql" . }}
    if p_limit is null or p_limit < 1 then
        raise exception using errcode = 'invalid_parameter_value', message = 'p_limit must be at least 1';
    end if;
    if array_position(v_except, null) is not null then
        raise exception using errcode = 'invalid_parameter_value', message = 'p_except has a null';
    end if;
    loop
        begin
            {{ template "partial/take_rows.sql" (merge (dict "filtered" false) .) }}
            v_now := clock_timestamp();
            if p_tombstone < 0 then
                delete from {{ .table }} as t where t.id = any (v_taken);
            else
                update {{ .table }} as t
                   set data        = null,
                       revoked_at  = v_now,
                       prune_after = {{ printf .prune_after "v_now + make_interval(secs => p_tombstone)" }},
                       version     = greatest(t.version + 1, floor(date_part('epoch', v_now) * 1000000)::int8)
                 where t.id = any (v_taken);
            end if;
            exit;
        exception
            when sqlstate 'PGS00' then
                null;
        end;
    end loop;
    if v_taken <> '{}' then
        insert into {{ .events_table }} (kind, sessions, actor, reason)
        select 'cleared', cardinality(v_taken)::int8, p_actor, p_reason
         where {{ template "partial/audited.sql" . }};
        perform pg_notify({{ .channel }}, '{"v":1,"cleared":true}');
    end if;
    cleared := cardinality(v_taken)::int8;
    -- The next call waits for the first one that was not taken. The first here was, or has ended meanwhile.
    v_missed := (
        select min(b.n)::int4
          from unnest(v_batch) with ordinality as b(id, n)
         where b.n > 1
           and b.id not in (select e.id from unnest(v_taken) as e(id)));
    last_id := case when v_missed is not null then v_batch[v_missed - 1] when cardinality(v_batch) = p_limit then v_batch[p_limit] end;
end
{{ .body }};
