package pgsession

import "strings"

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

// Columns of results. Every name is qualified: the caller's search_path may be hostile.
const (
	sessionResult = `coalesce(r.subject, ''), r.data, coalesce(r.codec, 0::pg_catalog.int2), ` +
		deadlinesResult
	deadlinesResult = `coalesce(r.created_at, 'epoch'::pg_catalog.timestamptz), ` +
		`coalesce(r.expires_at, 'epoch'::pg_catalog.timestamptz), ` +
		`coalesce(r.absolute_expires_at, 'epoch'::pg_catalog.timestamptz), ` +
		`coalesce(r.idle_timeout, -1::pg_catalog.float8), coalesce(r.version, 0::pg_catalog.int8), ` +
		`coalesce(r.columns, '')`
	sourceResult = `coalesce(r.renewed_to, ''), coalesce(r.remaining, 0::pg_catalog.float8), r.cacheable, r.server`
)

func newStatements(schema, table string) statements {
	call := func(result, name, args string) string {
		return "select " + result + " from " + quoteIdentifier(schema) + "." + quoteIdentifier(table+"_"+name) +
			"(" + args + ") as r"
	}
	return statements{
		get: statement{sql: call(`r.status, `+sessionResult+`, `+sourceResult, "get", `$1::pg_catalog.text`)},
		set: statement{write: true, sql: call(`r.status, `+sessionResult+`, `+sourceResult, "set",
			`$1::pg_catalog.text, $2::pg_catalog.bytea, $3::pg_catalog.int4, $4::pg_catalog.text, `+
				`$5::pg_catalog.text, $6::pg_catalog.float8, $7::pg_catalog.float8, $8::pg_catalog.float8, `+
				`$9::pg_catalog.float8, $10::pg_catalog.float8, $11::pg_catalog.int8, $12::pg_catalog.text, `+
				`$13::pg_catalog.float8`)},
		touch: statement{write: true, sql: call(
			`r.status, coalesce(r.expires_at, 'epoch'::pg_catalog.timestamptz), `+
				`coalesce(r.version, 0::pg_catalog.int8), `+sourceResult, "touch",
			`$1::pg_catalog.text, $2::pg_catalog.float8, $3::pg_catalog.text, $4::pg_catalog.float8`,
		)},
		destroy: statement{write: true, sql: call(`r.id, r.version`, "destroy",
			`$1::pg_catalog.text, $2::pg_catalog.float8, $3::pg_catalog.float8`)},
		revoke: statement{write: true, sql: call(`r.id, r.version`, "revoke",
			`$1::pg_catalog.text, $2::pg_catalog.text, $3::pg_catalog.text, $4::pg_catalog.float8, `+
				`$5::pg_catalog.int4`)},
		list: statement{sql: call(`r.id, `+sessionResult, "list",
			`$1::pg_catalog.text, $2::pg_catalog.text, $3::pg_catalog.text, $4::pg_catalog.int4, $5::pg_catalog.int8`)},
		listAll: statement{sql: call(`r.id, `+sessionResult, "list_all",
			`$1::pg_catalog.text, $2::pg_catalog.text, $3::pg_catalog.int4, $4::pg_catalog.int8`)},
		count:    statement{sql: call(`r.r`, "count", `$1::pg_catalog.text, $2::pg_catalog.text`)},
		countAll: statement{sql: call(`r.r`, "count_all", `$1::pg_catalog.text`)},
		clear: statement{write: true, sql: call(`r.cleared, coalesce(r.last_id, '')`, "clear",
			`$1::pg_catalog.float8, $2::pg_catalog.text, $3::pg_catalog.int4`)},
		prune: statement{write: true, sql: call(
			`r.deleted, r.moved, coalesce(r.next_from, 'epoch'::pg_catalog.timestamptz), r.busy`, "prune",
			`$1::pg_catalog.int4, $2::pg_catalog.timestamptz, $3::pg_catalog.bool`,
		)},
		schemaVersion: statement{sql: call(`r.migration, r.functions, r.columns`, "schema_version", ``)},
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
