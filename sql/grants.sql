-- EXECUTE for those who were named, and for nobody by default; and nobody reads the view by default.
do {{ .body }}
declare
    v_existing pg_catalog.text[] := pg_catalog.string_to_array(pg_catalog.current_setting('pgsession.existing', true), ',');
    v_object   pg_catalog.text;
    v_grantee  pg_catalog.oid;
begin
    for v_object, v_grantee in
        select pg_catalog.format('routine %s', p.oid::pg_catalog.regprocedure), a.grantee
          from pg_catalog.pg_proc as p
          join pg_catalog.pg_namespace as n on n.oid operator(pg_catalog.=) p.pronamespace
         cross join lateral pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) as a
         where n.nspname operator(pg_catalog.=) {{ .lit }}{{ .raw_schema }}{{ .lit }}::pg_catalog.name
           and p.proname operator(pg_catalog.=) any ({{ template "partial/function_names.sql" . }})
           and a.grantee operator(pg_catalog.<>) p.proowner
           and (a.grantee operator(pg_catalog.=) 0::pg_catalog.oid
                or p.oid::pg_catalog.text operator(pg_catalog.<>) all (v_existing))
        union
        select pg_catalog.format('table %s', c.oid::pg_catalog.regclass), a.grantee
          from pg_catalog.pg_class as c
          join pg_catalog.pg_namespace as n on n.oid operator(pg_catalog.=) c.relnamespace
         cross join lateral pg_catalog.aclexplode(c.relacl) as a
         where n.nspname operator(pg_catalog.=) {{ .lit }}{{ .raw_schema }}{{ .lit }}::pg_catalog.name
           and a.grantee operator(pg_catalog.<>) c.relowner
           and (c.relname operator(pg_catalog.=) {{ .lit }}{{ .raw_table }}_schema_version{{ .lit }}::pg_catalog.name
                or c.relname operator(pg_catalog.=) {{ .lit }}{{ .raw_table }}_view{{ .lit }}::pg_catalog.name
                   and c.oid::pg_catalog.text operator(pg_catalog.<>) all (v_existing))
    loop
        execute pg_catalog.format(
            'revoke all on %s from %s', v_object,
            case when v_grantee operator(pg_catalog.=) 0::pg_catalog.oid then 'public'
                 else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(v_grantee)::pg_catalog.text) end);
    end loop;
end
{{ .body }};
{{- define "grant" }}
grant usage on schema {{ .d.schema }} to {{ .role }};
{{- range .functions }}
grant execute on routine {{ $.d.schema }}."{{ $.d.prefix }}_{{ . }}" to {{ $.role }};
{{- end }}
{{- end }}
{{- with .app_role }}
{{- template "grant" (dict "d" $ "role" . "functions" $.app_functions) }}
{{- end }}
{{- with .admin_role }}
{{- template "grant" (dict "d" $ "role" . "functions" $.admin_functions) }}
grant select on {{ $.schema }}."{{ $.prefix }}_view" to {{ . }};
{{- end }}
