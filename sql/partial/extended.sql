{{- /* When the row t, used at v_now, expires, its timeouts unchanged: never sooner than a touch made it. */ -}}
case
                   when p_touch_interval < 0 then t.expires_at
                   else greatest(t.expires_at, coalesce(least(v_now + t.idle_timeout, t.absolute_expires_at), {{ .never }})) end