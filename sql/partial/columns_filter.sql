{{- /* Keeps the rows of t whose promoted columns equal the values of v_values. json has no equality. */ -}}
{{- range .columns }}
       and (not v_values ? {{ .key }}
            {{- if .comparable }}
            or t.{{ .ident }} is not distinct from (v_values ->> {{ .key }})::{{ .type }})
            {{- else }}
            or t.{{ .ident }}::text is not distinct from ((v_values ->> {{ .key }})::{{ .type }})::text)
            {{- end }}
{{- end -}}
