{{- /* What a promoted column's text depends on. Only functions that read or write such a column pay. */ -}}
{{- if .styles }}
set datestyle = 'ISO, YMD'
set intervalstyle = 'postgres'
set timezone = 'UTC'
set bytea_output = 'hex'
set extra_float_digits = 1
set array_nulls = on
{{- end -}}
