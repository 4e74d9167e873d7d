{{- /* At a run's first batch: what <table>_reap keeps from now on is this run's. */ -}}
if p_from is null then
        update {{ .cleanup_table }} as c set keeping = false where c.one and c.keeping;
    end if;
