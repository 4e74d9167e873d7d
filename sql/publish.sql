-- <table>_publish(p_kind, p_ids, p_versions) sends the notifications that sessions have changed: as few
-- as hold them all. For so many that clearing is cheaper for those who hear it, or for an id that is
-- too long for a notification, it sends that all sessions have changed.
--
-- arguments  p_kind: 'changed', 'destroyed', 'revoked' or 'unknown'
--            p_ids, p_versions: the sessions; 'unknown' takes no versions
-- result     none
-- locks      none; at its commit, that of all notifications
-- notifies   what it was given
create or replace function {{ .schema }}."{{ .prefix }}_publish"(p_kind text, p_ids text[], p_versions int8[])
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as {{ .body }}
#variable_conflict use_variable
begin
    if cardinality(p_ids) > 5000 then
        perform pg_notify({{ .channel }}, '{"v":1,"cleared":true}');
        return;
    end if;
    -- A payload has less than 8,000 bytes. Each group is of 6,000, and of one entry more.
    perform pg_notify({{ .channel }}, case
                when octet_length(p.payload) < 8000 then p.payload
                else '{"v":1,"cleared":true}' end)
       from (
            select '{"v":1,"' || p_kind || '":[' || string_agg(s.entry, ',') || ']}' as payload
              from (
                    select e.entry, sum(octet_length(e.entry) + 1) over (order by e.n) as bytes
                      from (
                            select o.n, case
                                       when o.version is null then to_json(o.id)::text
                                       else '[' || to_json(o.id)::text || ',' || o.version::text || ']' end as entry
                              from unnest(p_ids, p_versions) with ordinality as o(id, version, n)
                           ) as e
                   ) as s
             group by s.bytes / 6000
            ) as p;
end
{{ .body }};
