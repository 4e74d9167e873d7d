-- <table>_lock(p_ids, p_subject, ...) waits for the locks of sessions. <table>_set and
-- <table>_touch call it after a try-lock failed: SET clauses cost, and here alone is one needed.
--
-- arguments  p_ids: the sessions, in ascending order by the bytes (collation C)
--            p_subject: lock this subject too, and first; null: none
--            p_timeout: seconds to wait for all of them; null or 0: no limit
--            p_delete: lock the rows as a deletion needs it, against foreign keys too
--            p_exclusive: lock the subject exclusive, not shared, and no rows: <table>_admit comes next, which
--              locks them in order with those that it evicts
-- result     whether all locks are held; false after the time-out, and then none of them is
-- locks      the subject's advisory lock; the ids' advisory locks, in order; the rows, of several all or none
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_lock"(
    p_ids       text[],
    p_subject   text,
    p_timeout   float8,
    p_delete    bool,
    p_exclusive bool default false
)
returns bool
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
{{ template "partial/plans.sql" . }}
-- Confines the set_config below to this call; without it the setting would outlive the function.
set lock_timeout = 0
as {{ .body }}
#variable_conflict use_variable
declare
    v_deadline timestamptz := clock_timestamp() + make_interval(secs => nullif(p_timeout, 0));
    v_id       text;
begin
    if p_subject is not null then
        {{ template "partial/lock_timeout.sql" }}
        if p_exclusive then
            perform pg_advisory_xact_lock(hashtextextended(p_subject, {{ .subject_seed }}));
        else
            perform pg_advisory_xact_lock_shared(hashtextextended(p_subject, {{ .subject_seed }}));
        end if;
    end if;
    -- All advisory locks before any row: who holds the one of an id may wait for its row.
    foreach v_id in array p_ids loop
        {{ template "partial/lock_timeout.sql" }}
        perform pg_advisory_xact_lock(hashtextextended(v_id, {{ .id_seed }}));
    end loop;
    if p_exclusive then
        return true;
    elsif cardinality(p_ids) = 1 then
        {{ template "partial/lock_timeout.sql" }}
        if p_delete then
            perform from {{ .table }} as t where t.id = p_ids[1] for update;
        else
            perform from {{ .table }} as t where t.id = p_ids[1] for no key update;
        end if;
        return true;
    end if;
    loop
        begin
            foreach v_id in array p_ids loop
                if p_delete then
                    perform from {{ .table }} as t where t.id = v_id for update nowait;
                else
                    perform from {{ .table }} as t where t.id = v_id for no key update nowait;
                end if;
            end loop;
            exit;
        exception
            when lock_not_available then
                null;
        end;
        {{ template "partial/lock_timeout.sql" }}
        if p_delete then
            {{ template "partial/wait_alone.sql" (merge (dict "lock" "update") .) }}
        else
            {{ template "partial/wait_alone.sql" (merge (dict "lock" "no key update") .) }}
        end if;
    end loop;
    return true;
exception
    -- A status, not an error: an error would end the caller's transaction.
    when lock_not_available then
        return false;
end
{{ .body }};
