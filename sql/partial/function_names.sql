{{- /* An array of the names of all functions. */ -}}
array[{{ range $i, $f := .functions }}{{ if $i }}, {{ end }}{{ $.lit }}{{ $.raw_table }}_{{ $f }}{{ $.lit }}{{ end }}]::pg_catalog.name[]