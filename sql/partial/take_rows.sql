{{- /* The next p_limit live sessions that are not excepted, into v_batch, and those of them that nobody else has locked,
       locked, into v_taken; in a block that is to be tried again where the first one has gone. For that one alone it
       waits, and holds nothing then. A renewal that is waited for gives its session another id, and so who waits for
       a row may wait for one that is out of order: a deadlock, if it held another. What writes the rows belongs in
       the block too: what another subtransaction has locked would be written by a MultiXact. $.filtered: only those
       whose columns are v_values. */ -}}
-- In one statement, and so one snapshot, in which a session has one id.
            v_batch := array(
                select t.id
                  from {{ .table }} as t
                 where (p_after is null or t.id > p_after)
                   and t.revoked_at is null
                   and t.expires_at > clock_timestamp()
                   and t.id <> all ({{ template "partial/follow.sql" (merge (dict "ids" "v_except") .) }})
                   {{- if .filtered }}{{ template "partial/columns_filter.sql" . }}{{ end }}
                 order by t.id
                 limit p_limit);
            perform from {{ .table }} as t where t.id = v_batch[1] for update;
            if not found and v_batch <> '{}' then
                raise exception using errcode = 'PGS00';
            end if;
            v_taken := array(
                select t.id
                  from {{ .table }} as t
                 where t.id = any (v_batch)
                   and t.revoked_at is null
                   and t.expires_at > clock_timestamp()
                 order by t.id
                   for update skip locked);