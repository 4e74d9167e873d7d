package pgsession_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
)

// outside makes of a QueryFunc one that goroutines of a synctest bubble may call, one at a time. pgx has a
// goroutine of its own wake who waits for a connection where the network is slow, which the runtime does not
// let it do to those of a bubble.
func outside(t *testing.T, query pgsession.QueryFunc) pgsession.QueryFunc {
	t.Helper()
	calls, done := make(chan func()), make(chan struct{})
	go func() {
		for call := range calls {
			call()
			done <- struct{}{}
		}
	}()
	t.Cleanup(func() { close(calls) })
	do := func(call func()) {
		calls <- call
		<-done
	}
	return func(ctx context.Context, sql string, args ...any) (rows pgx.Rows, err error) {
		// Nor may pgx wait for a context of the bubble.
		do(func() { rows, err = query(context.WithoutCancel(ctx), sql, args...) }) //nolint:sqlclosecheck // the caller does
		if err != nil {
			return nil, err
		}
		return outsideRows{rows, do}, nil
	}
}

type outsideRows struct {
	pgx.Rows
	do func(func())
}

func (r outsideRows) Next() (ok bool) {
	r.do(func() { ok = r.Rows.Next() })
	return ok
}

func (r outsideRows) Scan(dest ...any) (err error) {
	r.do(func() { err = r.Rows.Scan(dest...) })
	return err
}

func (r outsideRows) Close() { r.do(r.Rows.Close) }
