package pgsession

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// LockMode says what a write does when its session is locked by another one.
type LockMode int

const (
	// LockWait waits, for Config.LockTimeout at most, and then returns [ErrBusy].
	LockWait LockMode = iota
	// LockSkip writes nothing and reports success: for applications whose every request saves the
	// whole session, where the newest save of a burst is as good as any.
	LockSkip
	// LockFail returns [ErrBusy] at once.
	LockFail
)

// NotifyMode says how the write of an existing session is made known to other instances. What ends
// sessions, and what gives one another subject, is notified in its own transaction in every mode, and
// so is everything inside transactions of the caller's but in NotifyOff.
type NotifyMode int

const (
	// NotifyGrouped: the write commits alone, then joins the next publication, which all writers of
	// this instance share, and returns when that is done. Commits with notifications in them take turns
	// in the whole server; these do not. If the process dies between the two, other instances serve
	// what was before for Cache.MaxAge at most.
	NotifyGrouped NotifyMode = iota
	// NotifyInTx: the notification commits with the write. It is exact, and all writes of the server
	// take turns to commit.
	NotifyInTx
	// NotifyOff: writes are not notified. Other instances serve what was before for Cache.MaxAge.
	NotifyOff
)

// CacheMode says whether reads are served from memory.
type CacheMode int

const (
	// CacheOn: they are, where Config.Listen is there to hear of changes.
	CacheOn CacheMode = iota
	// CacheOff: every read goes to the database.
	CacheOff
)

// WhenNotLive says what becomes of reads while it is not proved that notifications arrive.
type WhenNotLive int

const (
	// ReadThrough: they go to the database, one at a time for each session.
	ReadThrough WhenNotLive = iota
	// ServeUntilMaxAge: what is in memory is served until it is Cache.MaxAge old. For operators to whom
	// a storm of reads on a struggling server is worse than a minute of staleness.
	ServeUntilMaxAge
)

// Cache is the part of [Config] about serving reads from memory. A read that is served from memory is
// never older than one notification's way while notifications arrive, than Liveness when they fail to
// in any way, and than MaxAge in any case.
type Cache struct {
	// Mode says whether reads are served from memory at all.
	//
	// Defaults to CacheOn, which needs Config.Listen; Open sets that.
	Mode CacheMode

	// Size is how many bytes the sessions in memory take together.
	//
	// Defaults to 64 MiB.
	Size int64

	// MaxAge is how old a session in memory may become, whatever happens.
	//
	// Defaults to 1 minute.
	MaxAge time.Duration

	// Liveness is how long after the last proof that notifications arrive reads are served from
	// memory. A proof is asked for twice in that time, or more often.
	//
	// Defaults to 3 seconds.
	Liveness time.Duration

	// WhenNotLive says what becomes of reads after that.
	//
	// Defaults to ReadThrough.
	WhenNotLive WhenNotLive
}

// Config configures a [Store]. The zero value works.
type Config struct {
	// Schema is the schema that holds the table and the functions. Any name that PostgreSQL allows.
	//
	// Defaults to "pgsession".
	Schema string

	// Table is the name of the table, and what the names of the functions begin with: several stores
	// share a schema by different tables. Any name that PostgreSQL allows, up to 47 bytes.
	//
	// Defaults to "session".
	Table string

	// Columns are values of the session that get a column of their own. Setup adds them; nothing
	// removes them. Instances with different Columns share a table: each reads its own, and leaves
	// the others as they are.
	//
	// Defaults to none.
	Columns []Column

	// Owner is the role that owns everything and that upgrades it. Setup must be run by a member.
	//
	// Defaults to the owner of the table, and where there is none to the role that runs Setup.
	Owner string

	// AppRole is granted what requests need: the functions that take an id or a subject. It can
	// neither read the table nor list or clear all sessions. The role must exist.
	//
	// Defaults to none: nobody but the owner may do anything.
	AppRole string

	// AdminRole is granted what sees all sessions: list, count, revoke, clear, prune and the view.
	// It can neither read the table nor write a session. The role must exist.
	//
	// Defaults to none.
	AdminRole string

	// SkipMigrate makes Setup and Migrate check the schema and never change it.
	//
	// Defaults to false.
	SkipMigrate bool

	// IdleTimeout is the longest gap between two uses of a session that brings none of its own. -1:
	// none.
	//
	// Defaults to 24 hours.
	IdleTimeout time.Duration

	// AbsoluteTimeout is the greatest age of a session that brings none of its own. -1: none.
	//
	// Defaults to 30 days.
	AbsoluteTimeout time.Duration

	// Timeouts is asked at each Create, Set and Update for the timeouts of the session about to be
	// written; its answer goes before the session's own. Zero leaves one as it is, -1 is none. It is
	// called by many goroutines at once.
	//
	// Defaults to nil: sessions keep what they have.
	Timeouts func(Session) (idle, absolute time.Duration)

	// TouchInterval is how far a touch must move a session's deadline to be worth a write; below
	// that it writes nothing. -1: touches never write and sessions end IdleTimeout after the last
	// change of their timeouts, used or not.
	//
	// Defaults to a twentieth of each session's idle timeout.
	TouchInterval time.Duration

	// MaxPerSubject is how many live sessions a subject may have. It holds where a session becomes the
	// subject's, by Create, Set, Update or Renew, exactly and however many log in at once; sessions that
	// are there already are not ended by it. It needs transactions of the isolation read committed, and
	// the same value in all instances. In a transaction of the caller's a login, also one that fails, holds
	// up all other logins of its subject until the transaction ends. 0: no limit.
	//
	// Defaults to 0.
	MaxPerSubject int

	// Overflow says what becomes of a login beyond MaxPerSubject.
	//
	// Defaults to OverflowReject.
	Overflow Overflow

	// Tombstone is how long the row of an ended session stays, so that a slow request's save cannot
	// bring it back. -1: the row is deleted at once, and only saves of sessions that were loaded
	// (Version above 0) are held off. Never shorter than Cache.MaxAge where there is a cache.
	//
	// Defaults to 5 minutes, or Cache.MaxAge if that is longer.
	Tombstone time.Duration

	// RenewGrace is how long a token that was renewed goes on standing for its session, so that requests
	// that were under way with it succeed. Where the session is given to another subject, as at a login,
	// it ends at once. -1: there is none.
	//
	// Defaults to 10 seconds.
	RenewGrace time.Duration

	// MaxDataSize is the largest size of a session's data, coded, in bytes.
	//
	// Defaults to 1 MiB.
	MaxDataSize int

	// Codec codes all data that is written, whatever Session.Codec says. [Encrypt] makes one.
	//
	// Defaults to nil: data is stored as it is, marked as Session.Codec says.
	Codec Codec

	// Decoders are codecs that were Config.Codec once, by which rows can still be read.
	//
	// Defaults to none beside CodecOpaque and CodecJSON, which are always there.
	Decoders []Codec

	// RefuseClear makes it ErrCodec to read data that is stored in clear, by CodecOpaque or CodecJSON, so
	// that who can write to the table can neither plant data nor empty it, where an encrypting Codec would
	// not let them. Set it once the sessions from before that Codec have ended. It needs a Codec. What
	// stands in Decoders is still read: one that does not encrypt would let them too.
	//
	// Defaults to false.
	RefuseClear bool

	// KeyFunc replaces the hash that makes a session's id of its token. It must be one-way, since ids
	// are stored, shown, logged and notified; deterministic; free of collisions; and the same in
	// every instance. Its result has 1 to 256 bytes of UTF-8. It is called by many goroutines at once.
	//
	// Defaults to base64url(SHA-256(token)) without padding, 43 characters.
	KeyFunc func(token string) string

	// Peppers are keys of 32 bytes or more under which tokens are hashed, by HMAC-SHA-256, so that no guess
	// of a token can be checked against a copy of the table. The first one hashes the tokens of new
	// sessions; by the others older sessions are found, each at the cost of a lookup more where the ones
	// before find nothing. [NoPepper] is the hash without a key. Sessions keep their ids; [Sessions.Renew]
	// gives one by the first. For a change deploy twice: with the new one last, so that all instances know
	// it, and then with it first. What is left out ends its sessions. They exclude KeyFunc.
	//
	// Defaults to none: NoPepper.
	Peppers []Secret

	// Lock says what Set and Touch do while another write of the same session is under way.
	//
	// Defaults to LockWait.
	Lock LockMode

	// LockTimeout is how long Set, Touch and Destroy wait for a locked session, in milliseconds'
	// precision. -1: as long as the context allows.
	//
	// Defaults to 5 seconds.
	LockTimeout time.Duration

	// Listen opens a connection of its own to the database that the QueryFunc reaches, for this store
	// to hear of changes that other instances make; a second one proves that it hears, and publishes.
	// It is called again whenever one was lost, and by several goroutines at once; the store closes
	// what it returns. [ListenFrom] makes one of a pool. It must not go through PgBouncer in transaction
	// mode, where LISTEN succeeds and hears nothing: the store notices that, and reads through.
	//
	// Defaults to nil with New: there is no cache then, and [Store.Subscribe] hears nothing. With Open,
	// to connections as its pool's.
	Listen func(ctx context.Context) (*pgx.Conn, error)

	// Listeners are for sessions that are spread over several databases: one for each, beside Listen or
	// without it. Reads are served from memory while all are heard.
	//
	// Defaults to none.
	Listeners []func(ctx context.Context) (*pgx.Conn, error)

	// Cache configures the serving of reads from memory.
	Cache Cache

	// Notify says how writes are made known to other instances.
	//
	// Defaults to NotifyGrouped.
	Notify NotifyMode

	// Durability says what a crash of the server may undo.
	//
	// Defaults to DurabilityLogged: nothing.
	Durability Durability

	// Cleanup configures pruning.
	Cleanup Cleanup

	// Audit says what is recorded of the lives of sessions.
	Audit Audit

	// Check says what [Store.Check] warns of.
	Check Limits

	// Logger gets what no error can report: failed cleanups, what Setup did; and what happens to sessions,
	// at Debug, or with Audit.Log at Info. Never a token, never data.
	//
	// Defaults to slog.Default().
	Logger *slog.Logger
}

const (
	// maxIdentifierLength is PostgreSQL's NAMEDATALEN less one.
	maxIdentifierLength = 63
	// maxLockTimeout fits PostgreSQL's lock_timeout, an int4 of milliseconds.
	maxLockTimeout = 24 * 24 * time.Hour
	// maxTimeout keeps every deadline within what timestamptz and time.Duration hold.
	maxTimeout = 100 * 365 * 24 * time.Hour
)

// longestSuffix is the longest that is put to a table's name: longer names would be cut off, and two
// functions could end up as one.
const longestSuffix = "_prune_after_idx"

// config is a Config with its defaults in place, checked and resolved.
type config struct {
	Config
	columns []Column // types as the catalogue names them
	codecs  map[int16]Codec
	peppers []*pepper // nil: tokens are hashed without
}

func (c Config) withDefaults() Config {
	setDefault(&c.Schema, "pgsession")
	setDefault(&c.Table, "session")
	setDefault(&c.IdleTimeout, 24*time.Hour)
	setDefault(&c.AbsoluteTimeout, 30*24*time.Hour)
	setDefault(&c.Cache.Size, 64<<20)
	setDefault(&c.Cache.MaxAge, time.Minute)
	setDefault(&c.Cache.Liveness, min(3*time.Second, c.Cache.MaxAge))
	setDefault(&c.Tombstone, max(5*time.Minute, c.Cache.MaxAge))
	setDefault(&c.RenewGrace, 10*time.Second)
	setDefault(&c.MaxDataSize, 1<<20)
	setDefault(&c.LockTimeout, 5*time.Second)
	setDefault(&c.Audit.Retention, 90*24*time.Hour)
	c.Cleanup = c.Cleanup.withDefaults()
	c.Check = c.Check.withDefaults(c.Cleanup.Interval)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func setDefault[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

// Config returns the store's configuration, with its defaults in place.
func (s *Store) Config() Config { return s.store.cfg.Config }

// resolve puts the defaults in place and checks every field.
func (c Config) resolve() (*config, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	r := &config{Config: c}
	var err error
	if r.columns, err = resolveColumns(c.Columns); err != nil {
		return nil, err
	}
	if r.codecs, err = resolveCodecs("Config", c.Codec, c.Decoders); err != nil {
		return nil, err
	}
	if r.peppers, err = resolvePeppers(c.Peppers, c.KeyFunc); err != nil {
		return nil, err
	}
	return r, nil
}

func (c Config) validate() error {
	if err := validateIdentifier("Config.Schema", c.Schema); err != nil {
		return err
	}
	if err := validateIdentifier("Config.Table", c.Table); err != nil {
		return err
	}
	if n := maxIdentifierLength - len(longestSuffix); len(c.Table) > n {
		return fmt.Errorf("%w: Config.Table has %d bytes, at most %d: its functions' names would be cut off",
			ErrInvalid, len(c.Table), n)
	}
	for _, role := range []struct{ field, name string }{
		{"Config.Owner", c.Owner}, {"Config.AppRole", c.AppRole}, {"Config.AdminRole", c.AdminRole},
	} {
		if role.name == "" {
			continue
		}
		if err := validateIdentifier(role.field, role.name); err != nil {
			return err
		}
	}
	for _, d := range []struct {
		field string
		value time.Duration
		least time.Duration
	}{
		{"Config.IdleTimeout", c.IdleTimeout, time.Millisecond},
		{"Config.AbsoluteTimeout", c.AbsoluteTimeout, time.Millisecond},
		{"Config.TouchInterval", c.TouchInterval, 0},
		{"Config.Tombstone", c.Tombstone, time.Second},
		{"Config.RenewGrace", c.RenewGrace, time.Millisecond},
		{"Config.Audit.Retention", c.Audit.Retention, time.Second},
	} {
		if d.value != -1 && (d.value < d.least || d.value > maxTimeout) {
			return fmt.Errorf("%w: %s is %v; it must be -1, or from %v to 100 years",
				ErrInvalid, d.field, d.value, d.least)
		}
	}
	if err := c.validateCache(); err != nil {
		return err
	}
	switch {
	case c.LockTimeout != -1 && (c.LockTimeout < time.Millisecond || c.LockTimeout > maxLockTimeout):
		return fmt.Errorf("%w: Config.LockTimeout is %v; it must be -1, or from 1ms to 24 days", ErrInvalid, c.LockTimeout)
	case c.MaxDataSize < 1 || c.MaxDataSize > 512<<20:
		return fmt.Errorf("%w: Config.MaxDataSize is %d; it must be from 1 to 512 MiB", ErrInvalid, c.MaxDataSize)
	case c.Lock < LockWait || c.Lock > LockFail:
		return fmt.Errorf("%w: Config.Lock is %d, which is no LockMode", ErrInvalid, c.Lock)
	case c.RefuseClear && c.Codec == nil:
		return fmt.Errorf("%w: Config.RefuseClear without a Config.Codec", ErrInvalid)
	case c.MaxPerSubject < 0 || c.MaxPerSubject > math.MaxInt32:
		return fmt.Errorf("%w: Config.MaxPerSubject is %d; it must be 0 or positive", ErrInvalid, c.MaxPerSubject)
	case c.Overflow < OverflowReject || c.Overflow > OverflowEvictIdlest:
		return fmt.Errorf("%w: Config.Overflow is %d, which is no Overflow", ErrInvalid, c.Overflow)
	case c.Durability < DurabilityLogged || c.Durability > DurabilityUnlogged:
		return fmt.Errorf("%w: Config.Durability is %d, which is no Durability", ErrInvalid, c.Durability)
	}
	if err := c.Cleanup.validate(); err != nil {
		return err
	}
	return c.Check.validate()
}

func (c Config) validateCache() error {
	switch cache := c.Cache; {
	case cache.Mode < CacheOn || cache.Mode > CacheOff:
		return fmt.Errorf("%w: Config.Cache.Mode is %d, which is no CacheMode", ErrInvalid, cache.Mode)
	case cache.Size < 64<<10 || cache.Size > 1<<40:
		return fmt.Errorf("%w: Config.Cache.Size is %d; it must be from 64 KiB to 1 TiB", ErrInvalid, cache.Size)
	case cache.MaxAge < 100*time.Millisecond || cache.MaxAge > 24*time.Hour:
		return fmt.Errorf("%w: Config.Cache.MaxAge is %v; it must be from 100ms to 24h", ErrInvalid, cache.MaxAge)
	case cache.Liveness < 100*time.Millisecond || cache.Liveness > time.Hour:
		return fmt.Errorf("%w: Config.Cache.Liveness is %v; it must be from 100ms to 1h", ErrInvalid, cache.Liveness)
	case cache.Liveness > cache.MaxAge:
		return fmt.Errorf("%w: Config.Cache.Liveness is %v; it must not be above Config.Cache.MaxAge, %v",
			ErrInvalid, cache.Liveness, cache.MaxAge)
	case cache.WhenNotLive < ReadThrough || cache.WhenNotLive > ServeUntilMaxAge:
		return fmt.Errorf("%w: Config.Cache.WhenNotLive is %d, which is no WhenNotLive", ErrInvalid, cache.WhenNotLive)
	case c.Notify < NotifyGrouped || c.Notify > NotifyOff:
		return fmt.Errorf("%w: Config.Notify is %d, which is no NotifyMode", ErrInvalid, c.Notify)
	case slices.ContainsFunc(c.Listeners, func(f func(context.Context) (*pgx.Conn, error)) bool { return f == nil }):
		return fmt.Errorf("%w: Config.Listeners has a nil function", ErrInvalid)
	case cache.Mode == CacheOn && len(c.listeners()) > 0 && c.Tombstone != -1 && c.Tombstone < cache.MaxAge:
		return fmt.Errorf("%w: Config.Tombstone is %v; it must be -1, or at least Config.Cache.MaxAge, %v",
			ErrInvalid, c.Tombstone, cache.MaxAge)
	}
	return nil
}

// listeners are Listen and Listeners.
func (c Config) listeners() []func(ctx context.Context) (*pgx.Conn, error) {
	if c.Listen == nil {
		return c.Listeners
	}
	return append([]func(context.Context) (*pgx.Conn, error){c.Listen}, c.Listeners...)
}

func validateIdentifier(field, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: %s: a name is empty", ErrInvalid, field)
	case len(name) > maxIdentifierLength:
		return fmt.Errorf("%w: %s: the name %q has %d bytes, PostgreSQL's limit is %d",
			ErrInvalid, field, name, len(name), maxIdentifierLength)
	case strings.IndexByte(name, 0) >= 0:
		return fmt.Errorf("%w: %s: the name %q contains a NUL byte", ErrInvalid, field, name)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: %s: the name %q is not valid UTF-8", ErrInvalid, field, name)
	}
	return nil
}

// sessionTimeouts are the timeouts that a write of s asks for; zero leaves one to the functions.
func (c *config) sessionTimeouts(s Session) (idle, absolute time.Duration, err error) {
	idle, absolute = s.IdleTimeout, s.AbsoluteTimeout
	if c.Timeouts != nil {
		i, a := c.Timeouts(s)
		if i != 0 {
			idle = i
		}
		if a != 0 {
			absolute = a
		}
	}
	if idle > maxTimeout || absolute > maxTimeout {
		return 0, 0, fmt.Errorf("%w: a timeout of more than 100 years", ErrInvalid)
	}
	if (idle > 0 && idle < time.Microsecond) || (absolute > 0 && absolute < time.Microsecond) {
		return 0, 0, fmt.Errorf("%w: a timeout of less than a microsecond", ErrInvalid)
	}
	return idle, absolute, nil
}
