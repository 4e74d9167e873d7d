-- <table>_audit(p_audited, p_retention) says whether what happens to sessions is recorded in <table>_events:
-- from the next transactions on, by whatever calls the functions. It is granted to nobody: the owner's.
--
-- arguments  p_audited: whether it is. What was recorded stays, for as long as it shall
--            p_retention: seconds that an event stays, for <table>_prune_events; negative: for ever
-- result     none
-- locks      the row of <table>_audit
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_audit"(
    p_audited   bool   default true,
    p_retention float8 default 7776000
)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as {{ .body }}
#variable_conflict use_variable
begin
    if p_audited is null or (p_retention < 3153600001) is not true then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'p_audited is null, or p_retention is no number of seconds up to 100 years';
    end if;
    insert into {{ .audit_table }} as a (audited, retention)
    values (p_audited, case when p_retention >= 0 then make_interval(secs => p_retention) end)
        on conflict (one) do update
       set audited   = excluded.audited,
           retention = excluded.retention;
end
{{ .body }};
