-- <table>_get(p_id) reads one session.
--
-- arguments  p_id: the id
-- result     one <table>_result, always. status is
--              'found'    a live session
--                         renewed_to: p_id is an old one in its grace; this is the session's
--              'missing'  none, or an expired one; every other column of the session is null
--              'revoked'  it was ended
--              'renewed'  it was renewed, and p_id does not stand for it any more
--              'reused'   the same, and p_id's grace is over: a stolen token, perhaps
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
{{ template "partial/plans.sql" . }}
as {{ .body }}
#variable_conflict use_variable
declare
    v_result {{ .schema }}."{{ .prefix }}_result";
    v_status text;
    v_id     text;
begin
    {{ template "get_row" (merge (dict "id" "p_id") .) }}
    if found then
        return v_result;
    end if;

    select case when t.renewed_to is null then 'revoked' else 'renewed' end
      into v_status
      from {{ .table }} as t
     where t.id = p_id
       and t.revoked_at is not null;
    if v_status = 'renewed' then
        -- One snapshot serves all statements of a stable function: what the successor was, it is here.
        select s.id, s.status into v_id, v_status from {{ .schema }}."{{ .prefix }}_successor"(p_id, null) as s;
        if v_status = 'found' then
            {{ template "get_row" (merge (dict "id" "v_id") .) }}
            if found then
                v_result.renewed_to := v_id;
                return v_result;
            end if;
            v_status := 'missing'; -- it has expired just now
        end if;
    end if;
    -- SELECT INTO sets its targets to null where there is no row.
    v_result.status := coalesce(v_status, 'missing');
    return v_result;
end
{{ .body }};
{{- define "get_row" -}}
select 'found', t.subject, t.data, t.codec, t.created_at, t.expires_at, t.absolute_expires_at,
           date_part('epoch', t.idle_timeout), t.version,
           {{ template "partial/columns_json.sql" . }},
           t.renewed_to,
           case when {{ template "partial/cacheable.sql" }}
               then pg_postmaster_start_time() end,
           null::text
      into v_result
      from {{ .table }} as t
     where t.id = {{ .id }}
       and t.revoked_at is null
       and t.expires_at > clock_timestamp();
{{- end -}}
