{{- /* The array .ids, and what its sessions were renewed to; or, with .ends, the last of each alone. */ -}}
array(
            with recursive named (id) as (
                select n.id collate "C" from unnest({{ .ids }}) as n(id)
                 union
                select t.renewed_to
                  from named as n
                  join {{ .table }} as t on t.id = n.id
                 where t.renewed_to is not null
            )
            select n.id
              from named as n
            {{- if .ends }}
             where not exists (select from {{ .table }} as t where t.id = n.id and t.renewed_to is not null)
            {{- end }})