{{- /* The promoted columns of the row t as a JSON text of texts and nulls. inet's cast to text adds a
       netmask that its output function, which format calls, does not. A function takes at most 100
       arguments. */ -}}
{{- if .columns -}}
(
            {{- range $i, $chunk := chunk 40 .columns }}{{ if $i }} ||{{ end }} jsonb_build_object(
            {{- range $j, $c := $chunk }}{{ if $j }},{{ end }}
            {{ $c.key }},
            {{- if $c.inet }} case when t.{{ $c.ident }} is not null then format('%s', t.{{ $c.ident }}) end
            {{- else }} t.{{ $c.ident }}::text{{ end }}
            {{- end }}
        )
        {{- end }})::text
{{- else -}}
null::text
{{- end -}}
