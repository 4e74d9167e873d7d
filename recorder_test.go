package pgsession_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
)

// recorder keeps what passes through a QueryFunc.
type recorder struct {
	next pgsession.QueryFunc

	mu    sync.Mutex
	calls []call
}

type call struct {
	sql  string
	args []any
}

func (r *recorder) query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	r.mu.Lock()
	r.calls = append(r.calls, call{sql, args})
	r.mu.Unlock()
	return r.next(ctx, sql, args...)
}

// last returns the last call of a function of the store.
func (r *recorder) last(t *testing.T, function string) call {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.calls) - 1; i >= 0; i-- {
		if strings.Contains(r.calls[i].sql, `."session_`+function+`"(`) {
			return r.calls[i]
		}
	}
	t.Fatalf("%s was never called", function)
	return call{}
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.calls)
}
