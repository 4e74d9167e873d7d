package pgsession_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

func TestWhetherEventsAreRecordedIsTheTablesSetting(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	ctx := t.Context()
	owner := pgtest.Connect(t, c.ownerAddress)
	plain, asking := c.cfg, c.cfg
	asking.Audit.Table = true
	skip := asking
	skip.SkipMigrate = true
	setUp(t, owner.Query, plain)
	app, admin := dial(t, c.appAddress, nil), dial(t, c.adminAddress, nil)
	count := func() int { return value[int](t, c.superuser, "select count(*) from pgsession.session_events") }

	// Who may not switch it on is told, and so is who must not.
	const off = "no events are recorded|Config.Audit.Table"
	err := storeOf(t, app.Query, asking).Setup(ctx)
	expectProblems(t, err, off)
	expectDenied(t, "Setup by the app", err)
	expectProblems(t, storeOf(t, owner.Query, skip).Setup(ctx), off)

	// From then on others are recorded too, in whatever language.
	setUp(t, owner.Query, asking)
	store := setUp(t, app.Query, plain)
	token, s, err := store.Create(ctx, pgsession.Session{Subject: "ada"})
	must(t, err)
	execAsIs(t, app, `select pgsession.session_set('an id', '')`)
	execAsIs(t, admin, `select pgsession.session_revoke('["an id"]', p_actor => 'psql')`)
	if n := count(); n != 3 {
		t.Errorf("%d events were recorded", n)
	}
	setUp(t, app.Query, asking)
	setUp(t, owner.Query, skip)

	// The application can neither forge nor read.
	if value[bool](t, app, "select pgsession.session_reused('made up')") || value[bool](t, app, "select pgsession.session_reused($1)", string(s.ID)) || count() != 3 {
		t.Error("a token that was not renewed was recorded as reused")
	}
	for _, err = range store.AuditEvents(ctx, pgsession.AuditFilter{}) {
		expectDenied(t, "AuditEvents by the app", err)
	}
	var kinds []pgsession.AuditKind
	for event, err := range setUp(t, admin.Query, asking).AuditEvents(ctx, pgsession.AuditFilter{}) {
		must(t, err)
		kinds = append(kinds, event.Kind)
	}
	if !slices.Equal(kinds, []pgsession.AuditKind{"created", "created", "revoked"}) {
		t.Errorf("the admin reads %v", kinds)
	}

	// How long events stay the owner changes; others leave it.
	retention := func() float64 {
		return value[float64](t, app, "select retention from pgsession.session_audit_status()")
	}
	asking.Audit.Retention = time.Hour
	setUp(t, app.Query, asking)
	if r := retention(); r != 90*24*3600 {
		t.Errorf("after the app's Setup events stay for %v s", r)
	}
	skip.Audit.Retention = time.Hour
	expectProblems(t, storeOf(t, owner.Query, skip).Setup(ctx), "events are kept for 2160h0m0s instead of 1h0m0s")
	setUp(t, owner.Query, asking)
	if r := retention(); r != 3600 {
		t.Errorf("after the owner's Setup events stay for %v s", r)
	}

	// No instance without it ends it; the owner does, and what was recorded stays.
	setUp(t, owner.Query, plain)
	before := count()
	_, err = store.Destroy(ctx, token)
	must(t, err)
	if n := count(); n != before+1 {
		t.Errorf("%d events after another Setup, and %d before", n, before)
	}
	exec(t, owner, "select pgsession.session_audit(false)")
	_, _, err = store.Create(ctx, pgsession.Session{Data: []byte("1")})
	must(t, err)
	if n := count(); n != before+1 {
		t.Errorf("%d events after the end", n)
	}
}

func TestAnUpgradeRecordsWhatIsThereFromThenOn(t *testing.T) {
	t.Parallel()
	conn := dial(t, pgtest.Database(t), nil)
	exec(t, conn, "create schema pgsession")
	must(t, migrator(t, conn, "pgsession.session_schema_version", nil).MigrateTo(t.Context(), 3))
	store := storeOf(t, conn.Query, pgsession.Config{Audit: audited, Cleanup: withoutCleanup})
	id, err := store.ID("live")
	must(t, err)
	exec(t, conn, rowsOf[3], string(id))
	before := dump(t, conn)
	must(t, store.Setup(t.Context()))
	expectSame(t, dump(t, conn), before)
	expectLive(t, store)
	_, err = store.Destroy(t.Context(), "live")
	must(t, err)
	_, err = store.Prune(t.Context())
	must(t, err)
	expectSame(t, column[string](t, conn, "select concat_ws(' ', kind, id, subject) from pgsession.session_events"),
		[]string{"destroyed " + string(id) + " ada", "expired dead"})
}

func TestAuditEventsFiltersAndReadsInPages(t *testing.T) {
	t.Parallel()
	everyPool(t, pgsession.Config{}, func(t *testing.T, w *way) {
		ctx := t.Context()
		// Of 2,500 events a thousand are of one moment: pages must not lose or repeat any.
		w.exec(t, `
			insert into {schema}.session_events (at, kind, id, subject)
			select timestamptz '2026-01-01 00:00:00+00' + greatest(i - 1000, 0) * interval '1 second',
			       case when i % 2 = 0 then 'created' else 'destroyed' end, 'id ' || i, 'subject ' || i % 10
			  from generate_series(1, 2500) as i`)
		start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		for _, c := range []struct {
			filter pgsession.AuditFilter
			want   int
		}{
			{pgsession.AuditFilter{}, 2500},
			{pgsession.AuditFilter{Subject: "subject 3"}, 250},
			{pgsession.AuditFilter{ID: "id 77"}, 1},
			{pgsession.AuditFilter{Kind: pgsession.AuditCreated}, 1250},
			{pgsession.AuditFilter{Since: start.Add(time.Second)}, 1500},
			{pgsession.AuditFilter{Until: start.Add(time.Second)}, 1000},
			{pgsession.AuditFilter{Since: start.Add(time.Second), Until: start.Add(11 * time.Second), Subject: "subject 1"}, 1},
			{pgsession.AuditFilter{ID: "none"}, 0},
		} {
			seen := map[pgsession.ID]bool{}
			last := time.Time{}
			for event, err := range w.store.AuditEvents(ctx, c.filter) {
				must(t, err)
				if event.At.Before(last) || seen[event.ID] {
					t.Fatalf("%+v comes after %v, or again", event, last)
				}
				seen[event.ID], last = true, event.At
			}
			if len(seen) != c.want {
				t.Errorf("%+v: %d events, want %d", c.filter, len(seen), c.want)
			}
		}
		for range w.store.AuditEvents(ctx, pgsession.AuditFilter{}) {
			break
		}
		for _, err := range w.store.AuditEvents(ctx, pgsession.AuditFilter{Subject: "\x00"}) {
			wantError(t, "a subject that cannot be", err, pgsession.ErrInvalid)
		}
	})
}

func TestAReusedTokenIsRecordedOnceAMinuteAndFailsNoTransactionThatReads(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{Audit: audited})
	ctx := t.Context()
	token, _ := w.create(t, pgsession.Session{Subject: "ada"})
	w.renew(t, token, "")
	w.exec(t, `update {table} set expires_at = now() - interval '1 second' where revoked_at is not null`)
	reused := func() (n int) {
		t.Helper()
		w.scan(t, &n, `select count(*) from {schema}.session_events where kind = 'reused' and subject = 'ada'`)
		return n
	}
	tx, err := w.admin.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	must(t, err)
	defer tx.Rollback(context.Background())
	reader := storeOf(t, w.query, w.store.Config())
	_, err = reader.WithQuery(tx.Query).Get(ctx, token)
	wantError(t, "a get in a transaction that reads", err, pgsession.ErrNotFound)
	must(t, tx.Commit(ctx))
	if n := reused(); n != 0 {
		t.Errorf("%d events were recorded by a transaction that reads", n)
	}
	for range 3 { // instances, which do not know of each other
		store := storeOf(t, w.query, w.store.Config())
		_, err = store.Get(ctx, token)
		wantError(t, "a get", err, pgsession.ErrNotFound)
		_, err = store.Set(ctx, token, pgsession.Session{})
		wantError(t, "a set", err, pgsession.ErrRenewed)
	}
	if n := reused(); n != 1 {
		t.Errorf("%d events were recorded within a minute", n)
	}
	w.exec(t, `update {schema}.session_events set at = at - interval '1 minute'`)
	_, err = storeOf(t, w.query, w.store.Config()).Get(ctx, token)
	wantError(t, "a get", err, pgsession.ErrNotFound)
	if n := reused(); n != 2 {
		t.Errorf("%d events were recorded after a minute", n)
	}
}

// That events are recorded is the table's setting. An instance that does not ask for it has as many of its
// visitors' tokens stolen.
func TestAReusedTokenIsRecordedByAnInstanceThatDoesNotAskForEvents(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{Audit: pgsession.Audit{Table: true}})
	token, _ := w.create(t, pgsession.Session{Subject: "ada"})
	w.renew(t, token, "")
	w.exec(t, `update {table} set expires_at = now() - interval '1 second' where revoked_at is not null`)
	other := setUp(t, w.query, pgsession.Config{Schema: w.schema})
	_, err := other.Get(t.Context(), token)
	wantError(t, "a get", err, pgsession.ErrNotFound)
	var n int
	w.scan(t, &n, `select count(*) from {schema}.session_events where kind = 'reused' and subject = 'ada'`)
	if n != 1 {
		t.Errorf("%d events were recorded", n)
	}
}

func TestByWhomAndWhyAreTextsThatCanBeStored(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{Audit: audited})
	for _, text := range []string{"a\x00", "\xff", strings.Repeat("x", 1025)} {
		for _, r := range []pgsession.Revocation{
			{Subject: "ada", Actor: text}, {Subject: "ada", Reason: text}, {Everyone: true, Actor: text},
		} {
			_, err := w.Revoke(t.Context(), r)
			wantError(t, fmt.Sprintf("%.20q", text), err, pgsession.ErrInvalid)
		}
	}
	_, err := w.Revoke(t.Context(), pgsession.Revocation{Subject: "ada", Actor: "'; --", Reason: strings.Repeat("é", 512)})
	must(t, err)
}
