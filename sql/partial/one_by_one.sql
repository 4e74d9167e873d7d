{{- /* The handler of <table>_prune and <table>_claim, whose batch cannot be deleted. $.which are the rows s that
       they delete; $.unless is when the error is of something else; $.expired is whether to count the
       expired; $.job as in ran.sql. */ -}}
when others then
        {{ template "partial/passing.sql" (merge (dict "or" .unless) .) }}
        v_now := clock_timestamp();
        declare
            v_ids      text[];
            v_versions int8[];
            v_kept     int8;
            v_moved    int8;
            v_next     timestamptz; -- where what comes after these begins
        begin
            select array_agg(s.id) filter (where {{ .which }}),
                   array_agg(s.version) filter (where {{ .which }}),
                   min(s.prune_after),
                   case when count(*) >= p_limit then max(s.prune_after) + interval '1 microsecond' end
              into v_ids, v_versions, next_from, v_next
              from (
                select t.id, t.version, t.revoked_at, t.expires_at, t.prune_after
                  from {{ .table }} as t
                 where t.prune_after >= coalesce(p_from, '-infinity')
                   and t.prune_after <= v_now
                 order by t.prune_after
                 limit p_limit
              ) as s;
            select r.deleted, r.kept, r.moved{{ if .expired }}, r.expired{{ end }}
              into deleted, v_kept, v_moved{{ if .expired }}, expired{{ end }}
              from {{ .schema }}."{{ .prefix }}_reap"(v_ids, v_versions) as r;
            if deleted + v_kept = 0 then
                raise;
            elsif deleted + v_moved = 0 then
                next_from := v_next; -- they come again at once, and all others must not wait for them
            end if;
            {{ template "partial/ran.sql" . }}