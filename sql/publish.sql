-- <table>_publish(p_kind, p_entries) sends the notifications that sessions have changed: as few as hold
-- them all. For so many that clearing is cheaper for those who hear it, or for an id that is too long
-- for a notification, it sends that all sessions have changed.
--
-- arguments  p_kind: 'changed', 'destroyed', 'revoked' or 'renewed'
--            p_entries: an object of ids and versions; version 0: it may have changed
-- result     none
-- locks      none; at its commit, that of all notifications
-- notifies   what it was given
create or replace function {{ .schema }}."{{ .prefix }}_publish"(p_kind text, p_entries jsonb)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as {{ .body }}
#variable_conflict use_variable
declare
    v_payload text := '{"v":1,"' || p_kind || '":' || p_entries::text || '}';
begin
    -- A payload has less than 8,000 bytes.
    if octet_length(v_payload) < 8000 then
        perform pg_notify({{ .channel }}, v_payload);
        return;
    end if;
    -- Each group is of 6,000, and of one entry more.
    for v_payload in
        select case when sum(g.n) over () > 5000 or octet_length(g.payload) >= 8000 then '{"v":1,"cleared":true}' else g.payload end
          from (
                select '{"v":1,"' || p_kind || '":' || jsonb_object_agg(s.key, s.value)::text || '}' as payload, count(*) as n
                  from (
                        select e.key, e.value,
                               sum(octet_length(to_json(e.key)::text) + octet_length(e.value::text) + 4) over (order by e.key collate "C") as bytes
                          from jsonb_each(p_entries) as e
                       ) as s
                 group by s.bytes / 6000
               ) as g
    loop
        perform pg_notify({{ .channel }}, v_payload);
        exit when v_payload = '{"v":1,"cleared":true}';
    end loop;
end
{{ .body }};
