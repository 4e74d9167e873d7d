{{- /* Keeps the registration of a hook fresh: an hour is exact enough, and saves the writes. Under the prune lock:
       see hook.sql. */ -}}
insert into {{ .cleanup_table }} as c (hooked_at)
    values (v_now)
        on conflict (one) do update
       set hooked_at = excluded.hooked_at
     where (c.hooked_at > v_now - interval '1 hour' and c.hooked_at <= v_now) is not true;
