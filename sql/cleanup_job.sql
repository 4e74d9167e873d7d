-- <table>_cleanup_job(p_job) records which job of pg_cron calls <table>_prune_all, for those who cannot
-- see pg_cron's tables. It schedules nothing.
--
-- arguments  p_job: its name; null: none does
-- result     none
-- locks      the row of <table>_cleanup
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_cleanup_job"(p_job text)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as {{ .body }}
#variable_conflict use_variable
begin
    insert into {{ .cleanup_table }} as c (job, job_at)
    values (p_job, case when p_job is not null then clock_timestamp() end)
        on conflict (one) do update
       set job    = excluded.job,
           job_at = excluded.job_at;
end
{{ .body }};
