// Package movein moves an application's live sessions into pgsession from the table of another library:
// connect-pg-simple and koa-pg-session of Node, scs's pgxstore and postgresstore, gorilla's pgstore, and
// gofiber's storage. Nobody is logged out: the tokens in the browsers' cookies stay what they are, and
// what was their key in the old table is hashed on the way.
//
//	importer, err := movein.New(pool.Query, store, movein.SCS(pgx.Identifier{"sessions"}), movein.Options{})
//	...
//	err = importer.Setup(ctx)              // once
//	sessions := importer.Through()         // in the application, in place of the store
//	progress, err := importer.Copy(ctx)    // in a job, or behind it
//
// [Importer.Through] is the store, but that it looks into the old table for what it does not find,
// imports that one session, and goes on: requests need not wait for the copy. [Importer.Copy] brings the
// rest. Then the old table can go, and the table of marks with it, which is the store's with "_moved".
//
// # At most once
//
// The old table is left as it is, so that the application of before can go on, or come back. Each session
// that was imported, or that was ended meanwhile, has its mark, for ever: in one statement the old row
// is locked, the mark made and the session inserted, or none of it. So a session is imported at most
// once, and one that has ended is never imported again, also when its tombstone is gone. A session that
// the store has already is left alone, as newer. A copy that was cut off is simply begun again. Marks have
// the store's ids, so Config.Peppers must stay what they are while the old table is there.
//
// An imported session has the store's timeouts, or what is left of it where that is longer: it ends no
// sooner than it would have. One of scs has exactly what is left as its idle timeout, as scsstore writes
// it: there the library alone decides when a session ends.
//
// # What it cannot know
//
// What the application of before does to a session after it was imported, its logout included, does
// not reach the store: stop it before long. Through ends a session in both tables; Revoke, by contrast,
// ends what the store has, and of a subject's sessions that is all of them only after the copy.
package movein

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
)

// ErrSkip is for Options.Convert: the session is left out.
var ErrSkip = errors.New("session is left out")

// Options configure an [Importer]. The zero value works.
type Options struct {
	// Convert is called with each session as it will be stored: Data and Codec are the old table's, the
	// timeouts at least what is left of the session. It may change what an application may set, as the
	// Subject, which the old tables do not know. ErrSkip leaves the session out; any other error ends the
	// copy, or is that of the request. It may be called by many goroutines at once, and again for the
	// same session.
	//
	// Defaults to nil: sessions are stored as they are, anonymous.
	Convert func(*pgsession.Session) error

	// TrimPrefix is what the old table's keys begin with and tokens shall not: koa-generic-session puts
	// "koa:sess:" before what is in the cookie. Keys without it are left out.
	//
	// Defaults to "": the key is the token.
	TrimPrefix string

	// BatchSize is how many sessions one statement imports; they are in memory meanwhile.
	//
	// Defaults to 500.
	BatchSize int

	// Progress is called after each batch of a copy.
	//
	// Defaults to nil.
	Progress func(Progress)
}

// Importer imports sessions. Its methods may be called by many goroutines at once.
type Importer struct {
	query   pgsession.QueryFunc
	store   *pgsession.Store
	cfg     pgsession.Config
	source  Source
	options Options
	sql     statements
}

// New makes an importer from an old table into a store. query reaches the database that has both: a
// pool's Query, or [pgsession.FromSQL]; not a transaction. It needs the right to select, update and
// delete in the old table. New sends nothing.
func New(query pgsession.QueryFunc, store *pgsession.Store, source Source, options Options) (*Importer, error) {
	if options.BatchSize == 0 {
		options.BatchSize = 500
	}
	switch {
	case query == nil:
		return nil, fmt.Errorf("movein: %w: the QueryFunc is nil", pgsession.ErrInvalid)
	case store == nil:
		return nil, fmt.Errorf("movein: %w: the store is nil", pgsession.ErrInvalid)
	case options.BatchSize < 0:
		return nil, fmt.Errorf("movein: %w: Options.BatchSize is %d", pgsession.ErrInvalid, options.BatchSize)
	case source.err != nil:
		return nil, fmt.Errorf("movein: %w", source.err)
	case source.hashed && options.TrimPrefix != "":
		return nil, fmt.Errorf("movein: %w: Options.TrimPrefix, where keys are hashed", pgsession.ErrInvalid)
	}
	cfg := store.Config()
	if source.hashed && cfg.KeyFunc != nil {
		return nil, fmt.Errorf("movein: %w: the old table has hashes, and Config.KeyFunc makes others", pgsession.ErrInvalid)
	}
	switch {
	case source.hashed && len(cfg.Peppers) > 0:
		return nil, fmt.Errorf("movein: %w: the old table has hashes, and Config.Peppers make others", pgsession.ErrInvalid)
	case len(cfg.Peppers) > 1:
		return nil, fmt.Errorf("movein: %w: Config.Peppers has more than one: each would have marks of its own",
			pgsession.ErrInvalid)
	}
	return &Importer{
		query: query, store: store, cfg: cfg, source: source, options: options, sql: newStatements(cfg, source),
	}, nil
}

// Setup creates the table of marks, beside the store's, whose Setup must have run. Where it is there
// already no right to create anything is needed. Config.Owner owns it, and Config.AppRole may use it.
func (i *Importer) Setup(ctx context.Context) error {
	var there bool
	err := i.each(ctx, i.sql.marksExist, []any{i.sql.marks}, []any{&there}, func() {}, func() error { return nil })
	if err == nil && !there {
		err = i.each(ctx, i.sql.createMarks, nil, nil, func() {}, func() error { return nil })
	}
	if err != nil {
		return fmt.Errorf("movein: setup: %w", err)
	}
	return nil
}

// old is a row of the old table, before and after it became a session.
type old struct {
	place, xid string // the version of the row
	cursor     string
	key        string
	data       []byte
	remaining  *float64 // seconds; nil: it never expires

	id      pgsession.ID
	session pgsession.Session
}

// read runs a statement that selects rows of the old table.
func (i *Importer) read(ctx context.Context, sql string, args ...any) ([]old, error) {
	var rows []old
	var row old
	dest := []any{&row.place, &row.xid, &row.cursor, &row.key, &row.data, &row.remaining}
	err := i.each(ctx, sql, args, dest, func() { rows = rows[:0] }, func() error {
		rows = append(rows, row)
		row = old{}
		return nil
	})
	return rows, err
}

// convert makes the row a session, coded as the store codes. It returns ErrSkip for one that is to be
// left out.
func (i *Importer) convert(row *old) error {
	token, ok := strings.CutPrefix(row.key, i.options.TrimPrefix)
	if !ok || token == "" {
		return ErrSkip
	}
	row.id = pgsession.ID(token)
	if !i.source.hashed {
		var err error
		if row.id, err = i.store.ID(pgsession.Token(token)); err != nil {
			return err
		}
	}
	if err := i.describe(row); err != nil {
		if errors.Is(err, ErrSkip) {
			return ErrSkip
		}
		return fmt.Errorf("session %s: %w", row.id, err)
	}
	return nil
}

func (i *Importer) describe(row *old) error {
	s := &row.session
	left := time.Duration(-1)
	if row.remaining != nil && *row.remaining < maxTimeout.Seconds() {
		left = max(time.Duration(*row.remaining*float64(time.Second)), time.Microsecond)
	}
	*s = pgsession.Session{
		Data: row.data, Codec: i.source.codec, ID: row.id,
		IdleTimeout:     longer(left, i.cfg.IdleTimeout),
		AbsoluteTimeout: longer(left, i.cfg.AbsoluteTimeout),
	}
	if i.source.exact {
		s.IdleTimeout = left
	}
	var err error
	if i.source.decode != nil {
		if s.Data, err = i.source.decode(s.Data); err != nil {
			return err
		}
	}
	if i.options.Convert != nil {
		if err = i.options.Convert(s); err != nil {
			return err
		}
	}
	if s.IdleTimeout == 0 { // Config's, as everywhere
		s.IdleTimeout = longer(left, i.cfg.IdleTimeout)
	}
	if s.AbsoluteTimeout == 0 {
		s.AbsoluteTimeout = longer(left, i.cfg.AbsoluteTimeout)
	}
	if i.cfg.Timeouts != nil {
		idle, absolute := i.cfg.Timeouts(*s)
		if idle != 0 {
			s.IdleTimeout = idle
		}
		if absolute != 0 {
			s.AbsoluteTimeout = absolute
		}
	}
	switch codec := i.cfg.Codec; {
	case codec != nil:
		s.Codec = codec.Number()
		if s.Data, err = codec.Encode(row.id, s.Data); err != nil {
			return fmt.Errorf("%w: codec %d, encoding: %w", pgsession.ErrCodec, s.Codec, err)
		}
	case s.Codec != pgsession.CodecOpaque && s.Codec != pgsession.CodecJSON:
		return fmt.Errorf("%w: codec %d is not Config.Codec", pgsession.ErrCodec, s.Codec)
	}
	if len(s.Data) > i.cfg.MaxDataSize {
		return fmt.Errorf("%w: %d bytes, Config.MaxDataSize is %d", pgsession.ErrTooLarge, len(s.Data), i.cfg.MaxDataSize)
	}
	return nil
}

// maxTimeout is pgsession's.
const maxTimeout = 100 * 365 * 24 * time.Hour

// longer returns the longer timeout; -1 is none, and the longest.
func longer(a, b time.Duration) time.Duration {
	if a < 0 || b < 0 {
		return -1
	}
	return max(a, b)
}

// maxAttempts bounds the repetition of what collided with others.
const maxAttempts = 10

// each runs a statement and calls row after each row was scanned into dest. What failed to serialize,
// as it may where the default isolation is above read committed, or met a deadlock has done nothing
// and is run again, after begin.
func (i *Importer) each(ctx context.Context, sql string, args, dest []any, begin func(), row func() error) error {
	for attempt := 1; ; attempt++ {
		begin()
		rows, err := i.query(ctx, sql, args...)
		if err == nil {
			err = scan(rows, dest, row)
		}
		var state interface{ SQLState() string }
		if err == nil || attempt == maxAttempts || !errors.As(err, &state) ||
			(state.SQLState() != codeSerialization && state.SQLState() != codeDeadlock) {
			return err
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// SQLSTATE codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
const (
	codeSerialization = "40001"
	codeDeadlock      = "40P01"
)

func scan(rows pgx.Rows, dest []any, row func() error) error {
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return err
		}
		if err := row(); err != nil {
			return err
		}
	}
	rows.Close()
	return rows.Err()
}

// pause lets whoever was in the way go on.
func pause(ctx context.Context) error {
	t := time.NewTimer(rand.N(20 * time.Millisecond))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
