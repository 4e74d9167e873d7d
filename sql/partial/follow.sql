{{- /* The array .ids, and what its sessions were renewed to; or, with .ends, the last of each alone. One look at one row
       a link, since a subquery that stands for a value is not made a join: a join may have been planned while there
       was no tombstone yet, and then reads them all for each link. */ -}}
array(
            with recursive named (id, next) as (
                select n.id collate "C", (select t.renewed_to from {{ .table }} as t where t.id = n.id)
                  from unnest({{ .ids }}) as n(id)
                 union
                select n.next, (select t.renewed_to from {{ .table }} as t where t.id = n.next)
                  from named as n
                 where n.next is not null
            )
            select n.id
              from named as n
            {{- if .ends }}
             where n.next is null
            {{- end }})