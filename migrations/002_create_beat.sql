{{- $schema := .schema | default "pgsession" -}}
{{- $table := .table | default "session" -}}
{{- $s := $schema | replace "\"" "\"\"" | printf "\"%s\"" -}}
{{- $t := $table | replace "\"" "\"\"" -}}
{{- $hash := printf "%s.%s" $schema $table | sha256sum | trunc 12 -}}
{{- $body := printf "$b%s$" $hash -}}
{{- $lit := printf "$l%s$" $hash -}}
-- The nonce that listeners wait for: README, "Notifications". One row.
{{- with .owner }}

set local role "{{ replace "\"" "\"\"" . }}";
{{- end }}

do {{ $body }}
declare
    v_grantee pg_catalog.oid;
begin
    -- A restored one is as good.
    if pg_catalog.to_regclass({{ $lit }}{{ $s }}."{{ $t }}_beat"{{ $lit }}) is not null then
        return;
    end if;
    create table {{ $s }}."{{ $t }}_beat" (
        one   pg_catalog.bool        not null default true,
        n     pg_catalog.int8        not null, -- how many were published
        at    pg_catalog.timestamptz not null, -- when the last one was
        nonce pg_catalog.text        not null, -- the next one
        constraint "{{ $t }}_beat_pkey" primary key (one),
        constraint "{{ $t }}_beat_one_check" check (one)
    );
    insert into {{ $s }}."{{ $t }}_beat" (n, at, nonce)
    values (0, pg_catalog.clock_timestamp(), pg_catalog.gen_random_uuid()::pg_catalog.text);

    -- ALTER DEFAULT PRIVILEGES may have opened the new table to others.
    for v_grantee in
        select distinct a.grantee
          from pg_catalog.pg_class as c
         cross join lateral pg_catalog.aclexplode(c.relacl) as a
         where c.oid operator(pg_catalog.=) {{ $lit }}{{ $s }}."{{ $t }}_beat"{{ $lit }}::pg_catalog.regclass
           and a.grantee operator(pg_catalog.<>) c.relowner
    loop
        execute pg_catalog.format(
            'revoke all on table %s from %s',
            {{ $lit }}{{ $s }}."{{ $t }}_beat"{{ $lit }},
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
drop table "{{ $schema | replace "\"" "\"\"" }}"."{{ $table | replace "\"" "\"\"" }}_beat";
