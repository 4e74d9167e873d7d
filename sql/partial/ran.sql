{{- /* Counts what a batch deleted, and says when a run last came so far; $.job says whether it is the job's. A
       run that is cut off, or is one batch of many, counts too. Under the prune lock: nobody waits for the row
       but confirm. */ -}}
insert into {{ .cleanup_table }} as c (ran_at, ran_deleted, deleted, job_at)
        values (clock_timestamp(), p_deleted + deleted, deleted, case when {{ .job }} then clock_timestamp() end)
            on conflict (one) do update
           set ran_at      = excluded.ran_at,
               ran_deleted = excluded.ran_deleted,
               deleted     = c.deleted + excluded.deleted,
               job_at      = coalesce(excluded.job_at, c.job_at);
