{{- /* Keeps the rows of t whose promoted columns equal the values of v_columns. */ -}}
{{- range .columns }}
       and (not v_columns ? {{ .key }}
            or t.{{ .ident }}::text is not distinct from ((v_columns ->> {{ .key }})::{{ .type }})::text)
{{- end -}}
