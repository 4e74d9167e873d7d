package pgsession

import (
	"fmt"
	"strings"
)

// statements are the calls of the store's functions, as text. Each argument carries its type, so
// that every exec mode and driver sends the same; results are named, so that a function that is
// replaced under a prepared statement goes on working; nulls become zero values, so that no result
// needs a pointer.
type statements struct {
	get, set, touch        statement
	destroy, revoke        statement
	list, listAll          statement
	count, countAll        statement
	clear, prune           statement
	schemaVersion, catalog statement
}

// micros is the expression for a time, or seconds, as whole microseconds since 1970: the one form that
// no DateStyle, TimeZone or extra_float_digits changes where a driver asks for text. Null is 0.
func micros(seconds string) string {
	return `coalesce((` + seconds + ` operator(pg_catalog.*) 1000000::pg_catalog.float8)::pg_catalog.int8, 0::pg_catalog.int8)`
}

func epoch(name string) string { return `pg_catalog.date_part('epoch', ` + name + `)` }

// Columns of results. Every name is qualified: the caller's search_path may be hostile. octet_length
// tells when a driver that asked for text could not read it: see [core.session].
var sessionResult = strings.Join([]string{
	`coalesce(r.subject, '')`, `r.data`, `coalesce(pg_catalog.octet_length(r.data), 0::pg_catalog.int4)`,
	`coalesce(r.codec, 0::pg_catalog.int2)`, micros(epoch(`r.created_at`)), micros(epoch(`r.expires_at`)),
	micros(epoch(`r.absolute_expires_at`)), micros(`r.idle_timeout`), `coalesce(r.version, 0::pg_catalog.int8)`,
	`coalesce(r.columns, '')`,
}, ", ")

func newStatements(schema, table string) statements {
	call := func(result, name string, types ...string) string {
		args := make([]string, len(types))
		for i, t := range types {
			args[i] = fmt.Sprintf("$%d::pg_catalog.%s", i+1, t)
		}
		return "select " + result + " from " + quoteIdentifier(schema) + "." + quoteIdentifier(table+"_"+name) +
			"(" + strings.Join(args, ", ") + ") as r"
	}
	return statements{
		get: statement{sql: call(`r.status, `+sessionResult, "get", "text")},
		set: statement{write: true, refusable: true, sql: call(`r.status, `+sessionResult, "set",
			"text", "bytea", "int4", "text", "text", // id, data, codec, subject, columns
			"float8", "float8", "float8", "float8", "float8", // timeouts, defaults, touch interval
			"int8", "text", "float8")}, // version, lock, lock timeout
		touch: statement{write: true, sql: call(`r.status, `+micros(epoch(`r.expires_at`)), "touch",
			"text", "float8", "text", "float8")},
		destroy:  statement{write: true, sql: call(`r.id, r.version`, "destroy", "text", "float8", "float8")},
		revoke:   statement{write: true, sql: call(`r.id, r.version`, "revoke", "text", "text", "text", "float8", "int4")},
		list:     statement{refusable: true, sql: call(`r.id, `+sessionResult, "list", "text", "text", "text", "int4", "int8")},
		listAll:  statement{refusable: true, sql: call(`r.id, `+sessionResult, "list_all", "text", "text", "int4", "int8")},
		count:    statement{refusable: true, sql: call(`r.r`, "count", "text", "text")},
		countAll: statement{refusable: true, sql: call(`r.r`, "count_all", "text")},
		clear:    statement{write: true, sql: call(`r.cleared, coalesce(r.last_id, '')`, "clear", "float8", "text", "int4")},
		prune: statement{write: true, sql: call(`r.deleted, r.moved, `+micros(epoch(`r.next_from`))+`, r.busy`, "prune",
			"int4", "timestamptz", "bool")},
		schemaVersion: statement{sql: call(`r.migration, r.functions, r.columns`, "schema_version")},
		catalog:       statement{sql: catalogSQL},
	}
}

func quoteIdentifier(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// quoteLiteral quotes s for a statement that takes no arguments. The escape form means the same
// under both values of standard_conforming_strings.
func quoteLiteral(s string) string {
	return `E'` + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(s) + `'`
}
