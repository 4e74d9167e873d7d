-- <table>_reap(p_ids, p_versions) deletes rows of which some perhaps cannot be deleted: a foreign key refers to
-- them, or a trigger raises. While a part of them cannot, it is halved. What remains is kept, and due again later,
-- the later the longer it has been dead: it must not stand in the way of all others at each prune.
-- <table>_prune, <table>_claim and <table>_confirm call it; it is granted to nobody.
--
-- A part is locked and deleted in one subtransaction. A row that was locked by another one would be deleted by a
-- MultiXact, and the index entries of such are walked over until they are vacuumed.
--
-- arguments  p_ids, p_versions: of the rows. What has another version now, or is alive, stays as it is
-- result     deleted: rows deleted, expired: of them those that were no tombstones; kept: rows that cannot be
--            deleted; moved: of them those given a new prune_after
-- locks      the rows, in ascending order of id in each part, skipping those that are locked: they come again;
--            then the row of <table>_cleanup
-- records    'expired' of each session that was deleted, where <table>_audit says so
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_reap"(
    p_ids       text[],
    p_versions  int8[],
    out deleted int8,
    out expired int8,
    out kept    int8,
    out moved   int8
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
{{ template "partial/plans.sql" . }}
as {{ .body }}
#variable_conflict use_variable
declare
    v_now     timestamptz := clock_timestamp();
    v_firsts  int4[] := array[1]; -- the parts to do, as positions; the last one is next
    v_lasts   int4[] := array[cardinality(p_ids)];
    v_first   int4;
    v_last    int4;
    v_rows    tid[];
    v_deleted int8;
    v_expired int8;
    v_failure text;
    v_reason  text; -- the first failure of a row alone
begin
    deleted := '0';
    expired := '0';
    kept := '0';
    moved := '0';
    if cardinality(p_ids) > 0 is not true then
        return;
    end if;
    while cardinality(v_firsts) > 0 loop
        v_first := v_firsts[cardinality(v_firsts)];
        v_last := v_lasts[cardinality(v_lasts)];
        v_firsts := trim_array(v_firsts, 1);
        v_lasts := trim_array(v_lasts, 1);
        begin
            v_rows := array(
                select t.ctid
                  from {{ .table }} as t
                  join unnest(p_ids[v_first:v_last], p_versions[v_first:v_last]) as e(id, version)
                    on e.id = t.id
                   and e.version = t.version
                 where t.revoked_at is not null
                    or t.expires_at <= v_now
                 order by t.id
                   for update of t skip locked);
            continue when v_rows = '{}';
            with gone as (
                delete from {{ .table }} as t
                 where t.ctid = any (v_rows)
                returning t.id, t.subject, t.expires_at, t.revoked_at
            ),
            recorded as (
                insert into {{ .events_table }} (kind, id, subject, expired_at)
                select 'expired', g.id, g.subject, g.expires_at
                  from gone as g
                 where g.revoked_at is null
                   and {{ template "partial/audited.sql" . }}
            )
            select count(*), count(*) filter (where g.revoked_at is null) into v_deleted, v_expired from gone as g;
            {{ template "partial/all_deleted.sql" (merge (dict "deleted" "v_deleted" "rows" "v_rows") .) }}
            deleted := deleted + v_deleted;
            expired := expired + v_expired;
        exception
            when others then
                {{ template "partial/passing.sql" (merge (dict "or" "") .) }}
                if v_first < v_last then
                    v_firsts := v_firsts || array[(v_first + v_last) / 2 + 1, v_first];
                    v_lasts := v_lasts || array[v_last, (v_first + v_last) / 2];
                    continue;
                end if;
                -- The message of a data exception quotes the data.
                v_failure := left(case when left(sqlstate, 2) = '22' then format('SQLSTATE %s', sqlstate) else sqlerrm end, 500);
                v_reason := coalesce(v_reason, v_failure);
                kept := kept + 1;
                begin
                    update {{ .table }} as t
                       set prune_after = {{ template "partial/later.sql" (merge (dict "least" "1 hour") .) }}
                     where t.id = (
                        select s.id
                          from {{ .table }} as s
                         where s.id = p_ids[v_first]
                           and s.version = p_versions[v_first]
                           and (s.revoked_at is not null or s.expires_at <= v_now)
                           for update skip locked);
                    if found then
                        moved := moved + 1;
                    end if;
                exception
                    when others then -- what forbids this too comes again at once
                        {{ template "partial/passing.sql" (merge (dict "or" "") .) }}
                end;
        end;
    end loop;
    if kept > 0 then
        update {{ .cleanup_table }} as c
           set kept    = case when c.keeping then c.kept + kept else kept end,
               reason  = case when c.keeping then c.reason else v_reason end,
               kept_at = clock_timestamp(),
               keeping = true
         where c.one;
    end if;
end
{{ .body }};
