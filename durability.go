package pgsession

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Durability says what a crash of the server may undo.
type Durability int

const (
	// DurabilityLogged: nothing that was acknowledged.
	DurabilityLogged Durability = iota
	// DurabilityRelaxed: the last writes of Create, Set, Update, Patch and Touch, up to three times the
	// server's wal_writer_delay (200 ms) of them; a write does not wait for the disk, nor for a standby.
	// What ends a session, renews it or gives it another subject is never relaxed, and nothing is by
	// [Store.WithQuery]; but a transaction that New was given as its QueryFunc is relaxed as a whole. The
	// table is as with DurabilityLogged, so instances may differ.
	DurabilityRelaxed
	// DurabilityUnlogged: all sessions. Setup creates the table unlogged: it writes no write-ahead log, is
	// empty after a crash, and is empty on a standby that is promoted. A backup of files has none
	// of it. A table that exists stays what it is: see [Store.SwitchDurability].
	DurabilityUnlogged
)

func (d Durability) String() string {
	if d < DurabilityLogged || d > DurabilityUnlogged {
		return fmt.Sprintf("Durability(%d)", int(d))
	}
	return [...]string{"logged", "relaxed", "unlogged"}[d]
}

// logDurability says what may be lost, and that a table is not what Config says: Setup does not switch
// it, since two configurations would do so in turns.
func (c *config) logDurability(ctx context.Context, state *schemaState) {
	attrs := []slog.Attr{slog.String("schema", c.Schema), slog.String("table", c.Table)}
	unlogged := c.Durability == DurabilityUnlogged
	if state.unlogged {
		c.Logger.LogAttrs(ctx, slog.LevelWarn, "pgsession: the table is unlogged: a crash of the server or a failover to a "+
			"standby loses all sessions, and the tombstones that keep ended ones ended", attrs...)
	}
	if state.unlogged != unlogged {
		c.Logger.LogAttrs(ctx, slog.LevelWarn, "pgsession: the table is not what Config.Durability says; "+
			"Store.SwitchDurability makes it so", append(attrs, slog.String("configured", c.Durability.String()))...)
	}
}

// SwitchDurability makes the table logged or unlogged, as Config.Durability says, if it is not. It
// rewrites the table and its indexes under an ACCESS EXCLUSIVE lock: every call of every instance waits
// meanwhile, some 2 to 4 seconds for each million sessions. While others are in the way it tries for two
// seconds at a time, so that who queues behind it waits no longer. The role must be the owner's, or a
// member of it.
func (s *Store) SwitchDurability(ctx context.Context) error {
	s.setupMu.Lock()
	defer s.setupMu.Unlock()
	cfg := s.store.cfg
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.store.life, cancel)()
	script := cfg.switchScript()
	for attempt := 1; ; attempt++ {
		err := s.each(ctx, statement{sql: script, write: true}, nil, nil, func() {}, func() {})
		switch {
		case err == nil:
			cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "pgsession: the table is as Config.Durability says",
				slog.String("schema", cfg.Schema), slog.String("table", cfg.Table),
				slog.String("durability", cfg.Durability.String()))
			return nil
		case sqlState(err) != codeLockNotAvailable || attempt == setupAttempts:
			return &Error{Op: "switch durability", Err: err}
		}
		sleep(ctx, time.Second) // for those that waited behind it
	}
}

// switchScript is one statement, as Setup's: it works wherever that does.
func (c *config) switchScript() string {
	to, persistence := "logged", "p"
	if c.Durability == DurabilityUnlogged {
		to, persistence = "unlogged", "u"
	}
	table := quoteIdentifier(c.Schema) + "." + quoteIdentifier(c.Table)
	sum := sha256.Sum256([]byte(table))
	tag := "$switch_" + hex.EncodeToString(sum[:6]) + "$"
	return strings.NewReplacer("{tag}", tag, "{table}", table, "{literal}", quoteLiteral(table),
		"{to}", to, "{persistence}", persistence).Replace(`do {tag}
declare
    v_lock_timeout pg_catalog.text := pg_catalog.current_setting('lock_timeout');
    v_caller       pg_catalog.text := pg_catalog.current_setting('role');
    v_owner        pg_catalog.name;
begin
    select r.rolname
      into v_owner
      from pg_catalog.pg_class as c
      join pg_catalog.pg_roles as r on r.oid operator(pg_catalog.=) c.relowner
     where c.oid operator(pg_catalog.=) {literal}::pg_catalog.regclass
       and c.relpersistence operator(pg_catalog.<>) '{persistence}'::pg_catalog."char";
    if v_owner is not null then
        perform pg_catalog.set_config('lock_timeout', '2s', true);
        perform pg_catalog.set_config('role', v_owner::pg_catalog.text, true);
        alter table {table} set {to};
        perform pg_catalog.set_config('role', v_caller, true);
        perform pg_catalog.set_config('lock_timeout', v_lock_timeout, true);
    end if;
end
{tag}`)
}
