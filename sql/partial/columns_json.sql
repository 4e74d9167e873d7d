{{- /* The promoted columns of the row t as a JSON text of texts and nulls. */ -}}
{{- if .columns -}}
jsonb_build_object(
            {{- range $i, $c := .columns }}{{ if $i }},{{ end }}
            {{ $c.key }}, t.{{ $c.ident }}::text
            {{- end }}
        )::text
{{- else -}}
null::text
{{- end -}}
