-- <table>_events(...) reads one page of what was recorded, the oldest first.
--
-- arguments  p_subject, p_id, p_kind: only events of this subject, session or kind; null: of any. What
--              is about all sessions has neither subject nor id
--            p_since, p_until: only events from p_since on, and before p_until; null: no bound
--            p_after_at, p_after_seq: at and seq of the last event of the page before; null: the first page
--            p_limit: the size of a page
-- result     a row for each event; none: there are no more
--              at, seq: when it was recorded, and what tells apart events of one moment
--              kind: 'created', 'renewed', 'destroyed', 'revoked', 'evicted' (for <table>_set's limit),
--              'cleared', 'expired' or 'reused'
--              id: the session's; where it was renewed, the one that it had
--              successor: what it was renewed to, of 'renewed' and 'reused'
--              subject: whose it was; of 'renewed', whose it is from then on
--              actor, reason: as <table>_revoke and <table>_clear were told
--              sessions: how many were ended, of 'cleared'
--              expired_at: the deadline, of 'expired', which is recorded when the session is pruned, or gives
--              way to another one, or is destroyed
-- locks      none
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_events"(
    p_subject   text        default null,
    p_id        text        default null,
    p_kind      text        default null,
    p_since     timestamptz default null,
    p_until     timestamptz default null,
    p_after_at  timestamptz default null,
    p_after_seq int8        default null,
    p_limit     int4        default 1000
)
returns table (
    at         timestamptz,
    seq        int8,
    kind       text,
    id         text,
    successor  text,
    subject    text,
    actor      text,
    reason     text,
    sessions   int8,
    expired_at timestamptz
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
-- Each filter has its index, and no plan suits all.
set plan_cache_mode = force_custom_plan
as {{ .body }}
#variable_conflict use_variable
begin
    return query
    select e.at, e.seq, e.kind, e.id, e.successor, e.subject, e.actor, e.reason, e.sessions, e.expired_at
      from {{ .events_table }} as e
     where (p_subject is null or e.subject = p_subject)
       and (p_id is null or e.id = p_id)
       and (p_kind is null or e.kind = p_kind)
       and (p_since is null or e.at >= p_since)
       and (p_until is null or e.at < p_until)
       and (p_after_at is null or (e.at, e.seq) > (p_after_at, p_after_seq))
     order by e.at, e.seq
     limit p_limit;
end
{{ .body }};
