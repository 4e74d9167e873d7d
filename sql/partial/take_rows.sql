{{- /* Locks those of v_batch, which is in ascending order, that nobody else holds, into v_taken, in a block that is
       to be tried again where the first one has gone. For that one alone it waits, and holds nothing then. A
       renewal that is waited for gives its session another id, and so who waits for a row may wait for one that
       is out of order: a deadlock, if it held another. What writes the rows belongs in the block too: what another
       subtransaction has locked would be written by a MultiXact. */ -}}
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