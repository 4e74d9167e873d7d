package pgsession_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
)

func TestNewNamesTheFieldThatIsBad(t *testing.T) {
	t.Parallel()
	column := func(c ...pgsession.Column) pgsession.Config { return pgsession.Config{Columns: c} }
	long, century := strings.Repeat("x", 64), 101*365*24*time.Hour
	for _, bad := range []struct {
		field string
		cfg   pgsession.Config
	}{
		{"Config.Schema", pgsession.Config{Schema: long}},
		{"Config.Schema", pgsession.Config{Schema: "a\x00b"}},
		{"Config.Schema", pgsession.Config{Schema: "a\xffb"}},
		{"Config.Table", pgsession.Config{Table: long[:48]}},
		{"Config.Table", pgsession.Config{Table: "a\x00b"}},
		{"Config.Owner", pgsession.Config{Owner: long}},
		{"Config.AppRole", pgsession.Config{AppRole: long}},
		{"Config.AdminRole", pgsession.Config{AdminRole: long}},
		{"Config.IdleTimeout", pgsession.Config{IdleTimeout: -2}},
		{"Config.IdleTimeout", pgsession.Config{IdleTimeout: time.Microsecond}},
		{"Config.IdleTimeout", pgsession.Config{IdleTimeout: century}},
		{"Config.AbsoluteTimeout", pgsession.Config{AbsoluteTimeout: -time.Hour}},
		{"Config.AbsoluteTimeout", pgsession.Config{AbsoluteTimeout: century}},
		{"Config.TouchInterval", pgsession.Config{TouchInterval: -2}},
		{"Config.TouchInterval", pgsession.Config{TouchInterval: century}},
		{"Config.Tombstone", pgsession.Config{Tombstone: time.Millisecond}},
		{"Config.LockTimeout", pgsession.Config{LockTimeout: time.Microsecond}},
		{"Config.RenewGrace", pgsession.Config{RenewGrace: time.Microsecond}},
		{"Config.Audit.Retention", pgsession.Config{Audit: pgsession.Audit{Retention: time.Millisecond}}},
		{"Config.MaxPerSubject", pgsession.Config{MaxPerSubject: -1}},
		{"Config.Overflow", pgsession.Config{Overflow: pgsession.OverflowEvictIdlest + 1}},
		{"Config.MaxDataSize", pgsession.Config{MaxDataSize: -1}},
		{"Config.MaxDataSize", pgsession.Config{MaxDataSize: 512<<20 + 1}},
		{"Config.Lock", pgsession.Config{Lock: -1}},
		{"Config.Lock", pgsession.Config{Lock: pgsession.LockFail + 1}},
		{"Config.Cleanup.Mode", pgsession.Config{Cleanup: pgsession.Cleanup{Mode: -1}}},
		{"Config.Cleanup.Interval", pgsession.Config{Cleanup: pgsession.Cleanup{Interval: -1}}},
		{"Config.Cleanup.BatchSize", pgsession.Config{Cleanup: pgsession.Cleanup{BatchSize: -1}}},
		{"Config.Cleanup.Mode", pgsession.Config{Cleanup: pgsession.Cleanup{Mode: pgsession.CleanupOff + 1}}},
		{"Config.Cleanup.OneIn", pgsession.Config{Cleanup: pgsession.Cleanup{OneIn: -1}}},
		{"Config.Cleanup.Lease", pgsession.Config{Cleanup: pgsession.Cleanup{Lease: 25 * time.Hour}}},
		{"Config.Cleanup.OnPrune", pgsession.Config{Cleanup: pgsession.Cleanup{Mode: pgsession.CleanupPgCron, OnPrune: new(catcher).catch}}},
		{"Config.Durability", pgsession.Config{Durability: pgsession.DurabilityUnlogged + 1}},
		{"Config.Check.Lag", pgsession.Config{Check: pgsession.Limits{Lag: -1}}},
		{"Config.Check.SnapshotAge", pgsession.Config{Check: pgsession.Limits{SnapshotAge: -1}}},
		{"Config.Check.Queue", pgsession.Config{Check: pgsession.Limits{Queue: 1.1}}},
		{"Config.Check.Dead", pgsession.Config{Check: pgsession.Limits{Dead: -1}}},
		{"Config.Codec", pgsession.Config{Codec: mask(99)}},
		{"Config.Decoders", pgsession.Config{Decoders: []pgsession.Codec{nil}}},
		{"Config.Decoders", pgsession.Config{Decoders: []pgsession.Codec{mask(-1)}}},
		{"Config.Decoders", pgsession.Config{Codec: mask(100), Decoders: []pgsession.Codec{mask(100)}}},
		{"Config.Columns", column(pgsession.Column{Name: "", Type: "text"})},
		{"Config.Columns", column(pgsession.Column{Name: long, Type: "text"})},
		{"Config.Columns", column(pgsession.Column{Name: "data", Type: "text"})},
		{"Config.Columns", column(pgsession.Column{Name: "expires_in", Type: "text"})},
		{"Config.Columns", column(pgsession.Column{Name: "xmin", Type: "text"})},
		{"Config.Columns", column(pgsession.Column{Name: "ip", Type: "public.mine"})},
		{"Config.Columns", column(pgsession.Column{Name: "ip", Type: "inet[][]"})},
		{"Config.Columns", column(pgsession.Column{Name: "a", Type: "text"}, pgsession.Column{Name: "a", Type: "int"})},
		{"Config.Columns", column(make([]pgsession.Column, 49)...)},
	} {
		_, err := pgsession.New(new(pgx.Conn).Query, bad.cfg)
		wantError(t, bad.field, err, pgsession.ErrInvalid)
		if err != nil && !strings.Contains(err.Error(), bad.field) {
			t.Errorf("%v: does not name %s", err, bad.field)
		}
	}
	_, err := pgsession.New(nil, pgsession.Config{})
	wantError(t, "a nil QueryFunc", err, pgsession.ErrInvalid)
	_, err = pgsession.New(pgsession.FromSQL(nil), pgsession.Config{})
	wantError(t, "a nil database", err, pgsession.ErrInvalid)
	_, err = pgsession.Open(t.Context(), "", pgsession.Config{Lock: -1})
	wantError(t, "Open", err, pgsession.ErrInvalid)
}

func TestTheZeroConfigIsAsDocumented(t *testing.T) {
	t.Parallel()
	c := newClock(t)
	calls := &recorder{next: c.admin.Query}
	store := setUp(t, calls.query, pgsession.Config{})
	ctx, start := t.Context(), c.now(t)

	token, session, err := store.Create(ctx, pgsession.Session{Data: make([]byte, 1<<20)})
	must(t, err)
	if session.IdleTimeout != 24*time.Hour || session.AbsoluteTimeout != 30*24*time.Hour {
		t.Errorf("timeouts %v and %v, want 24h and 720h", session.IdleTimeout, session.AbsoluteTimeout)
	}
	_, _, err = store.Create(ctx, pgsession.Session{Data: make([]byte, 1<<20+1)})
	wantError(t, "a byte more than 1 MiB", err, pgsession.ErrTooLarge)
	var exists bool
	must(t, c.admin.QueryRow(ctx, `select to_regclass('pgsession.session') is not null`).Scan(&exists))
	if !exists {
		t.Error("there is no table pgsession.session")
	}

	// The touch interval: a twentieth of 24 hours.
	for _, touch := range []struct{ after, want time.Duration }{
		{72*time.Minute - time.Microsecond, 24 * time.Hour},
		{72 * time.Minute, 24*time.Hour + 72*time.Minute},
	} {
		c.set(t, start.Add(touch.after))
		if at, err := store.Touch(ctx, token); err != nil || !at.Equal(start.Add(touch.want)) {
			t.Errorf("after %v: expiry %v, %v; want %v", touch.after, at, err, start.Add(touch.want))
		}
	}
	if sql := calls.last(t, "touch").sql; !strings.Contains(sql, "'wait'::pg_catalog.text, '5'::pg_catalog.float8)") {
		t.Errorf("%s: want it to wait 5 seconds for a lock", sql)
	}

	// The tombstone: 5 minutes, and then to the end of the second after.
	_, err = store.Destroy(ctx, token)
	must(t, err)
	for _, prune := range []struct {
		after time.Duration
		want  int64
	}{{5*time.Minute + time.Second - time.Microsecond, 0}, {5*time.Minute + time.Second, 1}} {
		c.set(t, start.Add(72*time.Minute+prune.after))
		if n, err := store.Prune(ctx); err != nil || n != prune.want {
			t.Errorf("%v after the end %d rows were pruned, %v; want %d", prune.after, n, err, prune.want)
		}
	}
	if args := calls.last(t, "prune").args; args[0] != int64(200) {
		t.Errorf("the batch size is %v, want 200", args[0])
	}
}

func TestAShortMaxAgeBringsAShortLiveness(t *testing.T) {
	t.Parallel()
	query := func(context.Context, string, ...any) (pgx.Rows, error) { return nil, nil }
	if _, err := pgsession.New(query, pgsession.Config{Cache: pgsession.Cache{MaxAge: time.Second}}); err != nil {
		t.Error(err)
	}
	_, err := pgsession.New(query, pgsession.Config{Cache: pgsession.Cache{MaxAge: time.Second, Liveness: 2 * time.Second}})
	if !errors.Is(err, pgsession.ErrInvalid) || !strings.Contains(fmt.Sprint(err), "Config.Cache.Liveness") {
		t.Errorf("a Liveness above MaxAge: %v", err)
	}
}
