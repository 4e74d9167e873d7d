-- <table>_set(p_id, p_data, ...) writes a whole session: creates it, replaces its content, or, where
-- the content is byte-equal, touches it.
--
-- arguments  p_id, p_data, p_codec, p_subject: the session; a null subject is an anonymous one
--            p_columns: a JSON object of promoted columns; absent = keep, null = NULL
--            p_idle_timeout, p_absolute_timeout: seconds, up to 100 years; negative: none; null: keep
--              what the session has, and for a new one p_default_idle_timeout, p_default_absolute_timeout
--            p_touch_interval: seconds by which the deadline must move to be worth a write;
--              null: a twentieth of the idle timeout; negative: never extend
--            p_version: 0: whatever is there; above 0: only that version, and never an insert;
--              below 0: only where there is none
--            p_lock: 'wait' (at most p_lock_timeout seconds; 0: no limit), 'skip' or 'fail'
-- result     one row, always. status is
--              'created', 'updated'
--              'touched', 'unchanged'  the content was byte-equal; the deadline was moved, or not
--              'conflict'  another version is there; its content is in the row
--              'missing'   p_version above 0, and no live session
--              'revoked'   a tombstone; renewed_to is the id that replaced it, if one did
--              'busy', 'skipped'  the session was locked
-- locks      the subject's advisory lock shared, then the id's advisory lock, then the row
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_set"(
    p_id                       text,
    p_data                     bytea,
    p_codec                    int4   default 0,
    p_subject                  text   default null,
    p_columns                  text   default null,
    p_idle_timeout             float8 default null,
    p_absolute_timeout         float8 default null,
    p_default_idle_timeout     float8 default 86400,
    p_default_absolute_timeout float8 default 2592000,
    p_touch_interval           float8 default null,
    p_version                  int8   default 0,
    p_lock                     text   default 'wait',
    p_lock_timeout             float8 default 5,
    out status                 text,
    out subject                text,
    out data                   bytea,
    out codec                  int2,
    out created_at             timestamptz,
    out expires_at             timestamptz,
    out absolute_expires_at    timestamptz,
    out idle_timeout           float8,
    out version                int8,
    out columns                text,
    out renewed_to             text,
    out remaining              float8,
    out cacheable              bool,
    out server                 timestamptz
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
{{- template "partial/styles.sql" . }}
set enable_seqscan = off
as {{ .body }}
#variable_conflict use_variable
declare
    c_never   constant timestamptz := timestamptz '9999-12-31 00:00:00+00';
{{- if .columns }}
    v_columns jsonb := coalesce(p_columns, '{}')::jsonb;
{{- end }}
    v_attempt int4 := 0;
    v_ready   bool;
    v_held    bool := false;
    v_marked  bool;
    v_now     timestamptz;
    v_idle    interval;
    v_same    bool;
    -- The row as it was read.
    v_revoked_at          timestamptz;
    v_expires_at          timestamptz;
    v_absolute_expires_at timestamptz;
    v_idle_timeout        interval;
    v_version             int8;
begin
    if (p_id <> '' and p_data is not null and p_version is not null and p_codec is not null
        and p_lock in ('wait', 'skip', 'fail')
        and greatest(p_idle_timeout, p_absolute_timeout, p_default_idle_timeout, p_default_absolute_timeout, 0)
            <= 3153600000) is not true then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = case
                when p_id is null or p_id = '' then 'p_id is empty'
                when p_data is null then 'p_data is null'
                when p_version is null then 'p_version is null'
                when p_codec is null then 'p_codec is null'
                when p_lock is null or p_lock not in ('wait', 'skip', 'fail') then 'p_lock is none of wait, skip, fail'
                else 'a timeout is more than 100 years' end;
    end if;
{{- if .columns }}
    {{ template "partial/columns_check.sql" . }}
{{- else }}
    if p_columns is not null and p_columns::jsonb <> '{}' then
        raise exception using errcode = 'invalid_parameter_value', message = 'this store has no promoted columns';
    end if;
{{- end }}

    -- One way to be anonymous.
    p_subject := nullif(p_subject, '');
    cacheable := pg_current_xact_id_if_assigned() is null
        and current_setting('transaction_isolation') = 'read committed'
        and not pg_is_in_recovery();
    server := pg_postmaster_start_time();

    v_ready := case
        when p_subject is not null
             and not pg_try_advisory_xact_lock_shared(hashtextextended(p_subject, {{ .subject_seed }})) then false
        else pg_try_advisory_xact_lock(hashtextextended(p_id, {{ .id_seed }}))
    end;
    loop
        {{ template "partial/attempts.sql" }}
        if not v_ready then
            if p_lock = 'skip' then
                status := 'skipped';
                return;
            elsif p_lock = 'fail' or not {{ .schema }}."{{ .prefix }}_lock"(array[p_id], p_subject, p_lock_timeout, false) then
                status := 'busy';
                return;
            end if;
        end if;

        -- A statement of its own, after the lock: it sees what was committed while we waited.
        v_now := clock_timestamp();
        select t.xmax <> '0'::xid, t.revoked_at, t.created_at, t.expires_at, t.absolute_expires_at,
               t.idle_timeout, t.version, t.renewed_to,
               t.codec = p_codec
                   and t.data = p_data
                   and t.subject is not distinct from p_subject
{{- range .columns }}
                   and (not v_columns ? {{ .key }}
                        or t.{{ .ident }}::text is not distinct from ((v_columns ->> {{ .key }})::{{ .type }})::text)
{{- end }}
          into v_marked, v_revoked_at, created_at, v_expires_at, v_absolute_expires_at,
               v_idle_timeout, v_version, renewed_to, v_same
          from {{ .table }} as t
         where t.id = p_id;

        -- Bulk operations take no advisory locks by id, but leave their mark in the row. Only then is
        -- it worth the WAL record to lock the row first; one that comes between here and the write
        -- below changes the version, and we begin again.
        if v_marked and not v_held then
            perform from {{ .table }} as t where t.id = p_id for no key update skip locked;
            v_held := found;
            v_ready := found;
            continue;
        end if;

        if v_revoked_at is not null then
            status := 'revoked';
            created_at := null;
            version := v_version;
            return;
        elsif v_expires_at > v_now then
            if p_version < 0 or (p_version > 0 and p_version <> v_version) then
                status := 'conflict';
                select t.subject, t.data, t.codec, {{ template "partial/columns_json.sql" . }}
                  into subject, data, codec, columns
                  from {{ .table }} as t
                 where t.id = p_id
                   and t.version = v_version;
                if found then
                    v_idle := v_idle_timeout;
                    absolute_expires_at := v_absolute_expires_at;
                    expires_at := v_expires_at;
                    version := v_version;
                    exit;
                end if;
                continue;
            end if;

            v_idle := case
                when p_idle_timeout is null then v_idle_timeout
                when p_idle_timeout >= 0 then make_interval(secs => p_idle_timeout) end;
            absolute_expires_at := case
                when p_absolute_timeout is null then v_absolute_expires_at
                when p_absolute_timeout >= 0 then created_at + make_interval(secs => p_absolute_timeout) end;
            expires_at := coalesce(least(v_now + v_idle, absolute_expires_at), c_never);
            if v_idle is distinct from v_idle_timeout
               or absolute_expires_at is distinct from v_absolute_expires_at then
                v_same := false;
            else
                -- Told nothing else, a set never shortens what a touch extended.
                expires_at := case
                    when p_touch_interval < 0 then v_expires_at
                    else greatest(expires_at, v_expires_at) end;
            end if;

            if not v_same then
                status := 'updated';
                version := greatest(v_version + 1, floor(date_part('epoch', v_now) * 1000000)::int8);
                update {{ .table }} as t
                   set version             = version,
                       expires_at          = expires_at,
                       absolute_expires_at = absolute_expires_at,
                       prune_after         = least(t.prune_after, date_bin('1 minute', expires_at, 'epoch') + '1 minute'),
                       idle_timeout        = v_idle,
                       codec               = p_codec::int2,
                       subject             = p_subject,
                       data                = p_data
                       {{- range .columns }},
                       {{ .ident }} = case when v_columns ? {{ .key }} then (v_columns ->> {{ .key }})::{{ .type }} else t.{{ .ident }} end{{ end }}
                 where t.id = p_id
                   and t.version = v_version
                returning {{ template "partial/columns_json.sql" . }} into columns;
            elsif expires_at <= v_expires_at
                  or expires_at - v_expires_at < coalesce(make_interval(secs => p_touch_interval), v_idle / 20) then
                status := 'unchanged';
                version := v_version;
                expires_at := v_expires_at;
                select {{ template "partial/columns_json.sql" . }} into columns
                  from {{ .table }} as t
                 where t.id = p_id
                   and t.version = v_version;
            else
                status := 'touched';
                version := v_version;
                update {{ .table }} as t
                   set expires_at = expires_at
                 where t.id = p_id
                   and t.version = v_version
                returning {{ template "partial/columns_json.sql" . }} into columns;
            end if;
            exit when found;

        elsif p_version > 0 then
            status := 'missing';
            created_at := null;
            return;

        else
            status := 'created';
            created_at := v_now;
            v_idle := case
                when coalesce(p_idle_timeout, p_default_idle_timeout) >= 0
                    then make_interval(secs => coalesce(p_idle_timeout, p_default_idle_timeout)) end;
            absolute_expires_at := case
                when coalesce(p_absolute_timeout, p_default_absolute_timeout) >= 0
                    then v_now + make_interval(secs => coalesce(p_absolute_timeout, p_default_absolute_timeout)) end;
            expires_at := coalesce(least(v_now + v_idle, absolute_expires_at), c_never);
            -- In place of an expired session its version goes on, so that no cache, and no writer that
            -- still holds the old session, can take the new one for it.
            version := greatest(v_version + 1, floor(date_part('epoch', v_now) * 1000000)::int8);
            if v_version is null then
                insert into {{ .table }} as t (
                    version, created_at, expires_at, absolute_expires_at, prune_after, idle_timeout,
                    codec, id, subject, data
                    {{- range .columns }}, {{ .ident }}{{ end }}
                )
                values (
                    version, created_at, expires_at, absolute_expires_at,
                    date_bin('1 minute', expires_at, 'epoch') + '1 minute', v_idle,
                    p_codec::int2, p_id, p_subject, p_data
                    {{- range .columns }}, (v_columns ->> {{ .key }})::{{ .type }}{{ end }}
                )
                returning {{ template "partial/columns_json.sql" . }} into columns;
            else
                update {{ .table }} as t
                   set version             = version,
                       created_at          = created_at,
                       expires_at          = expires_at,
                       absolute_expires_at = absolute_expires_at,
                       prune_after         = date_bin('1 minute', expires_at, 'epoch') + '1 minute',
                       idle_timeout        = v_idle,
                       codec               = p_codec::int2,
                       subject             = p_subject,
                       data                = p_data
                       {{- range .columns }},
                       {{ .ident }} = (v_columns ->> {{ .key }})::{{ .type }}{{ end }}
                 where t.id = p_id
                   and t.version = v_version
                returning {{ template "partial/columns_json.sql" . }} into columns;
            end if;
            exit when found;
        end if;
    end loop;

    idle_timeout := date_part('epoch', v_idle);
    remaining := date_part('epoch', expires_at - v_now);
end
{{ .body }};
