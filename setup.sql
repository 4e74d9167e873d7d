{{- /* Everything that Setup does, as one statement; a text/template that setup.go renders. .Tag makes a
       dollar quote that nothing within contains, and literal quotes a string. */ -}}
do {{ .Tag "setup" }}
declare
    v_lock_timeout pg_catalog.text := pg_catalog.current_setting('lock_timeout');
    v_search_path  pg_catalog.text := pg_catalog.current_setting('search_path');
    v_caller       pg_catalog.text := pg_catalog.current_setting('role');
    v_owner        pg_catalog.text := {{ literal .Owner }};
    v_migration    pg_catalog.int4;
    v_functions    pg_catalog.int4;
    v_columns      pg_catalog.text;
    v_object       pg_catalog.text;
    v_kind         pg_catalog.text;
    v_object_owner pg_catalog.name;
    v_adopted      pg_catalog.text;
begin
    -- Settings are put back at the end: this may be a part of the caller's transaction.
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    perform pg_catalog.set_config('lock_timeout', '2s', true);
    -- tern's own lock. It is one for the database: two stores may create the same schema.
    perform pg_advisory_xact_lock({{ .Lock }});

    -- First: what is handed over below runs as this role, and is called.
    if v_owner <> '' and exists (select from pg_namespace as n where n.nspname = {{ literal .Schema }})
       and not (has_schema_privilege(v_owner, {{ literal .Schema }}, 'usage')
                and has_schema_privilege(v_owner, {{ literal .Schema }}, 'create')) then
        execute format('grant usage, create on schema %I to %I', {{ literal .Schema }}, v_owner);
    end if;

    -- Nothing of a stranger's is called or adopted: who may create in the schema could have put it there
    -- to be run with our rights.
    for v_object, v_kind, v_object_owner in
        select c.oid::regclass::text, case c.relkind when 'c' then 'type' else 'table' end, r.rolname
          from pg_class as c
          join pg_namespace as n on n.oid = c.relnamespace
          join pg_roles as r on r.oid = c.relowner
         where n.nspname = {{ literal .Schema }}
           and c.relname in ({{ literal .Name }}, {{ literal (print .Name "_view") }}, {{ literal (print .Name "_result") }},
                             {{ literal (print .Name "_schema_version") }}, {{ literal (print .Name "_beat") }},
                             {{ literal (print .Name "_cleanup") }}, {{ literal (print .Name "_audit") }},
                             {{ literal (print .Name "_events") }})
        union all
        select p.oid::regprocedure::text, 'routine', r.rolname
          from pg_proc as p
          join pg_namespace as n on n.oid = p.pronamespace
          join pg_roles as r on r.oid = p.proowner
         where n.nspname = {{ literal .Schema }}
           and p.proname in ({{ range $i, $f := .FunctionNames }}{{ if $i }}, {{ end }}{{ literal (print $.Name "_" $f) }}{{ end }})
    loop
        if v_object_owner not in (v_owner, current_user) and not exists (
            select
              from pg_roles as r
             where r.rolname = v_object_owner
               and (r.rolsuper or r.oid = (select n.nspowner from pg_namespace as n where n.nspname = {{ literal .Schema }}))
        ) then
            raise exception using
                errcode = 'insufficient_privilege',
                message = format('%s is owned by %I; if that role is the store''s, name it in Config.Owner',
                                 v_object, v_object_owner);
        elsif v_owner <> '' and v_object_owner <> v_owner then
            execute format('alter %s %s owner to %I', v_kind, v_object, v_owner);
        elsif v_owner = '' and v_object_owner <> current_user and v_object = to_regclass({{ literal .Table }})::text then
            v_adopted := v_object_owner; -- one owner for all
        end if;
    end loop;
    v_owner := coalesce(nullif(v_owner, ''), v_adopted);

    -- What is there now: another Setup may have been faster.
    if to_regclass({{ literal .Table }}) is null then
        v_migration := 0;
    else
        if to_regclass({{ literal .VersionName }}) is not null then
            execute {{ literal (print "select v.version from " .VersionName " as v") }} into v_migration;
        end if;
        -- A table without a record, as after a partial restore, was found to have the right columns.
        v_migration := greatest(v_migration, 1);
        if to_regclass({{ literal .BeatName }}) is null then
            v_migration := 1;
        elsif to_regclass({{ literal .CleanupName }}) is null then
            v_migration := least(v_migration, 2);
        elsif to_regclass({{ literal .AuditName }}) is null or to_regclass({{ literal .EventsName }}) is null then
            v_migration := least(v_migration, 3);
        end if;
    end if;
    if to_regprocedure({{ literal (print .VersionName "()") }}) is not null then
        execute {{ literal (print "select r.functions, r.columns from " .VersionName "() as r") }}
           into v_functions, v_columns;
    end if;
    if v_columns not in ({{ literal .ColumnsBefore }}, {{ literal .Columns }}) then
        raise exception using
            errcode = {{ literal .ColumnsChanged }},
            message = format('the installed functions know other promoted columns: %s', v_columns),
            hint = 'Run Setup, or make this script with those columns in Config.Columns too.';
    end if;
{{ range $i, $migration := .Migrations }}
    if v_migration < {{ $.Number $i }} then
        execute {{ $.Tag "migration" }}
{{ $migration }}
{{ $.Tag "migration" }};
    end if;
    if v_owner <> '' then
        perform set_config('role', v_owner, true); -- a migration may have put it back
    end if;
{{ end }}
    if to_regclass({{ literal .VersionName }}) is null then
        create table {{ .VersionName }} (version int4 not null primary key);
        revoke all on table {{ .VersionName }} from public;
        insert into {{ .VersionName }} (version) values ({{ len .Migrations }});
    else
        update {{ .VersionName }} as v set version = {{ len .Migrations }} where v.version < {{ len .Migrations }};
    end if;

    -- Newer functions stay: they serve an older program too.
    if coalesce(v_functions, 0) <= {{ .FunctionsVersion }} then
        execute {{ .Tag "functions" }}
{{ .Functions }}
{{ .Tag "functions" }};
    end if;
{{- with .Audit }}
    if v_owner <> '' then
        perform set_config('role', v_owner, true); -- the functions may have put it back
    end if;
    execute {{ literal . }};
{{- end }}

    perform set_config('role', v_caller, true);
    perform set_config('lock_timeout', v_lock_timeout, true);
    perform set_config('search_path', v_search_path, true);
end
{{ .Tag "setup" -}}
