-- What a DBA wants to see of the live sessions. Columns are only ever appended.
create or replace view {{ .schema }}."{{ .prefix }}_view" with (security_barrier) as
select t.id,
       t.subject,
       pg_catalog.clock_timestamp() operator(pg_catalog.-) t.created_at as age,
       t.expires_at operator(pg_catalog.-) pg_catalog.clock_timestamp() as expires_in,
       t.absolute_expires_at operator(pg_catalog.-) pg_catalog.clock_timestamp() as absolute_expires_in,
       t.idle_timeout,
       t.codec,
       pg_catalog.octet_length(t.data) as bytes,
       case when t.codec operator(pg_catalog.=) 1::pg_catalog.int2
            then {{ .schema }}."{{ .prefix }}_json"(t.data) end as data,
       t.version
       {{- range .columns }},
       t.{{ .ident }}{{ end }}
  from {{ .table }} as t
       -- A second relation, and PostgreSQL lets nobody write through the view.
 cross join (select) as read_only
 where t.revoked_at is null
   and t.expires_at operator(pg_catalog.>) pg_catalog.clock_timestamp();
