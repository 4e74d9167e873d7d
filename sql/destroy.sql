-- <table>_destroy(p_ids, ...) ends sessions by id and leaves tombstones, so that no late write brings
-- one back. An id that does not exist leaves nothing; an old one, in the grace of its renewal, stands
-- for its successor.
--
-- arguments  p_ids: a JSON array of ids, at most 1,000
--            p_tombstone: seconds that a tombstone stays; negative: delete the row at once
--            p_lock_timeout: seconds to wait for each session's locks; 0: no limit
--            p_successors: a JSON array of the ids that a call before asked for
-- result     a row for each live session that was ended: its id and the version of its end. Or, with
--            nothing done, a row for each of p_ids that stands for a session beyond p_ids and
--            p_successors: the id, no version, and the session's id in successor. Call again with all of
--            these as p_successors: ids are locked in order, so what was not asked for cannot be followed
-- errors     55P03 a session was locked for too long; nothing was destroyed
-- locks      the ids' and the successors' advisory locks in ascending order, then the rows in ascending order
-- records    'destroyed', and 'expired' of those that were not live any more, where <table>_audit says so
-- notifies   the ids and versions of the sessions that were ended
create or replace function {{ .schema }}."{{ .prefix }}_destroy"(
    p_ids          text,
    p_tombstone    float8 default 300,
    p_lock_timeout float8 default 5,
    p_successors   text   default null
)
returns table (id text, version int8, successor text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
{{ template "partial/plans.sql" . }}
as {{ .body }}
#variable_conflict use_variable
declare
    v_ids      text[]; -- to be ended
    v_locks    text[]; -- and these, if p_ids stand for them
    v_id       text;
    v_locked   bool := true;
    v_now      timestamptz;
    v_ended    text[];
    v_versions int8[];
begin
    {{ template "partial/tombstone_check.sql" . }}
    v_ids := array(
        select distinct e.value collate "C"
          from jsonb_array_elements_text(p_ids::jsonb) as e(value)
         order by 1);
    v_locks := v_ids;
    if p_successors is not null then
        v_locks := array(
            select distinct e.value collate "C"
              from unnest(v_ids || array(select s.value from jsonb_array_elements_text(p_successors::jsonb) as s(value))) as e(value)
             order by 1);
    end if;
    if p_ids is null or array_position(v_locks, null) is not null then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'p_ids is null, or p_ids or p_successors has a null';
    elsif cardinality(v_ids) > 1000 or cardinality(v_locks) > 2000 then
        raise exception using
            errcode = 'program_limit_exceeded',
            message = format('%s ids in one call; at most 1000, and as many successors', cardinality(v_locks));
    end if;

    -- All advisory locks before any row: who holds the one of an id may wait for its row.
    foreach v_id in array v_locks loop
        v_locked := pg_try_advisory_xact_lock(hashtextextended(v_id, {{ .id_seed }}));
        exit when not v_locked;
    end loop;
    if v_locked and cardinality(v_locks) = 1
       and not exists (select from {{ .table }} as t where t.id = v_locks[1] and t.xmax <> '0'::xid)
    then
        perform from {{ .table }} as t where t.id = v_locks[1] for no key update;
    elsif not {{ .schema }}."{{ .prefix }}_lock"(v_locks, null::text, p_lock_timeout, p_tombstone < 0, false) then
        raise exception using
            errcode = 'lock_not_available',
            message = 'a session is locked; none was destroyed';
    elsif not v_locked and (select count(*) from {{ .table }} as t where t.id = any (v_locks)) < cardinality(v_locks) then
        {{ template "partial/snapshot_check.sql" . }}
    end if;

    -- Under the locks: no renewal and no login comes between. Not by "renewed_to is not null", which an index promises
    -- that may look the cheaper one while there are no tombstones, and has all of them later.
    return query
    select t.id, null::int8, s.id
      from {{ .table }} as t
     cross join {{ .schema }}."{{ .prefix }}_successor"(t.id, null) as s
     where t.id = any (v_ids)
       and coalesce(t.renewed_to, '') <> ''
       and s.id <> all (v_locks);
    if found then
        return;
    end if;
    if cardinality(v_locks) > cardinality(v_ids) then
        v_ids := v_ids || array(
            select s.id
              from {{ .table }} as t
             cross join {{ .schema }}."{{ .prefix }}_successor"(t.id, null) as s
             where t.id = any (v_ids)
               and coalesce(t.renewed_to, '') <> ''
               and s.status = 'found');
    end if;

    v_now := clock_timestamp();
    if p_tombstone < 0 then
        with ended as (
            delete from {{ .table }} as t
             where t.id = any (v_ids)
            returning t.id, t.version, t.expires_at, t.subject, t.revoked_at is null as open
        ),
        {{ template "destroy_recorded" . }}
        select array_agg(e.id), array_agg(greatest(e.version + 1, floor(date_part('epoch', v_now) * 1000000)::int8))
          into v_ended, v_versions
          from ended as e
         where e.expires_at > v_now
           and e.open;
    else
        -- Of an expired row too: a write that is under way must not take its place.
        with ended as (
            update {{ .table }} as t
               set data        = null,
                   revoked_at  = v_now,
                   prune_after = {{ printf .prune_after "v_now + make_interval(secs => p_tombstone)" }},
                   version     = greatest(t.version + 1, floor(date_part('epoch', v_now) * 1000000)::int8)
             where t.id = any (v_ids)
               and t.revoked_at is null
            returning t.id, t.version, t.expires_at, t.subject, true as open
        ),
        {{ template "destroy_recorded" . }}
        select array_agg(e.id), array_agg(e.version)
          into v_ended, v_versions
          from ended as e
         where e.expires_at > v_now;
    end if;
    if v_ended is not null then
        perform {{ .schema }}."{{ .prefix }}_publish"('destroyed', jsonb_object_agg(e.id, e.version))
           from unnest(v_ended, v_versions) as e(id, version);
        return query select e.id, e.version, null::text from unnest(v_ended, v_versions) as e(id, version);
    end if;
end
{{ .body }};
{{- define "destroy_recorded" -}}
recorded as (
            insert into {{ .events_table }} (kind, id, subject, expired_at)
            select case when e.expires_at > v_now then 'destroyed' else 'expired' end, e.id, e.subject,
                   case when e.expires_at <= v_now then e.expires_at end
              from ended as e
             where e.open
               and {{ template "partial/audited.sql" . }}
        )
{{- end -}}
