{{- /* Names arrive raw in .schema, .table and .owner, and are quoted here, so that any name works.
       $body and $lit are dollar quotes that no name can contain: they carry the names' own hash. */ -}}
{{- $schema := .schema | default "pgsession" -}}
{{- $table := .table | default "session" -}}
{{- $s := $schema | replace "\"" "\"\"" | printf "\"%s\"" -}}
{{- $t := $table | replace "\"" "\"\"" -}}
{{- $hash := printf "%s.%s" $schema $table | sha256sum | trunc 12 -}}
{{- $body := printf "$b%s$" $hash -}}
{{- $lit := printf "$l%s$" $hash -}}
-- The table of sessions. Why it is as it is: README, "The table".
--
-- Columns of eight bytes come first, so that no row pays for alignment.

do {{ $body }}
begin
    -- CREATE SCHEMA IF NOT EXISTS demands the right to create one even where it exists.
    if pg_catalog.to_regnamespace(pg_catalog.quote_ident({{ $lit }}{{ $schema }}{{ $lit }})) is null then
        create schema {{ $s }}{{ with .owner }} authorization "{{ replace "\"" "\"\"" . }}"{{ end }};
    end if;
end
{{ $body }};
{{- with .owner }}

set local role "{{ replace "\"" "\"\"" . }}";
{{- end }}

create {{ if eq (.unlogged | default false | toString) "true" }}unlogged {{ end }}table {{ $s }}."{{ $t }}" (
    version             pg_catalog.int8        not null,
    created_at          pg_catalog.timestamptz not null,
    expires_at          pg_catalog.timestamptz not null,
    absolute_expires_at pg_catalog.timestamptz,
    prune_after         pg_catalog.timestamptz not null,
    revoked_at          pg_catalog.timestamptz,
    idle_timeout        pg_catalog.interval,
    codec               pg_catalog.int2        not null,
    id                  pg_catalog.text collate pg_catalog."C" not null,
    subject             pg_catalog.text collate pg_catalog."C",
    renewed_to          pg_catalog.text collate pg_catalog."C",
    data                pg_catalog.bytea,
    constraint "{{ $t }}_pkey" primary key (id),
    constraint "{{ $t }}_data_check" check (data is not null or revoked_at is not null),
    -- Arithmetic on infinity is an error before PostgreSQL 17: one such row would fail every list.
    constraint "{{ $t }}_finite_check" check (
        pg_catalog.isfinite(created_at) and pg_catalog.isfinite(expires_at) and pg_catalog.isfinite(prune_after)
        and pg_catalog.isfinite(absolute_expires_at)
        and version operator(pg_catalog.>) 0::pg_catalog.int8 -- which means "any" to set
    )
)
with (
    -- A touch must find room on its own page (HOT); below 90 the room is only wasted.
    fillfactor = 90,
    -- Sessions die all day long: vacuum by share of the table, and well before the default 20 %.
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.05,
    -- Truncation takes an ACCESS EXCLUSIVE lock, for pages that the next login needs again.
    vacuum_truncate = off,
    toast.autovacuum_vacuum_scale_factor = 0.05,
    toast.autovacuum_vacuum_threshold = 1000,
    toast.vacuum_truncate = off
);

-- The only indexed deadline, and one that no touch writes.
create index "{{ $t }}_prune_after_idx" on {{ $s }}."{{ $t }}" (prune_after);

-- With the id, so that a page of a subject's sessions, and a batch to be ended, need no sort of them all.
create index "{{ $t }}_subject_idx" on {{ $s }}."{{ $t }}" (subject, id)
    where subject is not null and revoked_at is null;

-- From a session to the id that it had before, for a login in place: tombstones of renewals, and nothing else.
create index "{{ $t }}_renewed_to_idx" on {{ $s }}."{{ $t }}" (renewed_to) where renewed_to is not null;

do {{ $body }}
declare
    v_grantee pg_catalog.oid;
begin
    -- ALTER DEFAULT PRIVILEGES may have opened the new table to others.
    for v_grantee in
        select distinct a.grantee
          from pg_catalog.pg_class as c
         cross join lateral pg_catalog.aclexplode(c.relacl) as a
         where c.oid operator(pg_catalog.=) {{ $lit }}{{ $s }}."{{ $t }}"{{ $lit }}::pg_catalog.regclass
           and a.grantee operator(pg_catalog.<>) c.relowner
    loop
        execute pg_catalog.format(
            'revoke all on table %s from %s',
            {{ $lit }}{{ $s }}."{{ $t }}"{{ $lit }},
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
drop table "{{ $schema | replace "\"" "\"\"" }}"."{{ $table | replace "\"" "\"\"" }}" cascade;
