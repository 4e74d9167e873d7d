package pgsession

import (
	"fmt"
	"slices"
	"strings"
)

// statements are the calls of the store's functions, as text. Each argument carries its type, so
// that every exec mode and driver sends the same; results are named, so that a function that is
// replaced under a prepared statement goes on working.
type statements struct {
	get                    statement
	touch, touchInTx       statement               // outside and inside transactions of the caller's
	set                    [LockFail + 1]statement // outside transactions of the caller's
	setInTx                [LockFail + 1]statement // inside: notifies in the transaction
	renew, renewChanged    statement               // the latter with new data, and a grace of its own
	destroy                statement
	revoke, revokeAll      statement
	list, listAll          statement
	count, countAll        statement
	clear, prune           statement
	claim, confirm, hook   statement
	cleanupStatus          statement
	cleanupJob             statement
	notify, beat           statement
	patch, patchInTx       statement
	events, pruneEvents    statement
	reused, auditStatus    statement
	schemaVersion, catalog statement
}

// Columns of results. Every name is qualified: the caller's search_path may be hostile. They are named
// and nothing else: each expression more would cost half a microsecond of every read.
const sessionResult = `r.subject, r.data, r.codec, r.created_at, r.expires_at, r.absolute_expires_at, r.idle_timeout, r.version`

func newStatements(cfg *config) statements {
	sessionResult := sessionResult
	if len(cfg.columns) > 0 {
		sessionResult += ", r.columns"
	}
	answer, touched := `r.status, r.renewed_to, `+sessionResult, `r.status, r.renewed_to, r.expires_at`
	if cfg.listens() {
		const remaining = `pg_catalog.date_part('epoch', r.expires_at operator(pg_catalog.-) pg_catalog.clock_timestamp())`
		answer += ", r.server, " + remaining
		touched += ", r.version, r.server, " + remaining
	}
	written := answer
	if cfg.MaxPerSubject > 0 {
		written += ", r.ended"
	}
	limit := []string{fmt.Sprintf("%d::pg_catalog.int4", cfg.MaxPerSubject), cfg.Overflow.constant()}
	// An argument is a type, or a constant. What Config says once is a constant: it need not be sent,
	// read and checked with every call.
	call := func(result, name string, args ...string) string {
		args = slices.Clone(args)
		n := 0
		for i, arg := range args {
			if !strings.Contains(arg, "::") {
				n++
				args[i] = fmt.Sprintf("$%d::pg_catalog.%s", n, arg)
			}
		}
		return "select " + result + " from " + quoteIdentifier(cfg.Schema) + "." + quoteIdentifier(cfg.Table+"_"+name) +
			"(" + strings.Join(args, ", ") + ") as r"
	}
	touchInterval, lockTimeout := floatConstant(timeoutArg(cfg.TouchInterval)), floatConstant(cfg.lockTimeoutArg())
	var relaxed []string // an argument more, for statements that are all of their transaction
	if cfg.Durability == DurabilityRelaxed {
		relaxed = []string{"true::pg_catalog.bool"}
	}
	renew := func(grace, recode string) statement {
		return statement{write: true, refusable: true, sql: call(written, "renew", append([]string{
			"text", "text", "text", grace, floatConstant(cfg.tombstoneArg()), touchInterval, lockTimeout,
		}, append(slices.Clone(limit), "text", "bytea", "int4", "int8", recode)...)...)}
	}
	st := statements{
		get: statement{sql: call(answer, "get", "text")},
		touch: statement{write: true, sql: call(touched, "touch",
			append([]string{"text", touchInterval, cfg.Lock.constant(), lockTimeout}, relaxed...)...)},
		touchInTx: statement{write: true, sql: call(touched, "touch",
			"text", touchInterval, cfg.Lock.constant(), lockTimeout)},
		renew:        renew(floatConstant(secondsArg(cfg.RenewGrace)), fmt.Sprintf("%t::pg_catalog.bool", cfg.Codec != nil)),
		renewChanged: renew("float8", "true::pg_catalog.bool"),
		destroy: statement{write: true, sql: call(`r.id, r.version, r.successor`, "destroy",
			"text", floatConstant(cfg.tombstoneArg()), lockTimeout, "text")},
		revoke: statement{write: true, refusable: true, sql: call(`r.id, r.version, null::pg_catalog.text`, "revoke",
			"text", "text", "text", "float8", "int4", "text", "text", "text")},
		revokeAll: statement{write: true, refusable: true, sql: call(`r.id, r.version, null::pg_catalog.text`, "revoke_all",
			"text", "text", "text", "float8", "int4", "text", "text")},
		list:     statement{refusable: true, sql: call(`r.id, `+sessionResult, "list", "text", "text", "text", "int4", "int8")},
		listAll:  statement{refusable: true, sql: call(`r.id, `+sessionResult, "list_all", "text", "text", "int4", "int8")},
		count:    statement{refusable: true, sql: call(`r.r`, "count", "text", "text")},
		countAll: statement{refusable: true, sql: call(`r.r`, "count_all", "text")},
		clear: statement{write: true, sql: call(`r.cleared, coalesce(r.last_id, '')`, "clear",
			"float8", "text", "int4", "text", "text", "text")},
		prune: statement{write: true, sql: call(`r.deleted, r.expired, r.next_from, r.busy, r.lapsed`, "prune",
			"int4", "timestamptz", "bool", "int8")},
		claim: statement{write: true, sql: call(`coalesce(r.id, ''), `+sessionResult+`, r.deleted, r.next_from, r.busy`, "claim",
			"int4", "timestamptz", "bool", "int8", "float8")},
		confirm: statement{write: true, sql: call(`r.r`, "confirm", "text", "bool", "bool")},
		hook:    statement{write: true, sql: call(`r.r`, "hook")},
		cleanupStatus: statement{sql: call(
			// Setup reads it, which must not depend on DateStyle in any mode: as seconds.
			seconds("now", "ran_at", "job_at", "hooked_at", "kept_at")+
				`, r.ran_deleted, r.deleted, r.due, r.lag, coalesce(r.job, ''), coalesce(r.job_role, ''), `+
				`coalesce(r.job_period, 0), r.kept, coalesce(r.reason, '')`,
			"cleanup_status", "int4")},
		cleanupJob: statement{write: true, sql: call(`r.r`, "cleanup_job", "text", "text", "float8")},
		notify:     statement{write: true, sql: call(`r.r, pg_catalog.pg_postmaster_start_time()`, "notify", "text", "bool")},
		beat:       statement{write: true, sql: call(`r.nonce, r.server`, "beat", "float8", "bool")},
		events: statement{sql: call(
			`r.at, r.seq, r.kind, r.id, r.successor, r.subject, r.actor, r.reason, r.sessions, r.expired_at`, "events",
			"text", "text", "text", "timestamptz", "timestamptz", "timestamptz", "int8", "int4")},
		pruneEvents:   statement{write: true, sql: call(`r.deleted, r.next_from`, "prune_events", "int4", "timestamptz")},
		reused:        statement{write: true, sql: call(`r.r`, "reused", "text")},
		auditStatus:   statement{sql: call(`r.audited, r.retention`, "audit_status")},
		schemaVersion: statement{sql: call(`r.migration, r.functions, r.columns`, "schema_version")},
		catalog:       statement{sql: catalogSQL},
	}
	patch := func(notify bool, more ...string) statement {
		return statement{write: true, refusable: true, sql: call(answer, "patch", append([]string{
			"text", "text", "int4", touchInterval, lockTimeout, fmt.Sprintf("%t::pg_catalog.bool", notify), "text",
		}, more...)...)}
	}
	st.patch, st.patchInTx = patch(cfg.Notify == NotifyInTx, relaxed...), patch(cfg.Notify != NotifyOff)
	for lock := range LockFail + 1 {
		set := func(notify bool, more ...string) statement {
			return statement{write: true, refusable: true, sql: call(written, "set", slices.Concat([]string{
				"text", "bytea", "int4", "text", "text", "float8", "float8", // id, data, codec, subject, columns, timeouts
				floatConstant(secondsArg(cfg.IdleTimeout)), floatConstant(secondsArg(cfg.AbsoluteTimeout)), touchInterval,
				"int8", lock.constant(), lockTimeout, fmt.Sprintf("%t::pg_catalog.bool", notify),
			}, limit, []string{floatConstant(cfg.tombstoneArg())}, more)...)}
		}
		st.set[lock] = set(cfg.Notify == NotifyInTx, relaxed...)
		st.setInTx[lock] = set(cfg.Notify != NotifyOff)
	}
	return st
}

func floatConstant(seconds any) string {
	if seconds == nil {
		return "null::pg_catalog.float8"
	}
	return fmt.Sprintf("'%v'::pg_catalog.float8", seconds)
}

func (m LockMode) constant() string {
	return [...]string{"'wait'", "'skip'", "'fail'"}[m] + "::pg_catalog.text"
}

func quoteIdentifier(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// quoteLiteral quotes s for a statement that takes no arguments. The escape form means the same
// under both values of standard_conforming_strings.
func quoteLiteral(s string) string {
	return `E'` + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(s) + `'`
}

// seconds are times as seconds since 1970.
func seconds(columns ...string) string {
	for i, column := range columns {
		columns[i] = "pg_catalog.date_part('epoch', r." + column + ")"
	}
	return strings.Join(columns, ", ")
}
