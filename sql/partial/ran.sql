{{- /* Records the end of a run, $.job says whether it was the job's. Under the prune lock: nobody waits
       for the row. */ -}}
insert into {{ .cleanup_table }} as c (ran_at, ran_deleted, deleted, job_at)
        values (clock_timestamp(), p_deleted + deleted, p_deleted + deleted, case when {{ .job }} then clock_timestamp() end)
            on conflict (one) do update
           set ran_at      = excluded.ran_at,
               ran_deleted = excluded.ran_deleted,
               deleted     = c.deleted + excluded.deleted,
               job_at      = coalesce(excluded.job_at, c.job_at);
