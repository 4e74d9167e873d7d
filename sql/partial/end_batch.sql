{{- /* Ends the sessions of v_batch at v_now: their ids and versions are in v_batch and v_versions, null for none. */ -}}
if p_tombstone < 0 then
        with ended as (
            delete from {{ .table }} as t
             where t.id = any (v_batch)
            returning t.id, greatest(t.version + 1, floor(date_part('epoch', v_now) * 1000000)::int8) as version
        )
        select array_agg(e.id), array_agg(e.version) into v_batch, v_versions from ended as e;
    else
        with ended as (
            update {{ .table }} as t
               set data        = null,
                   revoked_at  = v_now,
                   prune_after = date_bin('1 minute', v_now + make_interval(secs => p_tombstone), 'epoch') + '1 minute',
                   version     = greatest(t.version + 1, floor(date_part('epoch', v_now) * 1000000)::int8)
             where t.id = any (v_batch)
            returning t.id, t.version
        )
        select array_agg(e.id), array_agg(e.version) into v_batch, v_versions from ended as e;
    end if;