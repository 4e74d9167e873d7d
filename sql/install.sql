{{- /* Installs every function and the view: `tern code install sql/`, or Store.Setup.

       Data, all optional: schema, table, owner, app_role, admin_role (raw names), and columns, a
       JSON text as [{"name": "ip", "type": "inet"}]; a type is a pg_type.typname of pg_catalog.

       Each file gets one dictionary:
         schema   quoted                           table    qualified and quoted
         prefix   the table's name, for use within double quotes
         body     dollar quote of function bodies; carries the names' own hash, so no name contains it
         lit      the same for literals within bodies
         channel  a literal: where notifications go; Go computes it alike, in payload.go
         *_seed, prune_key   numbers of the advisory locks, a set for each store
         columns  ident (quoted), key (a literal), type (qualified), comparable (has equality),
                  inet
         never    the deadline of a session that has none
         prune_after  format: of a row that may go at %s. By the second, so that what became due at once, and
                      each batch of a prune must wade through again, stays short; and not by less, so
                      that the index holds a key once
         next_version  of a session that is written: what DESIGN section 3 calls the version
         styles   whether a column's text depends on settings, which the functions then pin

       A partial gets what it needs beside as (merge (dict "key" value) .). Where the value is "" or false no such
       key may be in the dictionary, for merge takes it as not given. */ -}}
{{- $schema := .schema | default "pgsession" -}}
{{- $table := .table | default "session" -}}
{{- $s := $schema | replace "\"" "\"\"" | printf "\"%s\"" -}}
{{- $t := $table | replace "\"" "\"\"" -}}
{{- $columnsJSON := .columns | default "[]" -}}
{{- $hash := printf "%s.%s %s" $schema $table $columnsJSON | sha256sum | trunc 12 -}}
{{- $body := printf "$b%s$" $hash -}}
{{- $lit := printf "$l%s$" $hash -}}
{{- $columns := list -}}
{{- $styles := false -}}
{{- $styled := list "bytea" "date" "float4" "float8" "interval" "time" "timestamp" "timestamptz" -}}
{{- range $columnsJSON | mustFromJson -}}
{{-   $columns = append $columns (dict
        "ident" (.name | replace "\"" "\"\"" | printf "\"%s\"")
        "key"   (printf "%s%s%s" $lit .name $lit)
        "type"  (.type | replace "\"" "\"\"" | printf "pg_catalog.\"%s\"")
        "comparable" (ne (trimPrefix "_" .type) "json")
        "inet" (eq .type "inet")) -}}
{{-   if or (hasPrefix "_" .type) (has (trimPrefix "_" .type) $styled) -}}{{- $styles = true -}}{{- end -}}
{{- end -}}
{{- $qualified := printf "%s.\"%s\"" $s $t -}}
{{- /* Readable where nothing else can have that name. A hashed one has no dot. */ -}}
{{- $channel := printf "%s.%s" $schema $table -}}
{{- if or (gt (len $channel) 63) (contains "." $schema) (contains "." $table) -}}
{{-   $channel = $qualified | sha256sum | trunc 32 | printf "pgsession_%s" -}}
{{- end -}}
{{- $d := dict
      "schema" $s
      "table" $qualified
      "beat_table" (printf "%s.\"%s_beat\"" $s $t)
      "channel" (printf "%s%s%s" $lit $channel $lit)
      "cleanup_table" (printf "%s.\"%s_cleanup\"" $s $t)
      "audit_table" (printf "%s.\"%s_audit\"" $s $t)
      "events_table" (printf "%s.\"%s_events\"" $s $t)
      "version_table" (printf "%s.\"%s_schema_version\"" $s $t)
      "raw_schema" $schema
      "prefix" $t
      "body" $body
      "lit" $lit
      "id_seed" (printf "id %s.%s" $s $table | sha256sum | trunc 16 | printf "x'%s'::int8")
      "subject_seed" (printf "subject %s.%s" $s $table | sha256sum | trunc 16 | printf "x'%s'::int8")
      "prune_key" (printf "prune %s.%s" $s $table | sha256sum | trunc 16 | printf "x'%s'::int8")
      "columns" $columns
      "styles" $styles
      "never" "timestamptz '9999-12-31 00:00:00+00'"
      "prune_after" "date_bin('1 second', %s, 'epoch') + '1 second'"
      "next_version" "greatest(t.version + 1, floor(date_part('epoch', v_now) * 1000000)::int8)"
      "columns_json" (printf "%s%s%s" $lit $columnsJSON $lit)
      "raw_table" $table
      "functions" (list "json" "lock" "publish" "notify" "beat" "successor" "admit" "disown" "get" "set" "merge" "patch" "touch" "renew"
          "destroy" "revoke" "revoke_all" "list" "list_all" "count" "count_all" "clear" "settle" "reap" "prune" "prune_events" "prune_all" "claim"
          "confirm" "hook" "cleanup_status" "cleanup_job" "audit" "audit_status" "events" "reused" "schema_version")
      "app_functions" (list "get" "set" "patch" "touch" "renew" "destroy" "revoke" "list" "count" "notify" "beat"
          "cleanup_status" "reused" "audit_status" "schema_version")
      "admin_functions" (list "beat" "list" "list_all" "count" "count_all" "revoke" "revoke_all" "clear" "prune" "prune_events"
          "prune_all" "claim" "confirm" "hook" "cleanup_status" "cleanup_job" "events" "audit_status" "schema_version" "json") -}}
{{- with .app_role -}}
{{-   $_ := set $d "app_role" (replace "\"" "\"\"" . | printf "\"%s\"") -}}
{{- end -}}
{{- with .admin_role -}}
{{-   $_ := set $d "admin_role" (replace "\"" "\"\"" . | printf "\"%s\"") -}}
{{- end -}}
{{- with .owner }}set local role "{{ replace "\"" "\"\"" . }}";{{ end }}
{{ template "partial/remember.sql" $d }}
{{ template "partial/columns.sql" $d }}
{{ template "result.sql" $d }}
{{ template "json.sql" $d }}
{{ template "lock.sql" $d }}
{{ template "publish.sql" $d }}
{{ template "notify.sql" $d }}
{{ template "beat.sql" $d }}
{{ template "successor.sql" $d }}
{{ template "admit.sql" $d }}
{{ template "disown.sql" $d }}
{{ template "get.sql" $d }}
{{ template "set.sql" $d }}
{{ template "merge.sql" $d }}
{{ template "patch.sql" $d }}
{{ template "touch.sql" $d }}
{{ template "renew.sql" $d }}
{{ template "destroy.sql" $d }}
{{ template "revoke.sql" $d }}
{{ template "revoke_all.sql" $d }}
{{ template "list.sql" $d }}
{{ template "list_all.sql" $d }}
{{ template "count.sql" $d }}
{{ template "count_all.sql" $d }}
{{ template "clear.sql" $d }}
{{ template "settle.sql" $d }}
{{ template "reap.sql" $d }}
{{ template "prune.sql" $d }}
{{ template "prune_events.sql" $d }}
{{ template "prune_all.sql" $d }}
{{ template "claim.sql" $d }}
{{ template "confirm.sql" $d }}
{{ template "hook.sql" $d }}
{{ template "cleanup_status.sql" $d }}
{{ template "cleanup_job.sql" $d }}
{{ template "audit.sql" $d }}
{{ template "audit_status.sql" $d }}
{{ template "events.sql" $d }}
{{ template "reused.sql" $d }}
{{ template "view.sql" $d }}
{{ template "schema_version.sql" $d }}
{{ template "grants.sql" $d }}
{{ with .owner }}set local role none;{{ end }}
