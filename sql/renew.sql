-- <table>_renew(p_id, p_new_id, ...) gives a session a new id, and with it a new token: the row stays,
-- with all its columns and what refers to it, and its deadlines too, but for the idle one, since this
-- is a use. A tombstone stands at the old id, which goes on standing for the session for the grace, and
-- only while whom it belongs to is the same: after a login the old token is worth nothing.
--
-- arguments  p_id, p_new_id: the ids
--            p_subject: whom the session belongs to from now on: a login; null: as it was
--            p_grace: seconds that p_id stands for the session; negative: not at all
--            p_tombstone: seconds that the tombstone stays, if that is longer
--            p_touch_interval: as <table>_set's
--            p_max_per_subject, p_overflow: as <table>_set's, where the session becomes another one's
--            p_lock_timeout: seconds to wait for the session's locks; 0: no limit
--            p_for: an old id, by which p_id was found: it is renewed only while p_for stands for it
--            p_data, p_codec, p_version: the data coded anew, and the version that it was read of, where a
--              codec other than 0 and 1 coded it: what that made may depend on the id
--            p_recode: ask that of codecs 0 and 1 too: the caller codes by another one, or cannot take them
-- result     one <table>_result, always. status is
--              'updated'  it has the new id; the session is in the row
--              'missing'  no live session
--              'revoked'  it was ended
--              'renewed'  another renewal was faster, or p_id is an old one, or not what p_for stands for. The
--                         session is in the row, and its id in renewed_to, if the old one stands for it,
--                         or if it is p_subject's
--              'reused'   p_id is an old one whose grace is over
--              'busy'     the session was locked
--              'full'     p_subject has p_max_per_subject live sessions
--              'opaque'   the data is to be coded anew, and p_version is not the version that is there, which
--                         is in the row: code that for p_new_id, and call again
--            server, ended: as <table>_set's
-- locks      p_subject's advisory lock, as <table>_set's; both ids' advisory locks in ascending order; the row. The
--            subject that it was needs none: who revokes that and has waited for the row finds it under its new id
-- records    'renewed', and 'evicted', where <table>_audit says so
-- notifies   that p_id was renewed, and the version; those that were evicted
create or replace function {{ .schema }}."{{ .prefix }}_renew"(
    p_id              text,
    p_new_id          text,
    p_subject         text   default null,
    p_grace           float8 default 10,
    p_tombstone       float8 default 300,
    p_touch_interval  float8 default null,
    p_lock_timeout    float8 default 5,
    p_max_per_subject int4   default 0,
    p_overflow        text   default 'reject',
    p_for             text   default null,
    p_data            bytea  default null,
    p_codec           int4   default null,
    p_version         int8   default 0,
    p_recode          bool   default false
)
returns {{ .schema }}."{{ .prefix }}_result"
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
{{- template "partial/styles.sql" . }}
{{ template "partial/plans.sql" . }}
as {{ .body }}
#variable_conflict use_variable
declare
    v_ids     text[];
    v_id      text;
    v_server  timestamptz;
    v_locked  bool := true;
    v_login   bool := false;
    v_ended   text;
    v_now     timestamptz;
    v_status  text;
    v_old     record;
    v_coded   bool := false;
    v_result  {{ .schema }}."{{ .prefix }}_result";
begin
    {{ template "partial/tombstone_check.sql" . }}
    if (p_id <> '' and p_new_id <> '' and p_id <> p_new_id and p_grace < 3153600000
        and p_version is not null and (p_version = 0 or p_data is not null and p_codec is not null)) is not true then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = case
                when p_id is null or p_id = '' then 'p_id is empty'
                when p_new_id is null or p_new_id = '' then 'p_new_id is empty'
                when p_id = p_new_id then 'p_new_id is p_id'
                when p_version is null then 'p_version is null'
                when p_version <> 0 and (p_data is null or p_codec is null) then 'p_version without p_data and p_codec'
                else 'p_grace must be a number of seconds below 100 years' end;
    end if;
    p_subject := nullif(p_subject, '');
    v_server := case when {{ template "partial/cacheable.sql" }}
               then pg_postmaster_start_time() end;

    v_ids := array(select i.id collate "C" from unnest(array[p_id, p_new_id]) as i(id) order by 1);
    if p_subject is not null then
        if p_max_per_subject > 0 then
            {{ template "renew_login" . }}
        end if;
        v_locked := case
            when v_login then pg_try_advisory_xact_lock(hashtextextended(p_subject, {{ .subject_seed }}))
            else pg_try_advisory_xact_lock_shared(hashtextextended(p_subject, {{ .subject_seed }})) end;
    end if;
    foreach v_id in array v_ids loop
        exit when not v_locked;
        v_locked := pg_try_advisory_xact_lock(hashtextextended(v_id, {{ .id_seed }}));
    end loop;
    -- Bulk operations take no advisory locks by id, but leave their mark in the row.
    if v_locked and exists (select from {{ .table }} as t where t.id = p_id and t.xmax <> '0'::xid) then
        v_locked := false;
    end if;
    if not v_locked then
        if not {{ .schema }}."{{ .prefix }}_lock"(v_ids, p_subject, p_lock_timeout, true, v_login) then
            v_result.status := 'busy';
            return v_result;
        end if;
        if not exists (select from {{ .table }} as t where t.id = p_id) then
            {{ template "partial/snapshot_check.sql" . }}
        end if;
    end if;

    -- Under p_id's lock: no login comes between this and the renewal.
    if p_for is not null
       and (select s.id from {{ .schema }}."{{ .prefix }}_successor"(p_for, null) as s) is distinct from p_id then
        {{ template "renew_successor" . }}
    end if;

    -- Before anything is ended for it: writers of data wait for the id's lock, so this stays as it is.
    select 'opaque', {{ template "renew_row" . }}, null::text, null::timestamptz, null::text
      into v_result
      from {{ .table }} as t
     where t.id = p_id
       and (t.codec not in (0, 1) or p_recode)
       and t.revoked_at is null
       and t.expires_at > clock_timestamp();
    if found then
        if v_result.version <> p_version then
            return v_result;
        end if;
        v_coded := true;
    end if;
    v_result := null;

    -- Before the row, which is locked with those to be evicted, in order.
    if p_subject is not null and p_max_per_subject > 0 then
        {{ template "renew_login" . }}
        if v_login then
            select a.status, a.ended
              into v_status, v_ended
              from {{ .schema }}."{{ .prefix }}_admit"(
                       p_subject, p_id, p_max_per_subject, p_overflow, p_tombstone, p_lock_timeout, true) as a;
            if v_status is not null then
                v_result.status := v_status;
                return v_result;
            end if;
        end if;
    end if;

    -- A statement of its own, after the locks.
    select t.subject, t.revoked_at, t.expires_at, t.renewed_to, t.created_at
      into v_old
      from {{ .table }} as t
     where t.id = p_id
       for update;
    v_now := clock_timestamp();
    v_status := case
        when v_old.revoked_at is not null and v_old.renewed_to is not null then 'renewed'
        when v_old.revoked_at is not null then 'revoked'
        when (v_old.expires_at > v_now) is not true then 'missing' end;
    if v_status = 'renewed' then
        {{ template "renew_successor" . }}
    end if;
    if v_status is not null then
        v_result.status := v_status;
        v_result.ended := v_ended;
        return v_result;
    end if;

    update {{ .table }} as t
       set id         = p_new_id,
           version    = {{ .next_version }},
           expires_at = {{ template "partial/extended.sql" . }},
           data       = case when v_coded then p_data else t.data end,
           codec      = case when v_coded then p_codec::int2 else t.codec end,
           subject    = coalesce(p_subject, t.subject)
     where t.id = p_id
       and (t.version = p_version or not v_coded)
    returning 'updated', {{ template "renew_row" . }}, null::text, v_server, v_ended
         into v_result;
    if not found then
        {{ template "partial/attempts.sql" }}
    end if;
    if p_grace >= 0 or p_tombstone >= 0 then
        insert into {{ .table }} as t (
            version, created_at, expires_at, absolute_expires_at, prune_after, revoked_at, codec, id, subject, renewed_to
        )
        values (
            v_result.version, v_old.created_at, v_now + make_interval(secs => greatest(p_grace, 0)),
            case when v_result.subject is distinct from v_old.subject then v_now end,
            {{ printf .prune_after "v_now + make_interval(secs => greatest(p_grace, p_tombstone))" }},
            v_now, 0, p_id, v_old.subject, p_new_id
        );
    end if;
    if {{ template "partial/audited.sql" . }} then
        insert into {{ .events_table }} (kind, id, successor, subject)
        values ('renewed', p_id, p_new_id, v_result.subject);
    end if;
    perform {{ .schema }}."{{ .prefix }}_publish"('renewed', jsonb_build_object(p_id, v_result.version));
    return v_result;
end
{{ .body }};
{{- define "renew_login" -}}
v_login := exists (
                select
                  from {{ .table }} as t
                 where t.id = p_id
                   and t.subject is distinct from p_subject
                   and t.revoked_at is null
                   and t.expires_at > clock_timestamp());
{{- end }}
{{- define "renew_successor" -}}
-- One statement, and so one snapshot, for whether the session may be shown and what it is.
        select case when s.status = 'found' then 'renewed' else s.status end,
              {{ template "renew_row" . }}, s.id, null::timestamptz, v_ended
          into v_result
          from {{ .schema }}."{{ .prefix }}_successor"(coalesce(p_for, p_id), p_subject) as s
          left join {{ .table }} as t on t.id = s.id;
        return v_result;
{{- end }}
{{- define "renew_row" -}}
t.subject, t.data, t.codec, t.created_at, t.expires_at, t.absolute_expires_at,
              date_part('epoch', t.idle_timeout), t.version, {{ template "partial/columns_json.sql" . }}
{{- end -}}
