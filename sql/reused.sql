-- <table>_reused(p_id) records that an old id was used after the grace of its renewal. Call it when a
-- function answers 'reused': <table>_get, which reads only, cannot, and a transaction that meets the answer
-- often ends in a rollback. What is not so is not recorded, nor is what was recorded within a minute.
--
-- arguments  p_id: the old id
-- result     whether it was recorded; false also where nothing is, or this transaction can only read
-- locks      none
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_reused"(p_id text)
returns bool
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
{{ template "partial/plans.sql" . }}
as {{ .body }}
#variable_conflict use_variable
begin
    if current_setting('transaction_read_only')::bool or not {{ template "partial/audited.sql" . }} then
        return false;
    end if;
    insert into {{ .events_table }} (kind, id, successor, subject)
    select 'reused', t.id, t.renewed_to, t.subject
      from {{ .table }} as t
     where t.id = p_id
       and t.revoked_at is not null
       and t.renewed_to is not null
       and t.expires_at <= clock_timestamp()
       and not exists (
            select
              from {{ .events_table }} as e
             where e.id = p_id
               and e.at > clock_timestamp() - interval '1 minute'
               and e.kind = 'reused');
    return found;
end
{{ .body }};
