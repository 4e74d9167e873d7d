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
--            p_max_per_subject: the most live sessions of p_subject that there may be when this one becomes
--              its: a new one, or another one's; 0: no limit. p_overflow: 'reject', 'evict_oldest' or
--              'evict_idlest'; p_tombstone: as <table>_revoke's, of an evicted one. See <table>_admit
--            p_notify: whether an 'updated' session is notified in this transaction. Where it is false
--              the caller publishes it after the commit, by <table>_notify
--            p_relaxed: whether the transaction may commit with synchronous_commit off, so that a crash may
--              undo it. Only where this statement is all of it; not done where the subject is changed, or sessions
--              are evicted: these are logouts, or may be
-- result     one <table>_result, always. status is
--              'created', 'updated'
--              'touched', 'unchanged'  the content was byte-equal; the deadline was moved, or not
--              'conflict'  another version is there; its content is in the row
--              'missing'   p_version above 0, and no live session
--              'revoked'   it was ended
--              'renewed', 'reused'  it was renewed, and p_id is an old one, in its grace or after it
--              'busy', 'skipped'  the session was locked
--              'full'      p_subject has p_max_per_subject live sessions
--            ended: the sessions that were evicted, as a JSON object of ids and versions
--            server: as get's, for whoever knows that the call is a transaction of its own
-- locks      the subject's advisory lock, shared, and exclusive where a limit may be reached, then the id's advisory
--            lock, then the row; before it, where the subject is changed, the tombstone of its renewal
-- records    'created'; 'expired' of a session in whose place it was; 'evicted', where <table>_audit says so
-- notifies   the id and the version of an 'updated' session, where p_notify is true or its subject was
--            changed; those that were evicted
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
    p_notify                   bool   default true,
    p_max_per_subject          int4   default 0,
    p_overflow                 text   default 'reject',
    p_tombstone                float8 default 300,
    p_relaxed                  bool   default false
)
returns {{ .schema }}."{{ .prefix }}_result"
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
{{- template "partial/styles.sql" . }}
{{ template "partial/plans.sql" . }}
as {{ .body }}
#variable_conflict use_variable
declare
{{- if .columns }}
    v_values     jsonb := coalesce(p_columns, '{}')::jsonb;
{{- end }}
    v_server     timestamptz;
    v_ready      bool;
    v_held       bool; -- null: no
    v_exclusive  bool := false;
    v_admitted   bool := false;
    v_ended      text;
    -- The row as it was read.
    v_now                     timestamptz;
    v_marked                  bool;
    v_same                    bool;
    v_retimed                 bool;
    v_resubjected             bool := false;
    v_revoked_at              timestamptz;
    v_created_at              timestamptz;
    v_old_subject             text;
    v_old_expires_at          timestamptz;
    v_old_version             int8;
    v_renewed_to              text;
    -- The row as it shall be.
    v_status                  text;
    v_subject                 text;
    v_data                    bytea;
    v_codec                   int2;
    v_expires_at              timestamptz;
    v_absolute_expires_at     timestamptz;
    v_idle_timeout            interval;
    v_version                 int8;
    v_columns                 text;
begin
    -- Each statement and each expression of a function is prepared anew in each transaction: they are
    -- few on the path of an ordinary write, and what is rare comes after it.
    if (p_id <> '' and p_data is not null and p_version is not null and p_codec is not null
        and p_lock in ('wait', 'skip', 'fail') and p_notify is not null and p_max_per_subject >= 0
        {{- if not .columns }}
        and (p_columns is null or p_columns::jsonb = '{}')
        {{- end }}
        and greatest(p_idle_timeout, p_absolute_timeout, p_default_idle_timeout, p_default_absolute_timeout, 0)
            <= 3153600000) is not true then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = case
                when p_id is null or p_id = '' then 'p_id is empty'
                when p_data is null then 'p_data is null'
                when p_version is null then 'p_version is null'
                when p_codec is null then 'p_codec is null'
                when p_notify is null then 'p_notify is null'
                when (p_max_per_subject >= 0) is not true then 'p_max_per_subject must be 0 or more'
                when p_lock is null or p_lock not in ('wait', 'skip', 'fail') then 'p_lock is none of wait, skip, fail'
                {{- if not .columns }}
                when p_columns is not null and p_columns::jsonb <> '{}' then 'this store has no promoted columns'
                {{- end }}
                else 'a timeout is more than 100 years' end;
    end if;
{{- if .columns }}
    {{ template "partial/columns_check.sql" . }}
{{- end }}

    -- One way to be anonymous.
    p_subject := nullif(p_subject, '');
    v_server := case when {{ template "partial/cacheable.sql" }}
               then pg_postmaster_start_time() end;
    v_ready := case
        when p_subject is not null
             and (p_max_per_subject > 0
                  or not pg_try_advisory_xact_lock_shared(hashtextextended(p_subject, {{ .subject_seed }}))) then false
        else pg_try_advisory_xact_lock(hashtextextended(p_id, {{ .id_seed }}))
    end;

    for v_attempt in 1 .. 100 loop
        if not v_ready then
            if v_attempt = 1 and p_max_per_subject > 0 and p_subject is not null then
                -- <table>_admit asks again, when it cannot change any more.
                v_exclusive := not exists (
                    select
                      from {{ .table }} as t
                     where t.id = p_id
                       and t.subject = p_subject
                       and t.revoked_at is null
                       and t.expires_at > clock_timestamp());
                -- A login waits for those of its subject in every mode: they are no writes of this session.
                if not (case
                        when v_exclusive then pg_try_advisory_xact_lock(hashtextextended(p_subject, {{ .subject_seed }}))
                        else pg_try_advisory_xact_lock_shared(hashtextextended(p_subject, {{ .subject_seed }})) end)
                   and not {{ .schema }}."{{ .prefix }}_lock"('{}'::text[], p_subject, p_lock_timeout, false, v_exclusive) then
                    v_status := 'busy';
                    exit;
                end if;
                v_ready := pg_try_advisory_xact_lock(hashtextextended(p_id, {{ .id_seed }}));
            end if;
            v_status := case
                when v_ready then null
                when p_lock = 'skip' then 'skipped'
                when p_lock = 'fail' then 'busy'
                when not {{ .schema }}."{{ .prefix }}_lock"(array[p_id], p_subject, p_lock_timeout, false, v_exclusive)
                    then 'busy' end;
            exit when v_status is not null;
        end if;

        -- A statement of its own, after the lock: it sees what was committed while we waited.
        v_now := clock_timestamp();

        -- The ordinary write, in one statement: a live session that nobody marked, changed content,
        -- timeouts and subject as they were. Everything else finds nothing here.
        if p_version >= 0 then
            update {{ .table }} as t
               set version    = {{ .next_version }},
                   expires_at = {{ template "partial/extended.sql" . }},
                   codec      = p_codec::int2,
                   data       = p_data
                   {{- template "set_columns" . }}
             where t.id = p_id
               and t.revoked_at is null
               and t.expires_at > v_now
               and t.xmax = '0'::xid
               and (p_version = 0 or t.version = p_version)
               and t.subject is not distinct from p_subject
               and t.idle_timeout is not distinct from {{ template "set_idle_timeout" . }}
               and t.absolute_expires_at is not distinct from {{ template "set_absolute_expires_at" . }}
               and not (
                   {{ template "set_same" . }})
            returning 'updated', t.created_at, t.expires_at, t.absolute_expires_at, t.idle_timeout, t.version,
                      {{ template "partial/columns_json.sql" . }}
                 into v_status, v_created_at, v_expires_at, v_absolute_expires_at, v_idle_timeout, v_version,
                      v_columns;
            exit when found;
        end if;

        select t.xmax <> '0'::xid, t.revoked_at, t.created_at, t.subject, t.version, t.expires_at, t.renewed_to,
               {{ template "set_same" . }},
               t.subject is distinct from p_subject,
               t.idle_timeout is distinct from {{ template "set_idle_timeout" . }}
                   or t.absolute_expires_at is distinct from {{ template "set_absolute_expires_at" . }},
               {{ template "set_idle_timeout" . }},
               {{ template "set_absolute_expires_at" . }},
               {{ template "partial/extended.sql" . }}
          into v_marked, v_revoked_at, v_created_at, v_old_subject, v_old_version, v_old_expires_at, v_renewed_to,
               v_same, v_resubjected, v_retimed, v_idle_timeout, v_absolute_expires_at, v_expires_at
          from {{ .table }} as t
         where t.id = p_id;

        if v_revoked_at is null and v_old_expires_at > v_now and (v_held is true or not v_marked or v_exclusive)
           and (p_version = 0 or p_version = v_old_version) then
            if v_retimed then
                v_expires_at := coalesce(least(v_now + v_idle_timeout, v_absolute_expires_at), {{ .never }});
            end if;
            if v_resubjected and p_max_per_subject > 0 and p_subject is not null and not v_admitted then
                {{ template "set_admit" . }}
                continue; -- this may have waited, and what is there may have expired
            end if;
            if v_resubjected then
                {{ template "set_disown" . }}
            end if;
            if v_retimed or not v_same then
                update {{ .table }} as t
                   set version             = {{ .next_version }},
                       expires_at          = v_expires_at,
                       absolute_expires_at = v_absolute_expires_at,
                       prune_after         = least(t.prune_after, {{ printf .prune_after "v_expires_at" }}),
                       idle_timeout        = v_idle_timeout,
                       codec               = p_codec::int2,
                       subject             = p_subject,
                       data                = p_data
                       {{- template "set_columns" . }}
                 where t.id = p_id
                   and t.version = v_old_version
                returning 'updated', t.version, {{ template "partial/columns_json.sql" . }}
                     into v_status, v_version, v_columns;
            elsif v_expires_at - v_old_expires_at < greatest(
                      coalesce(make_interval(secs => p_touch_interval), v_idle_timeout / 20), '1 microsecond') then
                v_expires_at := v_old_expires_at;
                select 'unchanged', t.version, {{ template "partial/columns_json.sql" . }}
                  into v_status, v_version, v_columns
                  from {{ .table }} as t
                 where t.id = p_id
                   and t.version = v_old_version;
            else
                update {{ .table }} as t
                   set expires_at = v_expires_at
                 where t.id = p_id
                   and t.version = v_old_version
                returning 'touched', t.version, {{ template "partial/columns_json.sql" . }}
                     into v_status, v_version, v_columns;
            end if;

        elsif v_marked and v_held is not true and not v_exclusive then
            -- Bulk operations take no advisory locks by id, but leave their mark in the row. Only then is
            -- it worth the WAL records to try the row's lock first; one that comes between the read and the
            -- write above changes the version, and we begin again. At a login under a limit <table>_admit
            -- locks it, in order with the rows of those that it evicts.
            if v_resubjected then -- <table>_disown locks rows, and that after this one
                perform from {{ .table }} as t where t.id = p_id for no key update skip locked;
                v_held := found;
            else
                {{ template "partial/probe.sql" . }}
            end if;
            v_ready := v_held;

        elsif v_revoked_at is not null then
            v_status := case
                when v_renewed_to is null then 'revoked'
                when v_old_expires_at > v_now then 'renewed'
                else 'reused' end;
            v_version := v_old_version;

        elsif v_old_expires_at > v_now then
            select 'conflict', t.subject, t.data, t.codec, t.idle_timeout, t.expires_at, t.absolute_expires_at,
                   t.version, {{ template "partial/columns_json.sql" . }}
              into v_status, v_subject, v_data, v_codec, v_idle_timeout, v_expires_at, v_absolute_expires_at,
                   v_version, v_columns
              from {{ .table }} as t
             where t.id = p_id
               and t.version = v_old_version;

        elsif p_version > 0 then
            v_status := 'missing';

        else
            if p_max_per_subject > 0 and p_subject is not null and not v_admitted then
                {{ template "set_admit" . }}
                v_now := clock_timestamp();
            end if;
            if v_resubjected then
                {{ template "set_disown" . }}
            end if;
            v_created_at := v_now;
            v_idle_timeout := case
                when coalesce(p_idle_timeout, p_default_idle_timeout) >= 0
                    then make_interval(secs => coalesce(p_idle_timeout, p_default_idle_timeout)) end;
            v_absolute_expires_at := case
                when coalesce(p_absolute_timeout, p_default_absolute_timeout) >= 0
                    then v_now + make_interval(secs => coalesce(p_absolute_timeout, p_default_absolute_timeout)) end;
            v_expires_at := coalesce(least(v_now + v_idle_timeout, v_absolute_expires_at), {{ .never }});
            if v_old_version is null then
                insert into {{ .table }} as t (
                    version, created_at, expires_at, absolute_expires_at, prune_after, idle_timeout,
                    codec, id, subject, data
                    {{- range .columns }}, {{ .ident }}{{ end }}
                )
                values (
                    floor(date_part('epoch', v_now) * 1000000)::int8, v_created_at, v_expires_at, v_absolute_expires_at,
                    {{ printf .prune_after "v_expires_at" }}, v_idle_timeout,
                    p_codec::int2, p_id, p_subject, p_data
                    {{- range .columns }}, (v_values ->> {{ .key }})::{{ .type }}{{ end }}
                )
                -- One that was committed after a snapshot of long ago: a serialization failure, by this.
                on conflict (id) do nothing
                returning 'created', t.version, {{ template "partial/columns_json.sql" . }}
                     into v_status, v_version, v_columns;
            else
                -- In place of an expired session its version goes on, so that no cache, and no writer that
                -- still holds the old session, can take the new one for it.
                update {{ .table }} as t
                   set version             = {{ .next_version }},
                       created_at          = v_created_at,
                       expires_at          = v_expires_at,
                       absolute_expires_at = v_absolute_expires_at,
                       prune_after         = {{ printf .prune_after "v_expires_at" }},
                       idle_timeout        = v_idle_timeout,
                       codec               = p_codec::int2,
                       subject             = p_subject,
                       data                = p_data
                       {{- range .columns }},
                       {{ .ident }} = (v_values ->> {{ .key }})::{{ .type }}{{ end }}
                 where t.id = p_id
                   and t.version = v_old_version
                returning 'created', t.version, {{ template "partial/columns_json.sql" . }}
                     into v_status, v_version, v_columns;
            end if;
            if v_status is not null and {{ template "partial/audited.sql" . }} then
                insert into {{ .events_table }} (kind, id, subject, expired_at)
                select e.kind, p_id, e.subject, e.expired_at
                  from (values ('expired', v_old_subject, v_old_expires_at), ('created', p_subject, null))
                    as e(kind, subject, expired_at)
                 where e.kind = 'created' or v_old_version is not null;
            end if;
        end if;
        exit when v_status is not null;
    end loop;
    if v_status is null then
        {{ template "partial/attempts.sql" }}
    end if;

    if p_relaxed or v_status = 'updated' and (p_notify or v_resubjected) then
        if v_status = 'updated' and (p_notify or v_resubjected) then
            perform {{ .schema }}."{{ .prefix }}_publish"('changed', jsonb_build_object(p_id, v_version));
        end if;
        if p_relaxed and v_ended is null and (v_status <> 'updated' or v_resubjected is not true) then
            -- It holds to the end of the transaction, which is this statement's own.
            perform set_config('synchronous_commit', 'off', true);
        end if;
    end if;
    if v_version is null or v_revoked_at is not null then
        v_created_at := null;
        v_expires_at := null;
        v_absolute_expires_at := null;
        v_idle_timeout := null;
    end if;
    return row(
        v_status, v_subject, v_data, v_codec, v_created_at, v_expires_at, v_absolute_expires_at,
        date_part('epoch', v_idle_timeout), v_version, v_columns, v_renewed_to, v_server, v_ended
    )::{{ .schema }}."{{ .prefix }}_result";
end
{{ .body }};
{{- /* Parts of statements that stand in two. The row is t; v_now is the time. */ -}}
{{- define "set_admit" -}}
select a.status, coalesce(a.ended, v_ended)
                  into v_status, v_ended
                  from {{ .schema }}."{{ .prefix }}_admit"(
                           p_subject, p_id, p_max_per_subject, p_overflow, p_tombstone, p_lock_timeout, false) as a;
                exit when v_status is not null;
                v_admitted := true;
{{- end }}
{{- define "set_disown" -}}
if exists (select from {{ .table }} as t where t.renewed_to = p_id and t.absolute_expires_at is null) then
                    v_status := case when not {{ .schema }}."{{ .prefix }}_disown"(p_id, p_lock_timeout) then 'busy' end;
                    exit when v_status is not null;
                    continue; -- as after <table>_admit
                end if;
{{- end }}
{{- define "set_same" -}}
t.codec = p_codec
                   and t.data = p_data
                   and t.subject is not distinct from p_subject
{{- range .columns }}
                   and (not v_values ? {{ .key }}
                        or t.{{ .ident }}::text is not distinct from ((v_values ->> {{ .key }})::{{ .type }})::text)
{{- end }}
{{- end }}
{{- define "set_idle_timeout" -}}
case
                   when p_idle_timeout is null then t.idle_timeout
                   when p_idle_timeout >= 0 then make_interval(secs => p_idle_timeout) end
{{- end }}
{{- define "set_absolute_expires_at" -}}
case
                   when p_absolute_timeout is null then t.absolute_expires_at
                   when p_absolute_timeout >= 0 then t.created_at + make_interval(secs => p_absolute_timeout) end
{{- end }}
{{- define "set_columns" -}}
{{- range .columns }},
                       {{ .ident }} = case when v_values ? {{ .key }} then (v_values ->> {{ .key }})::{{ .type }} else t.{{ .ident }} end{{ end }}
{{- end }}
