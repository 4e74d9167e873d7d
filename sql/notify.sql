-- <table>_notify(p_entries, p_async) publishes changes of sessions that were committed before without
-- a notification: by <table>_set with p_notify false.
--
-- arguments  p_entries: a JSON array of pairs of an id and the version that it has now, at most 1,000:
--              [["id",1700000000000000],["another",null]]. A null version is a write in doubt, cut off before it
--              was answered: it may have been committed, or may still be under way. Null instead of an
--              array: too many to name; all sessions are published as changed
--            p_async: whether the transaction may commit with synchronous_commit off. Notifications are
--              not durable anyway; but never inside a transaction that does something else
-- result     the ids of writes in doubt that may still be under way, as a JSON array: they were
--            published, and must be once more, later
-- locks      the advisory locks of the ids in doubt that are free, in ascending order: nothing is
--            waited for; at its commit, that of all notifications
-- notifies   the changes
create or replace function {{ .schema }}."{{ .prefix }}_notify"(p_entries text, p_async bool default false)
returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as {{ .body }}
#variable_conflict use_variable
declare
    v_ids      text[];
    v_versions int8[];
    v_doubtful text[];
    v_busy     text[] := array[]::text[];
    v_id       text;
    v_bad      bool;
begin
    select array_agg(e.entry ->> 0) filter (where e.entry ->> 1 is not null),
           array_agg((e.entry ->> 1)::int8) filter (where e.entry ->> 1 is not null),
           array_agg(distinct (e.entry ->> 0) collate "C" order by (e.entry ->> 0) collate "C")
               filter (where e.entry ->> 1 is null),
           bool_or(jsonb_typeof(e.entry) <> 'array')
      into v_ids, v_versions, v_doubtful, v_bad
      from jsonb_array_elements(p_entries::jsonb) as e(entry);
    if v_bad or array_position(v_ids, null) is not null or array_position(v_doubtful, null) is not null then
        raise exception using errcode = 'invalid_parameter_value', message = 'p_entries has what is no pair of an id and a version';
    elsif cardinality(v_ids) > 1000 or cardinality(v_doubtful) > 1000 then
        raise exception using errcode = 'program_limit_exceeded', message = 'more than 1000 entries in one call';
    end if;
    if p_async then
        perform set_config('synchronous_commit', 'off', true);
    end if;
    if p_entries is null then
        perform pg_notify({{ .channel }}, '{"v":1,"cleared":true}');
    end if;
    if v_ids is not null then
        perform {{ .schema }}."{{ .prefix }}_publish"('changed', v_ids, v_versions);
    end if;
    if v_doubtful is not null then
        -- Who has the lock may be the write in doubt itself.
        foreach v_id in array v_doubtful loop
            if not pg_try_advisory_xact_lock(hashtextextended(v_id, {{ .id_seed }})) then
                v_busy := v_busy || v_id;
            end if;
        end loop;
        perform {{ .schema }}."{{ .prefix }}_publish"('unknown', v_doubtful, null);
    end if;
    return array_to_json(v_busy)::text;
end
{{ .body }};
