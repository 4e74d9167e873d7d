package pgsession

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"strings"

	"github.com/jackc/tern/v2/migrate"
)

//go:embed migrations/*.sql sql/*.sql sql/partial/*.sql
var files embed.FS

// functionsVersion is the version of sql/: raise it, here and in sql/schema_version.sql, with every
// change there. A test compares both with the files.
const functionsVersion = 1

// ternLock is the advisory lock that tern takes while it migrates (migrate.lockNum), in any schema of
// the database: Setup and tern must not run at once, nor two Setups that both create the schema.
const ternLock = 9628173550095224

// setupAttempts bounds the retries of Setup's script. Each waits up to two seconds for locks.
const setupAttempts = 30

// setupRetries are the errors that mean that another Setup was faster, or is under way.
var setupRetries = []string{
	codeSerialization, codeLockNotAvailable, codeDuplicateSchema, codeDuplicateTable, codeDuplicateFunction,
	codeUniqueViolation, codeInternal, codeColumnsChanged,
}

// Setup makes the schema what this version needs, as [Store.Migrate] does, and then starts the
// goroutine that prunes, if Config.Cleanup asks for one. It is idempotent, and safe in any number of
// processes at once.
func (s *Store) Setup(ctx context.Context) error {
	s.setupMu.Lock()
	defer s.setupMu.Unlock()
	if err := s.migrate(ctx); err != nil {
		return &Error{Op: "setup", Err: err}
	}
	if s.store.closed.Load() {
		return &Error{Op: "setup", Err: ErrClosed}
	}
	if s.ticker == nil && s.store.cfg.Cleanup.Mode == CleanupTicker {
		s.ticker = s.startTicker()
	}
	return nil
}

// Migrate creates or upgrades the schema and starts nothing: for a deploy job. Where all is there it
// issues no DDL and takes no lock, so that a role with only EXECUTE may call it. What it does it does
// in one statement, wholly or not at all. Under Config.SkipMigrate it only checks.
//
// It returns a [*SchemaError] that lists what is missing or differs where it cannot be mended.
func (s *Store) Migrate(ctx context.Context) error {
	s.setupMu.Lock()
	defer s.setupMu.Unlock()
	if err := s.migrate(ctx); err != nil {
		return &Error{Op: "migrate", Err: err}
	}
	return nil
}

func (s *Store) migrate(ctx context.Context) error {
	cfg := s.store.cfg
	for attempt := 1; ; attempt++ {
		state, err := s.inspect(ctx)
		if err != nil {
			return err
		}
		problems, mendable := state.problems(cfg)
		if len(problems) == 0 {
			return nil
		}
		schemaError := &SchemaError{Schema: cfg.Schema, Table: cfg.Table, Problems: problems}
		if cfg.SkipMigrate || !mendable {
			return schemaError
		}
		script, err := cfg.script(state)
		if err != nil {
			return err
		}
		err = s.each(ctx, statement{sql: script}, nil, nil, func() error { return nil })
		switch {
		case err == nil:
			cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "pgsession: schema set up", slog.String("schema", cfg.Schema),
				slog.String("table", cfg.Table), slog.Any("mended", problems))
			if attempt < setupAttempts {
				continue // look again: what the script cannot mend is told, not assumed
			}
			return schemaError
		case ctx.Err() != nil || errors.Is(err, ErrClosed) || sqlState(err) == "":
			return err
		case !slices.Contains(setupRetries, sqlState(err)) || attempt == setupAttempts:
			schemaError.Err = err
			return schemaError
		}
		if pause(ctx, attempt) != nil {
			return classify(ctx, err, false)
		}
	}
}

// SetupSQL writes what Setup would run on an empty database, as one SQL statement that can be run
// again: for a DBA to read, and to run by psql. It needs no database.
func SetupSQL(w io.Writer, cfg Config) error {
	resolved, err := cfg.resolve()
	if err != nil {
		return &Error{Op: "setup", Err: err}
	}
	script, err := resolved.script(&schemaState{})
	if err == nil {
		_, err = io.WriteString(w, script+";\n")
	}
	if err != nil {
		return &Error{Op: "setup", Err: err}
	}
	return nil
}

// templateData is what tern gives the files, under the names that tern.conf may use too.
func (c *config) templateData(columns []Column) (map[string]any, error) {
	type column struct {
		Name string `json:"name"`
		Type string `json:"type"`
	}
	list := make([]column, len(columns))
	for i, col := range columns {
		list[i] = column(col)
	}
	text, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"schema": c.Schema, "table": c.Table, "columns": string(text),
		"owner": c.Owner, "app_role": c.AppRole, "admin_role": c.AdminRole,
	}, nil
}

// render has tern read the files and fill in the names.
func render(data map[string]any) (migrations []string, functions string, err error) {
	dir, err := fs.Sub(files, "migrations")
	if err != nil {
		return nil, "", err
	}
	// Without a connection: tern's own executor needs a pgx.Conn, holds a session-level lock and
	// resets the connection's settings.
	migrator, err := migrate.NewMigrator(context.Background(), nil, "")
	if err != nil {
		return nil, "", err
	}
	migrator.Data = data
	if err := migrator.LoadMigrations(dir); err != nil {
		return nil, "", err
	}
	for _, m := range migrator.Migrations {
		migrations = append(migrations, m.UpSQL)
	}
	if dir, err = fs.Sub(files, "sql"); err != nil {
		return nil, "", err
	}
	code, err := migrate.LoadCodePackage(dir)
	if err != nil {
		return nil, "", err
	}
	functions, err = code.Eval(data)
	return migrations, functions, err
}

// lastMigration is the number of the newest migration.
func lastMigration() (int32, error) {
	dir, err := fs.Sub(files, "migrations")
	if err != nil {
		return 0, err
	}
	names, err := migrate.FindMigrations(dir)
	return int32(len(names)), err
}

// script is everything as one DO block, so that it works in every exec mode, through PgBouncer and
// over database/sql, is atomic, and needs no connection of its own. It decides again, under tern's
// lock, what is missing.
func (c *config) script(state *schemaState) (string, error) {
	columns := c.allColumns(state)
	data, err := c.templateData(columns)
	if err != nil {
		return "", err
	}
	migrations, functions, err := render(data)
	if err != nil {
		return "", err
	}

	table := quoteIdentifier(c.Schema) + "." + quoteIdentifier(c.Table)
	versionTable := quoteIdentifier(c.Schema) + "." + quoteIdentifier(c.Table+"_schema_version")
	versionFunction := quoteIdentifier(c.Schema) + "." + quoteIdentifier(c.Table+"_schema_version")
	columnsText := data["columns"].(string)

	// Dollar quotes that nothing within contains.
	sum := sha256.Sum256([]byte(functions + strings.Join(migrations, "")))
	tag := func(kind string) string { return "$" + kind + hex.EncodeToString(sum[:6]) + "$" }

	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("do %s", tag("setup"))
	p("declare")
	p("    v_lock_timeout pg_catalog.text := pg_catalog.current_setting('lock_timeout');")
	p("    v_search_path  pg_catalog.text := pg_catalog.current_setting('search_path');")
	p("    v_caller       pg_catalog.text := pg_catalog.current_setting('role');")
	p("    v_owner        pg_catalog.text := %s;", quoteLiteral(c.Owner))
	p("    v_migration    pg_catalog.int4;")
	p("    v_functions    pg_catalog.int4 := 0;")
	p("    v_columns      pg_catalog.text;")
	p("begin")
	p("    perform pg_catalog.set_config('lock_timeout', '2s', true);")
	p("    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);")
	p("    perform pg_catalog.pg_advisory_xact_lock(%d);", int64(ternLock))
	p("")
	p("    -- What is there. Another Setup may have been faster.")
	p("    if pg_catalog.to_regprocedure(%s) is not null then", quoteLiteral(versionFunction+"()"))
	p("        execute %s into v_migration, v_functions, v_columns;",
		quoteLiteral("select r.migration, r.functions, r.columns from "+versionFunction+"() as r"))
	p("    end if;")
	p("    if v_migration is null and pg_catalog.to_regclass(%s) is not null then", quoteLiteral(versionTable))
	p("        execute %s into v_migration;", quoteLiteral("select v.version from "+versionTable+" as v"))
	p("    end if;")
	p("    if coalesce(v_migration, 0) = 0 then")
	p("        -- A table without a record, as after a partial restore, was found to have the right columns.")
	p("        v_migration := case when pg_catalog.to_regclass(%s) is null then 0 else 1 end;", quoteLiteral(table))
	p("    end if;")
	p("    if v_columns is not null and v_columns <> %s and v_columns <> %s then",
		quoteLiteral(state.columnsText), quoteLiteral(columnsText))
	p("        raise exception using errcode = '%s',", codeColumnsChanged)
	p("            message = 'the installed functions know other promoted columns: ' || v_columns,")
	p("            hint = 'Run Setup, or generate this script with those columns in Config.Columns too.';")
	p("    end if;")
	p("")
	p("    -- One owner for all: Config.Owner, else whoever owns the table.")
	p("    if v_owner = '' and v_migration > 0 then")
	p("        select pg_catalog.pg_get_userbyid(c.relowner) into v_owner from pg_catalog.pg_class as c")
	p("         where c.oid = pg_catalog.to_regclass(%s) and c.relowner <> current_user::pg_catalog.regrole", quoteLiteral(table))
	p("           and pg_catalog.pg_has_role(c.relowner, 'member');")
	p("        v_owner := coalesce(v_owner, '');")
	p("    end if;")
	p("")
	for i, m := range migrations {
		kind := fmt.Sprintf("m%d_", i+1)
		p("    if v_migration < %d then", i+1)
		p("        execute %s\n%s\n%s;", tag(kind), m, tag(kind))
		p("    end if;")
	}
	p("    if v_owner <> '' then")
	p("        perform pg_catalog.set_config('role', v_owner, true);")
	p("    end if;")
	p("    if pg_catalog.to_regclass(%s) is null then", quoteLiteral(versionTable))
	p("        execute %s;", quoteLiteral("create table "+versionTable+" (version pg_catalog.int4 not null primary key)"))
	p("        execute %s;", quoteLiteral("revoke all on table "+versionTable+" from public"))
	p("        execute %s using v_migration;", quoteLiteral("insert into "+versionTable+" as v (version) values ($1)"))
	p("    end if;")
	p("    execute %s;", quoteLiteral(fmt.Sprintf("update %s as v set version = %d where v.version < %d", versionTable, len(migrations), len(migrations))))
	p("")
	p("    -- Newer functions stay: they serve an older program too.")
	p("    if v_functions <= %d then", functionsVersion)
	p("        execute %s\n%s\n%s;", tag("functions"), functions, tag("functions"))
	p("    end if;")
	p("")
	p("    perform pg_catalog.set_config('role', v_caller, true);")
	p("    perform pg_catalog.set_config('search_path', v_search_path, true);")
	p("    perform pg_catalog.set_config('lock_timeout', v_lock_timeout, true);")
	p("end")
	b.WriteString(tag("setup"))
	return b.String(), nil
}

// allColumns are the promoted columns that the installed functions know, in their order, and then
// those that this Config adds: instances with different Config.Columns share the functions.
func (c *config) allColumns(state *schemaState) []Column {
	all := slices.Clone(state.columns)
	for _, col := range c.columns {
		if !slices.ContainsFunc(all, func(o Column) bool { return o.Name == col.Name }) {
			all = append(all, col)
		}
	}
	return all
}
