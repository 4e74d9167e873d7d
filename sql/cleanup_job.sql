-- <table>_cleanup_job(p_job, p_role, p_period) records which job of pg_cron calls <table>_prune_all, for those who cannot
-- see pg_cron's tables. It schedules nothing.
--
-- arguments  p_job: its name; null: none does
--            p_role: whose it is, who alone can see it, change it or remove it, but for a superuser
--            p_period: seconds between two of its runs
-- result     none
-- locks      the row of <table>_cleanup
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_cleanup_job"(
    p_job    text,
    p_role   text   default null,
    p_period float8 default null
)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as {{ .body }}
#variable_conflict use_variable
begin
    if p_job is null then
        p_role := null;
        p_period := null;
    end if;
    insert into {{ .cleanup_table }} as c (job, job_role, job_period, job_at)
    values (p_job, p_role, make_interval(secs => p_period), case when p_job is not null then clock_timestamp() end)
        on conflict (one) do update
       set job        = excluded.job,
           job_role   = excluded.job_role,
           job_period = excluded.job_period,
           job_at     = excluded.job_at;
end
{{ .body }};
