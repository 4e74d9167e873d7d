package pgsession

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// Session is one session: what the application stores, and what the store knows about it.
//
// The first group is the application's: [Sessions.Create], [Sessions.Set] and [Sessions.Update]
// write it. The second is the store's: reads fill it in, and writes ignore it but for Version.
type Session struct {
	// Subject is whom the session belongs to, a user id as a rule. Empty: an anonymous session, which it
	// becomes by a Set with an empty one. At most 1,024 bytes of UTF-8.
	Subject string

	// Data is the application's bytes. The store does not look into them.
	Data []byte

	// Codec is how Data is coded at rest: [CodecOpaque], [CodecJSON], or the number of one of
	// Config.Decoders. Ignored by writes where Config.Codec is set.
	Codec int16

	// Columns are the values of Config.Columns by name. Reads give each as a string, in PostgreSQL's
	// text form, or nil for NULL. Writes take strings, numbers, booleans, [time.Time], [time.Duration],
	// []byte, [encoding/json.RawMessage], [database/sql/driver.Valuer], [encoding.TextMarshaler], [fmt.Stringer], pointers to
	// these, slices of these for arrays, and nil for NULL; a column that is not named keeps its value, or
	// is NULL in a new session.
	Columns map[string]any

	// IdleTimeout is the longest gap between two uses, in microseconds' precision. Negative: none.
	// Zero, in a write: what the session has, and for a new one Config.IdleTimeout.
	IdleTimeout time.Duration

	// AbsoluteTimeout is the greatest age, counted from CreatedAt. Negative: none. Zero, in a write:
	// what the session has, and for a new one Config.AbsoluteTimeout.
	AbsoluteTimeout time.Duration

	// ID is the session's key; the token cannot be had from it.
	ID ID

	// CreatedAt is when the session began, by the server's clock, in UTC.
	CreatedAt time.Time

	// ExpiresAt is when it will end if it is not used: the earlier of both deadlines. A session with
	// neither has the year 9999 here: arithmetic on infinity is an error before PostgreSQL 17.
	ExpiresAt time.Time

	// Version changes with every change of the session, but not with a touch. Above 0 in
	// [Sessions.Set] it demands that very version, and never creates a session.
	Version int64
}

// Filter narrows [Sessions.All] and [Sessions.Count]. The zero Filter is all sessions of everyone,
// which Config.AdminRole may see and Config.AppRole may not.
type Filter struct {
	// Subject: only the sessions of this subject. Empty is everyone's: for a page of "my devices" make
	// sure first that the visitor is logged in.
	Subject string
	// Columns: only sessions whose promoted columns equal these; nil is NULL. Values as in
	// [Session.Columns].
	Columns map[string]any
}

// Revocation says which sessions [Sessions.Revoke] ends. One of IDs, Subject and Everyone must be given:
// what is empty by mistake ends nothing.
type Revocation struct {
	// IDs: these sessions, whoever's; an empty list that is not nil ends none. With Subject as well:
	// only those of them that are the subject's, which is what a page needs on which users end their
	// own sessions. Make sure there that the subject is not empty: an anonymous visitor has none. An id
	// that has been renewed stands for its successor for as long as its tombstone stays, which
	// Config.Tombstone says; afterwards it ends nothing.
	IDs []ID
	// Subject: all sessions of this subject.
	Subject string
	// Everyone: all sessions, of all subjects and of none, as Config.AdminRole may; not inside a
	// transaction of the caller's. It excludes IDs and Subject.
	Everyone bool
	// Columns: of those named above only the sessions whose promoted columns equal these, as in [Filter]. A
	// tenant's, say, are Everyone's with Columns; sessions that begin meanwhile may stay. An empty map is
	// an error.
	Columns map[string]any
	// Except stay: the session of the one who asks, as a rule.
	Except []ID
	// Actor and Reason are by whom and why, for what Config.Audit records: at most 1,024 bytes of UTF-8
	// each. They are recorded as they are, and mean nothing to the store.
	Actor, Reason string
}

// noTimeout is how "none" is written in a Session that was read.
const noTimeout time.Duration = -1

// row is a session as the functions return it.
type row struct {
	status     string
	id         string
	subject    pgtype.Text
	data       []byte
	codec      pgtype.Int2
	createdAt  pgtype.Timestamptz
	expiresAt  pgtype.Timestamptz
	absoluteAt pgtype.Timestamptz
	idle       pgtype.Float8 // seconds
	version    pgtype.Int8
	columns    pgtype.Text // a JSON object of strings and nulls
	renewedTo  pgtype.Text
	ended      pgtype.Text // a JSON object of ids and versions

	// For the cache, and to publish.
	server    pgtype.Timestamptz // null: not to be cached
	remaining pgtype.Float8      // seconds
	committed committed
}

// dest are the targets for the statements' sessionResult, after first.
func (r *row) dest(cfg *config, first ...any) []any {
	dest := make([]any, 0, 15)
	dest = append(append(dest, first...), &r.subject, &r.data, &r.codec, &r.createdAt, &r.expiresAt, &r.absoluteAt,
		&r.idle, &r.version)
	if len(cfg.columns) > 0 {
		dest = append(dest, &r.columns)
	}
	return dest
}

// written are the targets for what set and renew return.
func (r *row) written(cfg *config) []any {
	dest := r.answer(cfg)
	if cfg.MaxPerSubject > 0 {
		last := len(dest) - 1 // committed, which stays the last
		dest = append(dest[:last], &r.ended, dest[last])
	}
	return dest
}

// answer are the targets for what get returns.
func (r *row) answer(cfg *config) []any {
	dest := r.dest(cfg, &r.status, &r.renewedTo)
	if cfg.listens() {
		dest = append(dest, &r.server, &r.remaining)
	}
	return append(dest, &r.committed)
}

// touchDest are the targets for the result of touch.
func (r *row) touchDest(cfg *config) []any {
	dest := []any{&r.status, &r.renewedTo, &r.expiresAt}
	if cfg.listens() {
		dest = append(dest, &r.version, &r.server, &r.remaining)
	}
	return append(dest, &r.committed)
}

// session makes a Session of the row, decoding its data. The error names the codec.
func (c *core) session(id ID, r *row) (Session, error) {
	s, err := c.undecoded(id, r)
	if err == nil {
		s.Data, err = c.cfg.decode(id, s.Codec, r.data)
	}
	if err != nil {
		return Session{ID: id}, err
	}
	return s, nil
}

// undecoded is session without the data.
func (c *core) undecoded(id ID, r *row) (Session, error) {
	for _, t := range []*pgtype.Timestamptz{&r.createdAt, &r.expiresAt, &r.absoluteAt} {
		if t.InfinityModifier != pgtype.Finite {
			return Session{ID: id}, errors.New("a time in the row is infinite")
		}
	}
	s := Session{
		ID:              id,
		Subject:         r.subject.String,
		Codec:           r.codec.Int16,
		IdleTimeout:     noTimeout,
		AbsoluteTimeout: noTimeout,
		CreatedAt:       r.createdAt.Time.UTC(),
		ExpiresAt:       r.expiresAt.Time.UTC(),
		Version:         r.version.Int64,
	}
	if r.idle.Valid {
		s.IdleTimeout = time.Duration(math.Round(r.idle.Float64*1e6)) * time.Microsecond
	}
	if r.absoluteAt.Valid {
		s.AbsoluteTimeout = r.absoluteAt.Time.Sub(r.createdAt.Time)
	}
	var err error
	if s.Columns, err = c.cfg.parseColumns(r.columns.String); err != nil {
		return Session{ID: id}, err
	}
	return s, nil
}

// empty says whether there is nothing to store of a session: no subject, no data, and no column that is not
// NULL. Timeouts alone are not worth a row. It is the application's data that counts: what a codec makes of
// none, as encryption does, are bytes too.
func (s *Session) empty() bool {
	if s.Subject != "" || len(s.Data) > 0 {
		return false
	}
	for _, value := range s.Columns {
		if _, null, err := columnText(value); err != nil || !null {
			return false
		}
	}
	return true
}

// content is what a write sends of a session beside its subject.
type content struct {
	data           []byte
	codec          int16
	columns        any
	idle, absolute any
}

// content checks and codes what is to be written.
func (c *config) content(id ID, s Session) (content, error) {
	if err := validateSubject(s.Subject); err != nil {
		return content{}, err
	}
	data, codec, err := c.encode(id, s.Codec, s.Data)
	if err != nil {
		return content{}, err
	}
	columns, err := columnsArg(s.Columns)
	if err != nil {
		return content{}, err
	}
	idle, absolute, err := c.sessionTimeouts(s)
	if err != nil {
		return content{}, err
	}
	return content{data, codec, columns, timeoutArg(idle), timeoutArg(absolute)}, nil
}

// timeoutArg is the argument for a timeout: null where the server shall choose.
func timeoutArg(d time.Duration) any {
	if d == 0 {
		return nil
	}
	return secondsArg(d)
}

// secondsArg is a duration as an argument: float seconds, since the drivers do not agree on more.
func secondsArg(d time.Duration) float64 {
	if d < 0 {
		return -1
	}
	return float64(d.Microseconds()) / 1e6
}

// parseColumns returns the values of Config.Columns: another instance may have promoted more.
func (c *config) parseColumns(text string) (map[string]any, error) {
	if text == "" {
		return nil, nil
	}
	var values map[string]any
	if err := json.Unmarshal([]byte(text), &values); err != nil {
		return nil, fmt.Errorf("promoted columns: %w", err)
	}
	maps.DeleteFunc(values, func(name string, _ any) bool {
		return !slices.ContainsFunc(c.columns, func(o Column) bool { return o.Name == name })
	})
	return values, nil
}
