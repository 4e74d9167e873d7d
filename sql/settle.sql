-- <table>_settle() has the constraints that wait for the commit be checked now: a foreign key that is initially
-- deferred, as some frameworks make each, would fail the commit of a prune, where nobody can say which session it
-- was. It is granted to nobody.
--
-- arguments  none
-- result     none; the constraint's error
-- locks      none
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_settle"()
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
{{ template "partial/plans.sql" . }}
as {{ .body }}
#variable_conflict use_variable
declare
    v_schema name;
    v_name   name;
begin
    for v_schema, v_name in
        select distinct n.nspname, c.conname
          from pg_trigger as g
          join pg_constraint as c on c.oid = g.tgconstraint
          join pg_namespace as n on n.oid = c.connamespace
         where g.tgrelid = {{ .lit }}{{ .table }}{{ .lit }}::regclass
           and g.tginitdeferred
           and has_schema_privilege(n.oid, 'usage') -- without which it cannot be named: the commit tells
    loop
        execute format('set constraints %I.%I immediate', v_schema, v_name);
        execute format('set constraints %I.%I deferred', v_schema, v_name); -- as it was: it may be a caller's transaction
    end loop;
end
{{ .body }};
