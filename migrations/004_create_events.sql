{{- $schema := .schema | default "pgsession" -}}
{{- $table := .table | default "session" -}}
{{- $s := $schema | replace "\"" "\"\"" | printf "\"%s\"" -}}
{{- $t := $table | replace "\"" "\"\"" -}}
{{- $hash := printf "%s.%s" $schema $table | sha256sum | trunc 12 -}}
{{- $body := printf "$b%s$" $hash -}}
{{- $lit := printf "$l%s$" $hash -}}
-- What happened to sessions, where that is recorded, and whether it is: README, "Audit". Logged also
-- where the table of sessions is not: what is lost in a crash has happened nevertheless.
{{- with .owner }}

set local role "{{ replace "\"" "\"\"" . }}";
{{- end }}

do {{ $body }}
declare
    v_object  pg_catalog.text;
    v_grantee pg_catalog.oid;
begin
    -- Restored ones are as good.
    if pg_catalog.to_regclass({{ $lit }}{{ $s }}."{{ $t }}_audit"{{ $lit }}) is null then
        create table {{ $s }}."{{ $t }}_audit" (
            one       pg_catalog.bool not null default true,
            audited   pg_catalog.bool not null, -- whether events are recorded
            retention pg_catalog.interval,      -- how long they stay; null: for ever
            constraint "{{ $t }}_audit_pkey" primary key (one),
            constraint "{{ $t }}_audit_check" check (one)
        );
    end if;
    if pg_catalog.to_regclass({{ $lit }}{{ $s }}."{{ $t }}_events"{{ $lit }}) is null then
        create table {{ $s }}."{{ $t }}_events" (
            at         pg_catalog.timestamptz not null default pg_catalog.clock_timestamp(),
            seq        pg_catalog.int8        not null generated always as identity,
            expired_at pg_catalog.timestamptz, -- of 'expired', which is recorded later than it happens
            sessions   pg_catalog.int8,        -- how many, where it is not about one
            kind       pg_catalog.text collate pg_catalog."C" not null,
            id         pg_catalog.text collate pg_catalog."C",
            successor  pg_catalog.text collate pg_catalog."C", -- what it was renewed to
            subject    pg_catalog.text collate pg_catalog."C",
            actor      pg_catalog.text,        -- by whom, and why, as the caller says
            reason     pg_catalog.text,
            constraint "{{ $t }}_events_pkey" primary key (at, seq)
        );
        create index "{{ $t }}_events_id_idx" on {{ $s }}."{{ $t }}_events" (id, at, seq);
        create index "{{ $t }}_events_sub_idx" on {{ $s }}."{{ $t }}_events" (subject, at, seq)
            where subject is not null;
    end if;

    -- ALTER DEFAULT PRIVILEGES may have opened the new objects to others.
    for v_object, v_grantee in
        select distinct
               case when c.relkind operator(pg_catalog.=) 'S'::pg_catalog."char" then 'sequence ' else 'table ' end
                   operator(pg_catalog.||) c.oid::pg_catalog.regclass::pg_catalog.text,
               a.grantee
          from pg_catalog.pg_class as c
         cross join lateral pg_catalog.aclexplode(c.relacl) as a
         where c.oid operator(pg_catalog.=) any (array[
                   {{ $lit }}{{ $s }}."{{ $t }}_audit"{{ $lit }}::pg_catalog.regclass,
                   {{ $lit }}{{ $s }}."{{ $t }}_events"{{ $lit }}::pg_catalog.regclass,
                   pg_catalog.pg_get_serial_sequence({{ $lit }}{{ $s }}."{{ $t }}_events"{{ $lit }}, 'seq')::pg_catalog.regclass
               ]::pg_catalog.oid[])
           and a.grantee operator(pg_catalog.<>) c.relowner
    loop
        execute pg_catalog.format(
            'revoke all on %s from %s', v_object,
            case when v_grantee operator(pg_catalog.=) 0::pg_catalog.oid then 'public'
                 else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(v_grantee)::pg_catalog.text) end);
    end loop;
end
{{ $body }};
{{- with .owner }}

set local role none;
{{- end }}

---- create above / drop below ----
{{ $schema := .schema | default "pgsession" -}}
{{- $table := .table | default "session" -}}
drop table "{{ $schema | replace "\"" "\"\"" }}"."{{ $table | replace "\"" "\"\"" }}_events";
drop table "{{ $schema | replace "\"" "\"\"" }}"."{{ $table | replace "\"" "\"\"" }}_audit";
