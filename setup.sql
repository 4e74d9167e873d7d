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
begin
    -- Settings are put back at the end: this may be a part of the caller's transaction.
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    perform pg_catalog.set_config('lock_timeout', '2s', true);
    -- tern's own lock. It is one for the database: two stores may create the same schema.
    perform pg_advisory_xact_lock({{ .Lock }});

    -- What is there now: another Setup may have been faster.
    if to_regprocedure({{ literal (print .VersionName "()") }}) is not null then
        execute {{ literal (print "select r.migration, r.functions, r.columns from " .VersionName "() as r") }}
           into v_migration, v_functions, v_columns;
    end if;
    if v_migration is null and to_regclass({{ literal .VersionName }}) is not null then
        execute {{ literal (print "select v.version from " .VersionName " as v") }} into v_migration;
    end if;
    if coalesce(v_migration, 0) = 0 then
        -- A table without a record, as after a partial restore, was found to have the right columns.
        v_migration := case when to_regclass({{ literal .Table }}) is null then 0 else 1 end;
    end if;
    if v_columns not in ({{ literal .ColumnsBefore }}, {{ literal .Columns }}) then
        raise exception using
            errcode = {{ literal .ColumnsChanged }},
            message = format('the installed functions know other promoted columns: %s', v_columns),
            hint = 'Run Setup, or make this script with those columns in Config.Columns too.';
    end if;

    -- One owner for all: Config.Owner, else whoever owns the table.
    if v_owner = '' then
        select pg_get_userbyid(c.relowner)
          into v_owner
          from pg_class as c
         where c.oid = to_regclass({{ literal .Table }})
           and pg_get_userbyid(c.relowner) <> current_user
           and pg_has_role(c.relowner, 'member');
    end if;
{{ range $i, $migration := .Migrations }}
    if v_migration < {{ $.Number $i }} then
        execute {{ $.Tag "migration" }}
{{ $migration }}
{{ $.Tag "migration" }};
    end if;
{{ end }}
    if v_owner <> '' then
        perform set_config('role', v_owner, true);
    end if;
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

    perform set_config('role', v_caller, true);
    perform set_config('lock_timeout', v_lock_timeout, true);
    perform set_config('search_path', v_search_path, true);
end
{{ .Tag "setup" -}}
