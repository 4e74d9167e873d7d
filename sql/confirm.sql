-- <table>_confirm(p_entries) deletes sessions that <table>_claim returned, and that are still expired, or
-- gives them back. One that another session has replaced under the same id stays as it is; so does one that
-- cannot be deleted: see <table>_reap. It comes again.
--
-- arguments  p_entries: a JSON object of ids and the versions that were claimed
--            p_seen: not true: the hook failed. They are due again, after those that already are
--            p_later: it failed for each of them alone. They are due again later, each time later
-- result     how many were deleted, or given back
-- locks      the rows, in ascending order of id; then the row of <table>_cleanup. When it deletes, it skips those
--            that are locked: they come again
-- records    'expired' of each session that was deleted, where <table>_audit says so
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_confirm"(
    p_entries text,
    p_seen    bool default true,
    p_later   bool default false
)
returns int8
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
{{ template "partial/plans.sql" . }}
as {{ .body }}
#variable_conflict use_variable
declare
    v_ids      text[];
    v_versions int8[];
    v_done     int8;
begin
    select array_agg(e.key order by e.key collate "C"), array_agg(e.value::int8 order by e.key collate "C")
      into v_ids, v_versions
      from jsonb_each_text(p_entries::jsonb) as e;
    if p_seen is not true then
        perform from {{ .table }} as t where t.id = any (v_ids) order by t.id for update;
        update {{ .table }} as t
           set prune_after = case when p_later then {{ template "partial/later.sql" (merge (dict "least" "1 minute") .) }}
                                  else clock_timestamp() end
          from unnest(v_ids, v_versions) as e(id, version)
         where t.id = e.id
           and t.version = e.version
           and t.revoked_at is null
           and t.expires_at <= clock_timestamp();
        get diagnostics v_done = row_count;
        return v_done;
    end if;
    select r.deleted into v_done from {{ .schema }}."{{ .prefix }}_reap"(v_ids, v_versions) as r;
    update {{ .cleanup_table }} as c
       set ran_deleted = c.ran_deleted + v_done,
           deleted = c.deleted + v_done
     where c.one;
    return v_done;
end
{{ .body }};
