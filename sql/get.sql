-- <table>_get(p_id) reads one session.
--
-- arguments  p_id: the id
-- result     one <table>_result, always. status is
--              'found'    a live session
--              'missing'  none, or an expired one; every other column of the session is null
--              'revoked'  a tombstone; renewed_to is the id that replaced it, if one did
--            server: the start time of the server that answered; null where the answer must not be
--            cached, since others may see another one (a snapshot of its own, something written by
--            this transaction, a standby), and where there is no live session
-- locks      none
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_get"(
    p_id text
)
returns {{ .schema }}."{{ .prefix }}_result"
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
{{- template "partial/styles.sql" . }}
set enable_seqscan = off
as {{ .body }}
#variable_conflict use_variable
declare
    v_result {{ .schema }}."{{ .prefix }}_result";
begin
    select 'found', t.subject, t.data, t.codec, t.created_at, t.expires_at, t.absolute_expires_at,
           date_part('epoch', t.idle_timeout), t.version,
           {{ template "partial/columns_json.sql" . }},
           t.renewed_to,
           case when {{ template "partial/cacheable.sql" }}
               then pg_postmaster_start_time() end
      into v_result
      from {{ .table }} as t
     where t.id = p_id
       and t.revoked_at is null
       and t.expires_at > clock_timestamp();
    if found then
        return v_result;
    end if;

    select 'revoked', t.renewed_to, t.version
      into v_result.status, v_result.renewed_to, v_result.version
      from {{ .table }} as t
     where t.id = p_id
       and t.revoked_at is not null;
    -- SELECT INTO sets its targets to null where there is no row.
    v_result.status := coalesce(v_result.status, 'missing');
    return v_result;
end
{{ .body }};
