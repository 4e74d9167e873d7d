{{- $schema := .schema | default "pgsession" -}}
{{- $table := .table | default "session" -}}
{{- $s := $schema | replace "\"" "\"\"" | printf "\"%s\"" -}}
{{- $t := $table | replace "\"" "\"\"" -}}
{{- $hash := printf "%s.%s" $schema $table | sha256sum | trunc 12 -}}
{{- $body := printf "$b%s$" $hash -}}
{{- $lit := printf "$l%s$" $hash -}}
-- What the last prune did, whoever ran it: README, "Cleanup". One row, written once by each run.
{{- with .owner }}

set local role "{{ replace "\"" "\"\"" . }}";
{{- end }}

do {{ $body }}
declare
    v_grantee pg_catalog.oid;
begin
    -- A restored one is as good.
    if pg_catalog.to_regclass({{ $lit }}{{ $s }}."{{ $t }}_cleanup"{{ $lit }}) is not null then
        return;
    end if;
    create table {{ $s }}."{{ $t }}_cleanup" (
        one         pg_catalog.bool not null default true,
        ran_at      pg_catalog.timestamptz, -- when the last run came to its end
        ran_deleted pg_catalog.int8,        -- rows that it deleted
        deleted     pg_catalog.int8 not null default 0, -- rows that all runs did
        job         pg_catalog.text,        -- the job of pg_cron that the library scheduled
        job_role    pg_catalog.text,        -- whose it is
        job_period  pg_catalog.interval,    -- between two of its runs
        job_at      pg_catalog.timestamptz, -- when <table>_prune_all last came to its end, or the job was scheduled
        hooked_at   pg_catalog.timestamptz, -- when one with a hook last began or claimed sessions, to the hour
        kept        pg_catalog.int8,        -- rows that a run could not delete, when there last were any
        kept_at     pg_catalog.timestamptz,
        reason      pg_catalog.text,        -- the first one's
        keeping     pg_catalog.bool,        -- whether that run is the last one that began
        constraint "{{ $t }}_cleanup_pkey" primary key (one),
        constraint "{{ $t }}_cleanup_check" check (one)
    );
    insert into {{ $s }}."{{ $t }}_cleanup" (one) values (true);

    -- ALTER DEFAULT PRIVILEGES may have opened the new table to others.
    for v_grantee in
        select distinct a.grantee
          from pg_catalog.pg_class as c
         cross join lateral pg_catalog.aclexplode(c.relacl) as a
         where c.oid operator(pg_catalog.=) {{ $lit }}{{ $s }}."{{ $t }}_cleanup"{{ $lit }}::pg_catalog.regclass
           and a.grantee operator(pg_catalog.<>) c.relowner
    loop
        execute pg_catalog.format(
            'revoke all on table %s from %s',
            {{ $lit }}{{ $s }}."{{ $t }}_cleanup"{{ $lit }},
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
drop table "{{ $schema | replace "\"" "\"\"" }}"."{{ $table | replace "\"" "\"\"" }}_cleanup";
