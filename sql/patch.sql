-- <table>_patch(p_id, p_patch, ...) changes a session's data by a JSON merge patch, RFC 7396. The data must
-- be JSON, or empty. It is stored as jsonb writes it: spaces, the order of keys, repeated keys and the
-- notation of numbers are not kept, their values are, to the last digit.
--
-- arguments  p_id, p_patch: the id, and the merge patch
--            p_max_size: the most bytes that the data may have; null: 256 MiB
--            p_touch_interval: as <table>_set's
--            p_lock_timeout: seconds to wait for the session's locks; 0: no limit
--            p_notify, p_relaxed: as <table>_set's
--            p_for: an old id, by which p_id was found: it is patched only while p_for stands for it
-- result     one <table>_result, always. status is
--              'updated'   the session is in the row
--              'touched', 'unchanged'  the same; the patch changed nothing, and the deadline was moved, or not
--              'missing', 'revoked', 'reused', 'busy'  as <table>_set's
--              'renewed'   as <table>_touch's: call again for renewed_to, where it is not null, with the
--                          old id as p_for
--              'opaque'    the data is not JSON by its codec, which is in the row
--              'undecodable'  it is by its codec, but no JSON that jsonb can hold
--              'too_large' the result would have more than p_max_size bytes, with its numbers written out
--            server: as <table>_set's
-- errors     of class 22 p_patch is no JSON that jsonb can hold: it has \u0000, say
-- locks      as <table>_set, if the patch can be applied
-- notifies   as <table>_set
create or replace function {{ .schema }}."{{ .prefix }}_patch"(
    p_id             text,
    p_patch          text,
    p_max_size       int4   default null,
    p_touch_interval float8 default null,
    p_lock_timeout   float8 default 5,
    p_notify         bool   default true,
    p_for            text   default null,
    p_relaxed        bool   default false
)
returns {{ .schema }}."{{ .prefix }}_result"
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as {{ .body }}
#variable_conflict use_variable
declare
    v_patch   jsonb := p_patch::jsonb;
    v_old     {{ .schema }}."{{ .prefix }}_result";
    v_new     {{ .schema }}."{{ .prefix }}_result";
    v_target  jsonb;
    v_merged  jsonb;
    v_data    bytea;
    v_refused text;
    v_number  text;
    v_size    int4;
    -- The limit of jsonb itself, which is below the one of a value.
    v_max_size int4 := least(p_max_size, 268435455);
begin
    if v_patch is null then
        raise exception using errcode = 'invalid_parameter_value', message = 'p_patch is null';
    end if;
    -- Without a lock at first: the write takes it, and where that meets another version it still holds
    -- it for the next attempt.
    for v_attempt in 1 .. 100 loop
        v_old := {{ .schema }}."{{ .prefix }}_get"(coalesce(p_for, p_id));
        v_target := null;
        v_refused := null;
        if v_old.status <> 'found' then
            v_refused := v_old.status;
        elsif v_old.renewed_to is distinct from (case when p_for is not null then p_id end) then
            v_refused := 'renewed';
        elsif octet_length(v_old.data) > 0 and v_old.codec <> 1 or v_old.codec not in (0, 1) then
            v_refused := 'opaque';
        elsif octet_length(v_old.data) > 0 then
            begin
                v_target := convert_from(v_old.data, 'UTF8')::jsonb;
            exception when {{ template "partial/not_json.sql" }} then
                v_refused := 'undecodable';
            end;
        end if;
        if v_refused is null then
            v_merged := {{ .schema }}."{{ .prefix }}_merge"(v_target, v_patch);
            if v_merged = v_target then
                v_data := v_old.data;
            else
                -- jsonb holds 1e100000 in a few bytes and writes it out in as many: it is counted before.
                v_size := 0;
                if convert_from(v_old.data, 'UTF8') || p_patch ~ '[0-9][eE][+-]?[0-9]{2}' then
                    begin
                        for v_number in
                            select n.value #>> '{}'
                              from jsonb_path_query(v_merged, 'strict $.** ? (@.type() == "number")') as n(value)
                        loop
                            v_size := v_size + octet_length(v_number);
                            exit when v_size > v_max_size;
                        end loop;
                    exception
                        when statement_too_complex then -- nested more deeply than can be counted
                            v_size := v_max_size + 1;
                    end;
                end if;
                v_data := case when v_size <= v_max_size then convert_to(v_merged::text, 'UTF8') end;
            end if;
            if v_data is null or octet_length(v_data) > v_max_size then
                v_refused := 'too_large';
            end if;
        end if;
        if v_refused is not null then
            v_new.status := v_refused;
            v_new.renewed_to := case when v_refused = 'renewed' then v_old.renewed_to end;
            v_new.codec := case when v_refused = 'opaque' then v_old.codec end;
            return v_new;
        end if;
        v_new := {{ .schema }}."{{ .prefix }}_set"(
            p_id, v_data, 1, v_old.subject, p_touch_interval => p_touch_interval, p_version => v_old.version,
            p_lock_timeout => p_lock_timeout, p_notify => p_notify, p_relaxed => p_relaxed);
        if v_new.status in ('updated', 'touched', 'unchanged') then
            v_new.subject := v_old.subject;
            v_new.data := v_data;
            v_new.codec := 1;
            return v_new;
        elsif v_new.status not in ('conflict', 'renewed') then
            return v_new;
        end if;
    end loop;
    {{ template "partial/attempts.sql" }}
end
{{ .body }};
