-- <table>_hook(p_present) registers that there is an instance with a hook, for a day: until then expired
-- sessions are for <table>_claim, and <table>_prune leaves them. <table>_claim renews it.
--
-- arguments  p_present: not true: there is none any more; <table>_prune deletes them at once
-- result     none
-- locks      the store's prune lock, unless it was registered within the hour; the row of <table>_cleanup
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_hook"(p_present bool default true)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
{{ template "partial/plans.sql" . }}
as {{ .body }}
#variable_conflict use_variable
declare
    v_now timestamptz := clock_timestamp();
begin
    if p_present is not true then
        update {{ .cleanup_table }} as c set hooked_at = null where c.one and c.hooked_at is not null;
        return;
    end if;
    if exists (
        select
          from {{ .cleanup_table }} as c
         where c.one
           and c.hooked_at > v_now - interval '1 hour'
           and c.hooked_at <= v_now
    ) then
        return;
    end if;
    -- A prune looks under this lock whether there is a hook: none that saw none is at work afterwards.
    perform pg_advisory_xact_lock({{ .prune_key }});
    v_now := clock_timestamp();
    {{ template "partial/hooked.sql" . }}
end
{{ .body }};
