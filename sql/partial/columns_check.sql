{{- /* Refuses names that are not promoted columns, before anything is read or written. */ -}}
if v_values - array[{{ range $i, $c := .columns }}{{ if $i }}, {{ end }}{{ $c.key }}{{ end }}]::text[] <> '{}' then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('not a promoted column: %s', (
                select string_agg(k.name, ', ' order by k.name)
                  from jsonb_object_keys(v_values - array[{{ range $i, $c := .columns }}{{ if $i }}, {{ end }}{{ $c.key }}{{ end }}]::text[]) as k(name)));
    end if;
