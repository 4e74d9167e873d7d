{{- /* The promoted columns of the row t as a JSON text of texts and nulls. to_jsonb writes dates and
       numbers the same under every DateStyle and TimeZone; arrays keep PostgreSQL's own form. */ -}}
{{- if .columns -}}
jsonb_build_object(
            {{- range $i, $c := .columns }}{{ if $i }},{{ end }}
            {{ $c.key }}, {{ if $c.array }}t.{{ $c.ident }}::text{{ else }}to_jsonb(t.{{ $c.ident }}) #>> '{}'{{ end }}
            {{- end }}
        )::text
{{- else -}}
null::text
{{- end -}}
