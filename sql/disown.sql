-- <table>_disown(p_id, p_lock_timeout) ends what the id that a session had before its renewal stands for,
-- since the session becomes another subject's, and may be the first one's again later. <table>_set calls it;
-- it is granted to nobody. The mark is the tombstone's absolute_expires_at: see <table>_successor.
--
-- arguments  p_id: the session, whose advisory lock is held, and whose row is not written yet
--            p_lock_timeout: seconds to wait for the tombstone's row; null or 0: no limit
-- result     false after the time-out
-- locks      the tombstone's row. No bulk operation locks such rows, and who locks one in order with p_id's has
--            p_id's advisory lock
-- notifies   nothing: what was reached by an old id is in no cache
create or replace function {{ .schema }}."{{ .prefix }}_disown"(
    p_id           text,
    p_lock_timeout float8
)
returns bool
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
{{ template "partial/plans.sql" . }}
-- As in <table>_lock.
set lock_timeout = 0
as {{ .body }}
#variable_conflict use_variable
declare
    v_deadline timestamptz := clock_timestamp() + make_interval(secs => nullif(p_lock_timeout, 0));
begin
    {{ template "partial/lock_timeout.sql" }}
    update {{ .table }} as t
       set absolute_expires_at = clock_timestamp()
     where t.renewed_to = p_id
       and t.absolute_expires_at is null;
    return true;
exception
    when lock_not_available then
        return false;
end
{{ .body }};
