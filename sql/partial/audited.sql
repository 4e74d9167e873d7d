{{- /* Whether events are recorded. It is the table's setting, and no argument: what calls a function cannot
       evade it, in whatever language. */ -}}
exists (select from {{ .audit_table }} as a where a.one and a.audited)