-- <table>_successor(p_id, p_subject) tells what a renewed session's old id still stands for. Those who
-- met a tombstone call it; it is granted to nobody.
--
-- An old id stands for its successor for the grace that the renewal gave it, which is its tombstone's
-- expires_at, and only while whom the session belongs to is the same, and has been ever since: a token that
-- was planted before a login must not come into it, nor into what is left after the logout. Since when
-- it was another one's is the tombstone's absolute_expires_at, which <table>_renew and <table>_disown write.
--
-- arguments  p_id: the id
--            p_subject: a successor of this subject will do too; null: none
-- result     status is
--              'found'    id is the live session: p_id's own, or its successor's, if need be over several renewals
--              'missing'  there is none, or it has expired
--              'revoked'  it was ended
--              'renewed'  it was renewed, and p_id does not stand for it any more
--              'reused'   the same, and p_id's grace is over
-- locks      none
-- notifies   nothing
create or replace function {{ .schema }}."{{ .prefix }}_successor"(
    p_id       text,
    p_subject  text,
    out id     text,
    out status text
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
{{ template "partial/plans.sql" . }}
as {{ .body }}
#variable_conflict use_variable
declare
    v_now        timestamptz := clock_timestamp();
    v_next       text := p_id;
    v_expires_at timestamptz;
    v_revoked_at timestamptz;
    v_renewed_to text;
    v_first      text; -- whom the session belonged to when p_id was renewed
    v_subject    text;
    v_parted_at  timestamptz;
    v_parted     bool := false; -- whether it has been another one's since
begin
    -- A chain has no more links than renewals in one grace; a cycle could only be made by hand.
    for v_link in 0 .. 100 loop
        select t.expires_at, t.revoked_at, t.renewed_to, t.subject, t.absolute_expires_at
          into v_expires_at, v_revoked_at, v_renewed_to, v_subject, v_parted_at
          from {{ .table }} as t
         where t.id = v_next;
        if v_link = 0 then
            v_first := v_subject;
        end if;
        v_parted := v_parted or v_subject is distinct from v_first;
        status := case
            when v_expires_at is null then 'missing'
            when v_revoked_at is null and v_expires_at <= v_now then 'missing'
            when v_revoked_at is not null and v_renewed_to is null then 'revoked'
            when v_revoked_at is not null and v_expires_at <= v_now and v_link = 0 then 'reused'
            when v_revoked_at is not null and v_expires_at <= v_now then 'renewed'
            when v_parted and (v_subject = p_subject) is not true then 'renewed'
            when v_revoked_at is null then 'found' end;
        if status is not null then
            id := case when status = 'found' then v_next end;
            return;
        end if;
        v_parted := v_parted or v_parted_at is not null;
        v_next := v_renewed_to;
    end loop;
    status := 'renewed';
end
{{ .body }};
