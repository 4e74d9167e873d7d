package pgsession

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Errors that callers tell apart with [errors.Is]. Each comes wrapped in an [*Error] that names the
// operation and the session's id, never its token. What none of these describes is the driver's own
// error, within reach of [errors.As]: a database that is down is never ErrNotFound.
var (
	// ErrNotFound: there is no such session, or it has expired, or it was ended.
	ErrNotFound = errors.New("session not found")

	// ErrRevoked: the session was ended, and this write came after. Nothing was written. A handler
	// that ends its request with a save may ignore it: the user has logged out meanwhile.
	ErrRevoked = errors.New("session was ended")

	// ErrRenewed: the token was replaced by [Sessions.Renew], and this write came by the old one. Nothing
	// was written. It is ErrRevoked too.
	ErrRenewed error = renewedError{}

	// ErrConflict: another version of the session is there than the one expected. Nothing was written;
	// [Sessions.Set] returns what is there. [Sessions.Update] returns it when it gave up retrying.
	ErrConflict = errors.New("session was changed by someone else")

	// ErrBusy: the session stayed locked, for Config.LockTimeout in mode [LockWait] and at the first
	// look in mode [LockFail]. Nothing was written. At a login under Config.MaxPerSubject the wait may be for
	// other logins of the subject, and in a transaction of the caller's these then wait for its end: it keeps
	// the locks that it got. Of [Store.Prune]: expired sessions are for the hook of another instance to see
	// first.
	ErrBusy = errors.New("session is locked")

	// ErrTooLarge: the encoded data is larger than Config.MaxDataSize. Nothing was written.
	ErrTooLarge = errors.New("session data is too large")

	// ErrTooManySessions: the subject has Config.MaxPerSubject live sessions, and Config.Overflow is
	// [OverflowReject]. Nothing was written. In a transaction of the caller's, other logins of the subject
	// wait for its end nevertheless: end it soon.
	ErrTooManySessions = errors.New("the subject has too many sessions")

	// ErrInvalidToken: a token that is empty or longer than 1,024 bytes. It is ErrNotFound too: there
	// can be no such session.
	ErrInvalidToken = fmt.Errorf("invalid session token: %w", ErrNotFound)

	// ErrInvalid: an argument that cannot be stored or makes no sense; the message names it. Nothing
	// was written.
	ErrInvalid = errors.New("invalid argument")

	// ErrCodec: the data could not be encoded or decoded; the message names the id and the codec. The
	// stored session is as it was.
	ErrCodec = errors.New("session data cannot be coded")

	// ErrInDoubt: a write was cut off, by a context that ended or a connection that was lost, after it
	// had been sent: it may have been committed. Where the QueryFunc does not tell whether it was sent, this
	// is the error too: so with a context that ended while waiting for a connection, but for [Open] and
	// [FromPool].
	ErrInDoubt = errors.New("the write may or may not have been committed")

	// ErrUnpublished: the session was written, and is returned with this error, but the other instances
	// could not be told before the context ended, or within ten seconds. They will be, as soon as it works;
	// until then they may serve the version before, for Config.Cache.MaxAge at most.
	ErrUnpublished = errors.New("the write was committed but not yet published")

	// ErrNotSetUp: the schema, or a part of it, is not there: run [Store.Setup].
	ErrNotSetUp = errors.New("session store is not set up")

	// ErrClosed: the store was closed.
	ErrClosed = errors.New("session store is closed")
)

// renewedError is ErrRevoked by another name.
type renewedError struct{}

func (renewedError) Error() string { return "session was given a new token" }
func (renewedError) Unwrap() error { return ErrRevoked }

// Error is what every operation's error is wrapped in.
type Error struct {
	Op  string // the operation: "get", "set", "setup", ...
	ID  ID     // the session, where the operation is about one
	Err error
}

func (e *Error) Error() string {
	if e.ID == "" {
		return "pgsession: " + e.Op + ": " + e.Err.Error()
	}
	return "pgsession: " + e.Op + " " + string(e.ID) + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// SchemaError is returned by [Store.Setup] and [Store.Migrate] where the database is not what this
// version needs and they could not, or under Config.SkipMigrate must not, make it so.
type SchemaError struct {
	Schema, Table string
	// Problems names each thing that is missing or differs, as a sentence without a full stop.
	Problems []string
	// Err is why it could not be mended; nil under Config.SkipMigrate.
	Err error
}

func (e *SchemaError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "schema of %q.%q is not as needed: %s", e.Schema, e.Table, strings.Join(e.Problems, "; "))
	if e.Err != nil {
		fmt.Fprintf(&b, "; it could not be mended: %v", e.Err)
	}
	return b.String()
}

// Unwrap returns the cause and [ErrNotSetUp].
func (e *SchemaError) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrNotSetUp}
	}
	return []error{ErrNotSetUp, e.Err}
}

// SQLSTATE codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
const (
	codeUniqueViolation     = "23505"
	codeInvalidTransaction  = "25000"
	codeInFailedTransaction = "25P02"
	codeReadOnly            = "25006"
	codeInvalidSchema       = "3F000"
	codeSerialization       = "40001"
	codePermissionDenied    = "42501"
	codeUndefinedFunction   = "42883"
	codeUndefinedColumn     = "42703"
	codeDuplicateFunction   = "42723"
	codeDuplicateSchema     = "42P06"
	codeDuplicateTable      = "42P07"
	codeLockNotAvailable    = "55P03"
	codeInternal            = "XX000"
	codeUndefinedTable      = "42P01"
	classDataException      = "22"
	classConnection         = "08"
	// codeColumnsChanged is our own, raised by Setup's script.
	codeColumnsChanged = "PS001"
)

// codesNotSetUp are what a missing part of the schema looks like.
var codesNotSetUp = []string{codeUndefinedFunction, codeInvalidSchema, codeUndefinedColumn, codeUndefinedTable}

// codesInDoubt are errors that leave open whether the statement was committed: by their name
// (statement_completion_unknown), or because the server ends a session that waits for its standby
// after the commit (admin_shutdown, crash_shutdown). So does the class of connection exceptions, by
// which poolers report a server connection that they lost.
var codesInDoubt = []string{"40003", "57P01", "57P02"}

// sqlState returns the error's SQLSTATE, or "". Both pgx's and lib/pq's errors have the method.
func sqlState(err error) string {
	var e interface{ SQLState() string }
	if errors.As(err, &e) {
		return e.SQLState()
	}
	return ""
}

// classify makes a driver's error one of ours where it is one. refusable says that the statement has
// arguments that PostgreSQL may refuse; inDoubt that a write was cut off: see [cutOff].
func classify(ctx context.Context, err error, refusable, inDoubt bool) error {
	switch state := sqlState(err); {
	case slices.Contains(codesNotSetUp, state):
		err = fmt.Errorf("%w: %w", ErrNotSetUp, err)
	case state == codeLockNotAvailable:
		err = fmt.Errorf("%w: %w", ErrBusy, err)
	case (strings.HasPrefix(state, classDataException) || state == codeInvalidTransaction) && refusable:
		err = fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		// lib/pq's error for a context that ended is not the context's.
		err = fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	if inDoubt {
		err = fmt.Errorf("%w: %w", ErrInDoubt, err)
	}
	return err
}

// closedPools are what pgxpool and database/sql say when they were closed: errors that they do not
// export.
var closedPools = []string{"closed pool", "sql: database is closed"}

// cutOff says whether a statement may have been carried out although it failed: it was sent, and no
// answer came. answering says that the error came with the rows, not with the call. Where the driver
// does not tell, the answer is yes: so with a context that ended, since pgx's simple protocol reports
// it as a pool does that had no free connection.
func cutOff(err error, answering bool) bool {
	if errors.As(err, new(*notSentError)) {
		return false
	}
	if state := sqlState(err); state != "" {
		return strings.HasPrefix(state, classConnection) || slices.Contains(codesInDoubt, state)
	}
	if pgconn.SafeToRetry(err) {
		// "conn closed" may hide the error of a statement that was sent (pgx v5.12, simple protocol).
		return strings.HasSuffix(err.Error(), "conn closed")
	}
	if answering {
		return true
	}
	var dial *net.OpError
	switch {
	case errors.Is(err, sql.ErrTxDone), errors.Is(err, sql.ErrConnDone), errors.Is(err, pgx.ErrTxClosed):
		return false
	case slices.Contains(closedPools, err.Error()):
		return false
	case errors.As(err, new(*sqlError)):
		return true // database/sql runs a statement again whose connection was lost
	case errors.As(err, new(*pgconn.ConnectError)), errors.As(err, &dial) && dial.Op == "dial":
		return false
	}
	return true
}
