-- <table>_confirm(p_entries) deletes sessions that <table>_claim returned, and that are still expired.
-- One that another session has replaced under the same id stays.
--
-- arguments  p_entries: a JSON object of ids and the versions that were claimed
-- result     how many were deleted
-- locks      the rows, in ascending order of id
-- records    'expired' of each session that was deleted, where <table>_audit says so
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_confirm"(p_entries text)
returns int8
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as {{ .body }}
#variable_conflict use_variable
declare
    v_ids      text[];
    v_versions int8[];
    v_deleted  int8;
begin
    select array_agg(e.key order by e.key collate "C"), array_agg(e.value::int8 order by e.key collate "C")
      into v_ids, v_versions
      from jsonb_each_text(p_entries::jsonb) as e;
    perform from {{ .table }} as t where t.id = any (v_ids) order by t.id for update;
    with gone as (
        delete from {{ .table }} as t
         using unnest(v_ids, v_versions) as e(id, version)
         where t.id = e.id
           and t.version = e.version
           and t.revoked_at is null
           and t.expires_at <= clock_timestamp()
        returning t.id, t.subject, t.expires_at
    ),
    recorded as (
        insert into {{ .events_table }} (kind, id, subject, expired_at)
        select 'expired', g.id, g.subject, g.expires_at
          from gone as g
         where {{ template "partial/audited.sql" . }}
    )
    select count(*) into v_deleted from gone;
    return v_deleted;
end
{{ .body }};
