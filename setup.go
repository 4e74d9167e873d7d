package pgsession

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"text/template"

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

// Setup makes the schema what this version needs, as [Store.Migrate] does, and then starts to listen,
// if there is a Config.Listen, and the goroutine that prunes or watches who does, if Config.Cleanup
// asks for one. It is idempotent, and safe in any number of processes at once.
func (s *Store) Setup(ctx context.Context) error {
	s.setupMu.Lock()
	defer s.setupMu.Unlock()
	plan, err := s.migrate(ctx)
	if err != nil {
		return &Error{Op: "setup", Err: err}
	}
	if s.store.closed.Load() {
		return &Error{Op: "setup", Err: ErrClosed}
	}
	if err := s.store.notify.start(ctx); err != nil {
		return &Error{Op: "setup", Err: err}
	}
	if plan.mayHook {
		if err := s.registerHook(ctx); err != nil {
			return &Error{Op: "setup", Err: err}
		}
	}
	s.startCleaner(ctx, plan)
	return nil
}

// Migrate creates or upgrades the schema and starts nothing: for a deploy job. Where all is there it
// issues no DDL and takes no lock, so that a role with only EXECUTE may call it. What it does it does
// in one statement, wholly or not at all; after that it makes, changes or removes the job of pg_cron as
// Config.Cleanup asks. Under Config.SkipMigrate it only checks.
//
// It returns a [*SchemaError] that lists what is missing or differs where it cannot be mended.
func (s *Store) Migrate(ctx context.Context) error {
	s.setupMu.Lock()
	defer s.setupMu.Unlock()
	if _, err := s.migrate(ctx); err != nil {
		return &Error{Op: "migrate", Err: err}
	}
	return nil
}

func (s *Store) migrate(ctx context.Context) (cleanupPlan, error) {
	cfg := s.store.cfg
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.store.life, cancel)() // Close does not wait for a Setup that waits for a lock
	var before []string
	for attempt := 1; ; attempt++ {
		state, err := s.inspect(ctx)
		if err != nil {
			return cleanupPlan{}, err
		}
		problems, mendable := state.problems(cfg)
		if len(problems) == 0 {
			for _, index := range state.missingIndexes() {
				cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "pgsession: an index is missing", slog.String("schema", cfg.Schema),
					slog.String("table", cfg.Table), slog.String("column", index.column))
			}
			cfg.logDurability(ctx, state)
			return s.planCleanup(ctx, state)
		}
		schemaError := &SchemaError{Schema: cfg.Schema, Table: cfg.Table, Problems: problems}
		if cfg.SkipMigrate || !mendable || slices.Equal(problems, before) {
			return cleanupPlan{}, schemaError
		}
		script, err := cfg.script(state)
		if err != nil {
			return cleanupPlan{}, err
		}
		err = s.each(ctx, statement{sql: script}, nil, nil, func() {}, func() {})
		switch {
		case err == nil:
			cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "pgsession: schema set up", slog.String("schema", cfg.Schema),
				slog.String("table", cfg.Table), slog.Any("mended", problems))
			before = problems
			continue // look again: what the script did not mend is told, not assumed
		case ctx.Err() != nil || errors.Is(err, ErrClosed) || sqlState(err) == "":
			return cleanupPlan{}, err
		case !slices.Contains(setupRetries, sqlState(err)) || attempt == setupAttempts:
			schemaError.Err = err
			return cleanupPlan{}, schemaError
		}
		pause(ctx, attempt)
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
		"unlogged": c.Durability == DurabilityUnlogged,
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
	code, err := functionFiles()
	if err != nil {
		return nil, "", err
	}
	functions, err = code.Eval(data)
	return migrations, functions, err
}

// functionFiles are the files of sql/, parsed.
var functionFiles = sync.OnceValues(func() (*migrate.CodePackage, error) {
	dir, err := fs.Sub(files, "sql")
	if err != nil {
		return nil, err
	}
	return migrate.LoadCodePackage(dir)
})

// lastMigration is the number of the newest migration.
func lastMigration() (int32, error) {
	dir, err := fs.Sub(files, "migrations")
	if err != nil {
		return 0, err
	}
	names, err := migrate.FindMigrations(dir)
	return int32(len(names)), err
}

// script is what setup.sql is rendered with.
type script struct {
	Schema, Name, Owner    string // as they are
	FunctionNames          []string
	Table                  string // qualified and quoted, as the next two
	VersionName, BeatName  string
	CleanupName, AuditName string
	EventsName             string
	Audit                  string // a statement that has events recorded; "": leave that as it is
	Columns, ColumnsBefore string // as JSON
	Migrations             []string
	Functions              string
	FunctionsVersion       int
	Lock                   int64
	ColumnsChanged         string
	hash                   string
}

// Tag returns a dollar quote that carries a hash of all that it may quote.
func (s *script) Tag(kind string) string { return "$" + kind + "_" + s.hash + "$" }

// Number is the number of a migration.
func (s *script) Number(index int) int { return index + 1 }

//go:embed setup.sql
var setupSQL string

var setupTemplate = template.Must(template.New("setup.sql").
	Funcs(template.FuncMap{"literal": quoteLiteral}).Parse(setupSQL))

// script is everything as one DO block, so that it works in every exec mode, through PgBouncer and
// over database/sql, is atomic, and needs no connection of its own. It decides again, under tern's
// lock, what is missing.
func (c *config) script(state *schemaState) (string, error) {
	data, err := c.templateData(c.allColumns(state))
	if err != nil {
		return "", err
	}
	s := script{
		Schema:           c.Schema,
		Name:             c.Table,
		Owner:            c.Owner,
		FunctionNames:    allFunctions,
		Table:            quoteIdentifier(c.Schema) + "." + quoteIdentifier(c.Table),
		VersionName:      quoteIdentifier(c.Schema) + "." + quoteIdentifier(c.Table+"_schema_version"),
		BeatName:         quoteIdentifier(c.Schema) + "." + quoteIdentifier(c.Table+"_beat"),
		CleanupName:      quoteIdentifier(c.Schema) + "." + quoteIdentifier(c.Table+"_cleanup"),
		AuditName:        quoteIdentifier(c.Schema) + "." + quoteIdentifier(c.Table+"_audit"),
		EventsName:       quoteIdentifier(c.Schema) + "." + quoteIdentifier(c.Table+"_events"),
		Audit:            c.auditStatement(),
		Columns:          data["columns"].(string),
		ColumnsBefore:    state.columnsText,
		FunctionsVersion: functionsVersion,
		Lock:             ternLock,
		ColumnsChanged:   codeColumnsChanged,
	}
	if s.Migrations, s.Functions, err = render(data); err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(strings.Join(append(s.Migrations, s.Functions), "")))
	s.hash = hex.EncodeToString(sum[:6])
	var b strings.Builder
	err = setupTemplate.Execute(&b, &s)
	return b.String(), err
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
