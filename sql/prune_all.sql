-- <table>_prune_all(p_limit) prunes sessions, and then events, until nothing is left, committing after each
-- batch. For pg_cron:
-- `call <schema>.<table>_prune_all()`.
--
-- A procedure that commits can neither be SECURITY DEFINER nor have SET clauses, so the caller needs
-- EXECUTE on <table>_prune and <table>_prune_events, and every name here is qualified.
--
-- arguments  p_limit: rows looked at in a batch
-- locks      as <table>_prune, for a batch at a time; where another prune runs it ends at once
-- notifies   nothing
create or replace procedure {{ .schema }}."{{ .prefix }}_prune_all"(p_limit pg_catalog.int4 default 200)
language plpgsql
as {{ .body }}
#variable_conflict use_variable
declare
    v_from    pg_catalog.timestamptz;
    v_busy    pg_catalog.bool;
    v_deleted pg_catalog.int8;
    v_total   pg_catalog.int8 := '0'::pg_catalog.int8;
begin
    loop
        select r.next_from, r.busy, r.deleted
          into v_from, v_busy, v_deleted
          from {{ .schema }}."{{ .prefix }}_prune"(p_limit, v_from, false, v_total, true) as r;
        commit;
        if v_busy then
            return;
        end if;
        exit when v_from is null;
        v_total := v_total operator(pg_catalog.+) v_deleted;
    end loop;
    loop
        select r.next_from
          into v_from
          from {{ .schema }}."{{ .prefix }}_prune_events"(p_limit, v_from) as r;
        commit;
        exit when v_from is null;
    end loop;
end
{{ .body }};
