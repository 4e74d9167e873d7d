-- <table>_beat(...) is how a listener knows that it hears: it returns a nonce that will be published
-- later. Hearing it proves that every notification committed before the call was heard, since
-- notifications are heard in the order of their commits. One who stops hearing what it asked for
-- must take it that it hears nothing.
--
-- The nonce is shared: all who call get the one that is published next, by whoever calls when the
-- last publication is p_interval ago. It is unknown to those who merely listen.
--
-- arguments  p_interval: seconds between two publications
--            p_async: as <table>_notify's
-- result     nonce: it comes as {"v":1,"beat":"..."}, maybe before this call has returned
--            server: the start time of the server, which is to be compared with that of the server
--            that is listened to
-- locks      the row of <table>_beat, by the one who publishes; nothing is waited for
-- notifies   the nonce, if its time has come
create or replace function {{ .schema }}."{{ .prefix }}_beat"(
    p_interval float8 default 1,
    p_async    bool   default false,
    out nonce  text,
    out server timestamptz
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as {{ .body }}
#variable_conflict use_variable
declare
    v_age    float8; -- of the last publication, in seconds
    v_shared bool;
begin
    -- What most calls do is one statement and one expression: every instance does it every second or so.
    -- A snapshot older than the call may show a nonce that was published before it.
    select b.nonce, pg_postmaster_start_time(), date_part('epoch', clock_timestamp() - b.at),
           current_setting('transaction_isolation') = 'read committed'
      into nonce, server, v_age, v_shared
      from {{ .beat_table }} as b;
    -- Negative: the clock was set back.
    if v_shared and v_age >= 0 and v_age < p_interval then
        return;
    end if;

    if current_setting('transaction_isolation') = 'read committed' then
        if p_async then
            perform set_config('synchronous_commit', 'off', true);
        end if;
        update {{ .beat_table }} as b
           set n = b.n + 1, at = clock_timestamp(), nonce = gen_random_uuid()::text
         where b.one = (
               select c.one
                 from {{ .beat_table }} as c
                where c.nonce = nonce
                  for no key update skip locked);
        if found then
            perform pg_notify({{ .channel }}, '{"v":1,"beat":"' || nonce || '"}');
            return;
        elsif v_age >= 0 and v_age < 2 * p_interval
              or not exists (select from {{ .beat_table }} as b where b.nonce = nonce) and v_age is not null then
            -- Another one publishes it, or just did: after our snapshot, which is all that counts.
            return;
        elsif v_age is null then
            insert into {{ .beat_table }} (n, at, nonce)
            values (0, clock_timestamp(), gen_random_uuid()::text)
                on conflict do nothing;
        end if;
    end if;
    -- Nobody else will: whoever holds the row may be frozen. A nonce for this call alone.
    server := pg_postmaster_start_time();
    nonce := gen_random_uuid()::text;
    perform pg_notify({{ .channel }}, '{"v":1,"beat":"' || nonce || '"}');
end
{{ .body }};
