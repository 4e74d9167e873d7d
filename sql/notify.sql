-- <table>_notify(p_entries, p_async) publishes changes of sessions that were committed before without
-- a notification: by <table>_set with p_notify false.
--
-- arguments  p_entries: a JSON object of ids and the versions that they have now, at most 1,000:
--              {"id":1700000000000000,"another":0}. Version 0 is a write in doubt, cut off before it was
--              answered: it may have been committed, or may still be under way. Null instead of an object:
--              too many to name; all sessions are published as changed
--            p_async: whether the transaction may commit with synchronous_commit off. Notifications are
--              not durable anyway; but never inside a transaction that does something else
-- result     the ids of writes in doubt whose lock is held, maybe by them, as a JSON array: they were
--            published, and must be once more, later. Others may be under way too: on the network, or
--            waiting for their subject's lock
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
    v_entries jsonb := p_entries::jsonb;
    v_busy    text[] := array[]::text[];
    v_id      text;
begin
    if p_async then
        perform set_config('synchronous_commit', 'off', true);
    end if;
    -- The ordinary call, in few expressions: some changes, and none in doubt. A payload as <table>_publish
    -- makes it, which is left out for what entering another function costs; it has 6,000 bytes at most.
    if octet_length(p_entries) <= 2000
       and jsonb_typeof(v_entries) = 'object'
       and v_entries <> '{}'
       and not jsonb_path_exists(v_entries, 'strict $.* ? (@.type() != "number" || @ <= 0 || @ > 9223372036854775807 || @.floor() != @)')
    then
        perform pg_notify({{ .channel }}, '{"v":1,"changed":' || v_entries::text || '}');
        return '[]';
    end if;

    if jsonb_typeof(v_entries) <> 'object'
       or v_entries = '{}'
       or jsonb_path_exists(v_entries, 'strict $.* ? (@.type() != "number" || @ < 0 || @ > 9223372036854775807 || @.floor() != @)')
    then
        raise exception using errcode = 'invalid_parameter_value', message = 'p_entries is no object of ids and versions';
    elsif octet_length(p_entries) > 2000 then
        if (select count(*) from jsonb_object_keys(v_entries)) > 1000 then
            raise exception using errcode = 'program_limit_exceeded', message = 'more than 1000 entries in one call';
        end if;
    end if;
    if v_entries is null then
        perform pg_notify({{ .channel }}, '{"v":1,"cleared":true}');
        return '[]';
    elsif jsonb_path_exists(v_entries, '$.* ? (@ == 0)') then
        -- Who has the lock may be the write in doubt itself.
        for v_id in select e.key from jsonb_each(v_entries) as e where e.value = '0' order by e.key collate "C" loop
            if not pg_try_advisory_xact_lock(hashtextextended(v_id, {{ .id_seed }})) then
                v_busy := v_busy || v_id;
            end if;
        end loop;
    end if;
    perform {{ .schema }}."{{ .prefix }}_publish"('changed', v_entries);
    return array_to_json(v_busy)::text;
end
{{ .body }};
