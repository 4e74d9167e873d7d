package pgsession

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// QueryFunc runs one statement and returns its rows. It is the only way in which a [Store] reaches
// the database, so that callers bring their own pool, connection or transaction: the Query methods
// of [pgxpool.Pool], [pgx.Conn] and [pgx.Tx] are QueryFuncs as they are, and [FromSQL] makes one for
// database/sql.
//
// Every call is one statement with arguments of the types string, []byte, int64, float64, bool,
// [time.Time] and nil, in every pgx.QueryExecMode and through PgBouncer in transaction mode. The modes
// that get results as text, exec and simple_protocol, need the defaults of bytea_output (hex) and
// DateStyle (ISO). A QueryFunc for a Store is called by many goroutines at once, so a single connection
// needs a lock of the caller's around it.
//
// An error that came before anything was sent may say so by a method SafeToRetry() bool, as pgx's do:
// else a write that failed is in doubt. Of a context that ended while it waited for a connection
// [pgxpool.Pool.Query] does not tell; [FromPool] does.
//
// Whether a write was in a transaction is asked of the rows' Conn. Where a QueryFunc wraps the rows and
// Conn returns nil, it may have been: its reply is not cached, and each write is published by a
// statement of its own through the QueryFunc. So pass Conn on.
//
// A QueryFunc of a Store may lead into a transaction that it finds in the context, and writes then are
// published after its commit. But the store is not told of its end, and Get and View may serve what was
// committed before: they do not show for sure what the transaction itself has written, which GetFresh and Update
// do. [Store.WithQuery] has none of this; use it where one knows of the transaction.
type QueryFunc func(ctx context.Context, sql string, args ...any) (pgx.Rows, error)

// FromPool makes a [QueryFunc] of a pool. It is the pool's Query, but that what waited in vain for a
// connection is known not to have been sent. By pool.Query such a write is [ErrInDoubt], and is made
// known to all instances: where a pool is exhausted, these are many. It returns nil for nil, which New
// refuses.
func FromPool(pool *pgxpool.Pool) QueryFunc {
	if pool == nil {
		return nil
	}
	return func(ctx context.Context, query string, args ...any) (pgx.Rows, error) {
		conn, err := pool.Acquire(ctx)
		if err != nil {
			return nil, &notSentError{err}
		}
		rows, err := conn.Query(ctx, query, args...)
		if err != nil {
			conn.Release()
			return nil, err
		}
		return &poolRows{rows, conn}, nil
	}
}

// poolRows are rows that give their connection back.
type poolRows struct {
	pgx.Rows
	conn *pgxpool.Conn
}

// Next closes the rows after the last one.
func (r *poolRows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	r.Close()
	return false
}

func (r *poolRows) Scan(dest ...any) error {
	err := r.Rows.Scan(dest...)
	if err != nil {
		r.Close()
	}
	return err
}

func (r *poolRows) Close() {
	r.Rows.Close()
	r.conn.Release() // again does nothing
}

// SQLQuerier is what [FromSQL] needs of database/sql: [sql.DB], [sql.Conn] and [sql.Tx] have it.
type SQLQuerier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// FromSQL makes a [QueryFunc] of a [sql.DB], [sql.Conn] or [sql.Tx], with the driver
// github.com/jackc/pgx/v5/stdlib or github.com/lib/pq. It returns nil for nil, which New refuses.
//
// Calls by way of one FromSQL of a [sql.Conn] or [sql.Tx] take turns, since a connection is busy until
// the rows are closed, and the drivers do not see to that: with rows of one's own open, they wait.
func FromSQL(db SQLQuerier) QueryFunc {
	if v := reflect.ValueOf(db); !v.IsValid() || (v.Kind() == reflect.Pointer && v.IsNil()) {
		return nil
	}
	_, autocommits := db.(*sql.DB)
	_, inTx := db.(*sql.Tx)
	release := func() {}
	acquire := func(context.Context) error { return nil }
	switch db.(type) {
	case *sql.Conn, *sql.Tx:
		turn := make(chan struct{}, 1)
		release = func() { <-turn }
		acquire = func(ctx context.Context) error {
			select {
			case turn <- struct{}{}:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return func(ctx context.Context, query string, args ...any) (pgx.Rows, error) {
		if err := acquire(ctx); err != nil {
			return nil, &notSentError{err}
		}
		rows, err := db.QueryContext(ctx, query, args...) //nolint:rowserrcheck // whoever gets the rows checks it
		if err != nil {
			release()
			return nil, &sqlError{err}
		}
		return &sqlRows{rows: rows, autocommits: autocommits, inTx: inTx, release: sync.OnceFunc(release)}, nil
	}
}

// notSentError marks an error that came before the statement was sent.
type notSentError struct{ error }

func (e *notSentError) Unwrap() error     { return e.error }
func (e *notSentError) SafeToRetry() bool { return true }

// sqlError marks an error as one of database/sql: it says less about what was sent.
type sqlError struct{ error }

func (e *sqlError) Unwrap() error { return e.error }

// sqlRows makes pgx.Rows of *sql.Rows. The library uses Next, Scan, Err and Close; the rest is
// there for callers who wrap a QueryFunc.
type sqlRows struct {
	rows        *sql.Rows
	autocommits bool
	inTx        bool
	release     func() // may be called again
	err         error
}

func (r *sqlRows) Scan(dest ...any) error { return r.rows.Scan(dest...) }

// Next closes the rows after the last one, as pgx does.
func (r *sqlRows) Next() bool {
	if r.rows.Next() {
		return true
	}
	r.release()
	return false
}

func (r *sqlRows) Close() {
	if err := r.rows.Close(); r.err == nil {
		r.err = err
	}
	r.release()
}

func (r *sqlRows) Err() error {
	if err := r.rows.Err(); err != nil {
		return err
	}
	return r.err
}

func (r *sqlRows) Conn() *pgx.Conn               { return nil }
func (r *sqlRows) TypeMap() *pgtype.Map          { return nil }
func (r *sqlRows) CommandTag() pgconn.CommandTag { return pgconn.CommandTag{} }
func (r *sqlRows) RawValues() [][]byte           { return nil }

func (r *sqlRows) FieldDescriptions() []pgconn.FieldDescription {
	names, err := r.rows.Columns()
	if err != nil {
		return nil
	}
	fields := make([]pgconn.FieldDescription, len(names))
	for i, name := range names {
		fields[i].Name = name
	}
	return fields
}

func (r *sqlRows) Values() ([]any, error) {
	names, err := r.rows.Columns()
	if err != nil {
		return nil, err
	}
	values, dest := make([]any, len(names)), make([]any, len(names))
	for i := range values {
		dest[i] = &values[i]
	}
	return values, r.rows.Scan(dest...)
}

// statement is one call of a function.
type statement struct {
	sql       string
	write     bool // it changes something
	refusable bool // it has arguments that PostgreSQL may refuse: columns of their types, from the caller
}

// maxAttempts bounds the retries of a statement that failed to serialize.
const maxAttempts = 50

// errNoRow is a function that returned no row where it must return one: not our function.
var errNoRow = errors.New("the function returned no row")

// one runs a statement that returns exactly one row, into dest.
func (s *sessions) one(ctx context.Context, st statement, args []any, dest ...any) error {
	got := false
	err := s.each(ctx, st, args, dest, func() { got = false }, func() { got = true })
	if err == nil && !got {
		return errNoRow
	}
	return err
}

// each runs a statement and calls row after each row was scanned into dest.
//
// Where the default isolation is above read committed, a statement can fail to serialize, also at its
// commit, with its rows already delivered. Outside a transaction of the caller's it has then done
// nothing, and is run again: begin is called before each attempt, to forget the rows of the one
// before.
func (s *sessions) each(ctx context.Context, st statement, args, dest []any, begin, row func()) error {
	if s.store.closed.Load() {
		return ErrClosed
	}
	if s.query == nil {
		return fmt.Errorf("%w: the QueryFunc is nil", ErrInvalid)
	}
	var first error
	for attempt := 1; ; attempt++ {
		if err := ctx.Err(); err != nil {
			return s.orClosed(classify(ctx, cmp.Or(first, err), false, false))
		}
		begin()
		rows, err := s.query(ctx, st.sql, args...)
		answering := err == nil
		if answering {
			dest := dest
			if n := len(dest) - 1; n >= 0 {
				if c, ok := dest[n].(*committed); ok {
					*c = committed(s.autocommits(rows))
					dest = dest[:n]
				}
			}
			err = scan(rows, dest, row)
		}
		if err == nil {
			return nil
		}
		state := sqlState(err)
		if first != nil && state == codeInFailedTransaction {
			// The QueryFunc is a transaction that nobody told us of: what failed it is the news.
			return classify(ctx, first, false, false)
		}
		if s.inTx || state != codeSerialization || attempt == maxAttempts {
			err = classify(ctx, err, st.refusable, st.write && cutOff(err, answering))
			if state == "" {
				err = s.orClosed(err)
			}
			return err
		}
		first = err
		s.store.stats.retries.Add(1)
		pause(ctx, attempt)
	}
}

// orClosed says of an error that is not the server's when Close may have caused it, by taking the pool or the
// context away under the call.
func (s *sessions) orClosed(err error) error {
	if s.store.closed.Load() {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return err
}

// committed is a target that no column fills: whether what was answered is known to be committed, as far as
// this statement has a part in it: whether it was a transaction of its own.
type committed bool

// autocommits says whether it is known of a statement that it is a transaction of its own. Its rows
// are still open: afterwards their connection may be another's.
//
// The server cannot be asked, since to its functions a transaction of one statement is like the first
// one of many.
func (s *sessions) autocommits(rows pgx.Rows) bool {
	if s.inTx {
		return false
	}
	if r, ok := rows.(*sqlRows); ok {
		return r.autocommits
	}
	conn := rows.Conn()
	if conn == nil {
		return false
	}
	own := conn.PgConn().TxStatus() == 'I' // as it was before the statement
	if !own {
		s.store.untold.Store(true)
	}
	return own
}

// inTransaction says whether the QueryFunc is known to run its statements inside a transaction that is not
// committed by them: a transaction that was given to New.
func (s *sessions) inTransaction(ctx context.Context) (known bool, err error) {
	if s.store.closed.Load() {
		return false, ErrClosed
	}
	rows, err := s.query(ctx, "select")
	if err == nil {
		if r, ok := rows.(*sqlRows); ok {
			known = r.inTx
		} else if conn := rows.Conn(); conn != nil {
			known = conn.PgConn().TxStatus() != 'I'
		}
		err = scan(rows, nil, func() {})
	}
	if err != nil {
		return false, classify(ctx, err, false, false)
	}
	return known, nil
}

// backend returns the process of a connection as the driver knows it, 0 where it does not tell, and
// as the server does. A pooler makes them differ.
func (s *sessions) backend(ctx context.Context) (known, real uint32, err error) {
	if s.store.closed.Load() {
		return 0, 0, ErrClosed
	}
	rows, err := s.query(ctx, "select pg_catalog.pg_backend_pid()")
	if err == nil {
		if conn := rows.Conn(); conn != nil {
			known = conn.PgConn().PID()
		}
		var pid int32
		err = scan(rows, []any{&pid}, func() { real = uint32(pid) })
	}
	if err != nil {
		return 0, 0, classify(ctx, err, false, false)
	}
	return known, real, nil
}

func scan(rows pgx.Rows, dest []any, row func()) error {
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return fmt.Errorf("reading the result (as text it needs bytea_output hex and DateStyle ISO): %w", err)
		}
		row()
	}
	rows.Close()
	return rows.Err()
}

// pause waits before another attempt, longer each time and at random, so that those who collided
// do not meet again. It ends early with the context.
func pause(ctx context.Context, attempt int) {
	t := time.NewTimer(rand.N(time.Millisecond << min(attempt, 6)))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
