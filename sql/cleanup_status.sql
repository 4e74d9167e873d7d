-- <table>_cleanup_status(p_limit) tells what the last prune did, whoever ran it, and what is due. It
-- shows no session.
--
-- arguments  p_limit: look at this many rows past their prune_after at most; 0: not at the table
-- result     one row:
--              now: the server's clock
--              ran_at, ran_deleted: when a run's last batch came to its end, and the rows that the run has
--              deleted
--              deleted: rows that all runs deleted
--              due, lag: the rows that should be gone, and the age in seconds of the oldest, 0 where there
--              is none; both of the p_limit rows that were looked at, without those that a hook has just now
--              job: the job of pg_cron that the library scheduled; job_at: when <table>_prune_all last
--              came to its end, or the job was scheduled
--              hooked_at: when an instance with a hook last began or claimed sessions, to the hour; null: there is none
--              job_role, job_period: whose the job is, and the seconds between two of its runs
--              kept_at, kept, reason: when a run last had rows that could not be deleted, how many, and why
-- locks      none
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_cleanup_status"(
    p_limit         int4 default 10000,
    out now         timestamptz,
    out ran_at      timestamptz,
    out ran_deleted int8,
    out deleted     int8,
    out due         int8,
    out lag         float8,
    out job         text,
    out job_at      timestamptz,
    out hooked_at   timestamptz,
    out job_role    text,
    out job_period  float8,
    out kept_at     timestamptz,
    out kept        int8,
    out reason      text
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
{{ template "partial/plans.sql" . }}
as {{ .body }}
#variable_conflict use_variable
begin
    now := clock_timestamp();
    select c.ran_at, c.ran_deleted, c.deleted, c.job, c.job_at, c.hooked_at, c.job_role,
           date_part('epoch', c.job_period), c.kept_at, c.kept, c.reason
      into ran_at, ran_deleted, deleted, job, job_at, hooked_at, job_role, job_period, kept_at, kept, reason
      from {{ .cleanup_table }} as c
     where c.one; -- by its index: a scan that is forbidden would be compiled first (JIT), for its cost
    deleted := coalesce(deleted, '0');
    due := '0';
    lag := 0;
    if p_limit = 0 then
        return;
    end if;
    -- A session is due when it has expired, a tombstone by its prune_after.
    select count(*), coalesce(date_part('epoch', now - min(s.since)), 0)
      into due, lag
      from (
        select case when t.revoked_at is null then t.expires_at else t.prune_after end as since
          from {{ .table }} as t
         where t.prune_after <= now
         order by t.prune_after
         limit p_limit
      ) as s
     where s.since <= now;
end
{{ .body }};
