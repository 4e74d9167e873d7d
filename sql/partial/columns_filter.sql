{{- /* Keeps the rows of t whose promoted columns equal the values of v_columns. json has no equality. */ -}}
{{- range .columns }}
       and (not v_columns ? {{ .key }}
            {{- if .comparable }}
            or t.{{ .ident }} is not distinct from (v_columns ->> {{ .key }})::{{ .type }})
            {{- else }}
            or t.{{ .ident }}::text is not distinct from ((v_columns ->> {{ .key }})::{{ .type }})::text)
            {{- end }}
{{- end -}}
