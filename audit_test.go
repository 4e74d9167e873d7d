package pgsession_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
)

var audited = pgsession.Audit{Table: true, Log: true}

// recorded are the events in the table that the way sees, in order, as text without their times.
func (w *way) recorded(t *testing.T) []string {
	t.Helper()
	var text string
	w.scan(t, &text, `
		select coalesce(string_agg(concat_ws(' ', e.kind, e.id, e.successor, e.subject, e.actor, e.reason, e.sessions,
		                           case when e.expired_at < e.at then 'late' end), e'\n' order by e.at, e.seq), '')
		  from {schema}.session_events() as e`)
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// events are the session events that were logged, as text.
func (l *logs) events() (events []string) {
	for _, r := range l.with("session event") {
		var words []string
		r.Attrs(func(a slog.Attr) bool {
			if !slices.Contains([]string{"schema", "table", "in_transaction"}, a.Key) {
				words = append(words, a.Value.String())
			}
			return true
		})
		events = append(events, strings.Join(words, " "))
	}
	return events
}

func expectEvents(t *testing.T, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("the events are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestEachEventIsRecordedAndLoggedWithoutTokensOrData(t *testing.T) {
	t.Parallel()
	cfg := pgsession.Config{
		Audit: audited, MaxPerSubject: 2, Overflow: pgsession.OverflowEvictOldest, Tombstone: time.Hour,
	}
	everyWay(t, cfg, func(t *testing.T, w *way) {
		ctx := t.Context()
		log := &logs{}
		{ // the same way with a logger of this test's
			cfg := w.store.Config()
			cfg.Logger, cfg.Listen, cfg.Cleanup = slog.New(log), nil, withoutCleanup
			store := storeOf(t, w.query, cfg)
			must(t, store.Setup(ctx))
			w.Sessions, w.store = store, store
			if w.inTx {
				w.Sessions = store.WithQuery(w.see)
			}
		}
		const data = "the data of a session, which nobody shall see"
		var want, wantLog, secrets []string
		expect := func(format string, args ...any) {
			want = append(want, fmt.Sprintf(format, args...))
			wantLog = append(wantLog, fmt.Sprintf(format, args...))
		}
		create := func(subject string) (pgsession.Token, pgsession.ID) {
			t.Helper()
			token, s := w.create(t, pgsession.Session{Subject: subject, Data: []byte(data)})
			secrets = append(secrets, string(token))
			expect("%s", strings.TrimSpace("created "+string(s.ID)+" "+subject))
			return token, s.ID
		}

		// A login, the use of the old token after it, and a logout.
		anonymous, first := create("")
		token, s := w.renew(t, anonymous, "ada")
		secrets = append(secrets, string(token))
		expect("renewed %s %s ada", first, s.ID)
		w.exec(t, `update {table} set expires_at = now() - interval '1 second' where id = $1::text`, string(first))
		for range 2 {
			_, err := w.Touch(ctx, anonymous)
			wantError(t, "a touch by the old token", err, pgsession.ErrRenewed)
			_, err = w.GetFresh(ctx, anonymous)
			wantError(t, "a get by the old token", err, pgsession.ErrNotFound)
		}
		want = append(want, fmt.Sprintf("reused %s %s", first, s.ID)) // logged by another message
		_, err := w.Destroy(ctx, token, "missing")
		must(t, err)
		want = append(want, fmt.Sprintf("destroyed %s ada", s.ID))
		wantLog = append(wantLog, fmt.Sprintf("destroyed %s", s.ID)) // nobody asked whose it was

		// By an administrator; what is not there is no event.
		_, id := create("bob")
		by := pgsession.Revocation{IDs: []pgsession.ID{id, "missing"}, Actor: "admin grace", Reason: "lost phone"}
		_, err = w.Revoke(ctx, by)
		must(t, err)
		want = append(want, fmt.Sprintf("revoked %s bob admin grace lost phone", id))
		wantLog = append(wantLog, fmt.Sprintf("revoked %s admin grace lost phone", id))
		_, err = w.Revoke(ctx, by)
		must(t, err)
		_, id = create("carol")
		_, err = w.Revoke(ctx, pgsession.Revocation{Subject: "carol"})
		must(t, err)
		expect("revoked %s carol", id)

		// The third login of two.
		_, id = create("dan")
		create("dan")
		expect("evicted %s dan", id)
		create("dan")

		// Expired: found by a prune, by a session in its place, and by a logout.
		token, id = create("erin")
		w.age(t, 25*time.Hour, token)
		w.prune(t) // not by the store, and so not in its log
		w.prune(t)
		want = append(want, fmt.Sprintf("expired %s erin late", id))
		token, id = create("frank")
		w.age(t, 25*time.Hour, token)
		_, err = w.Set(ctx, token, pgsession.Session{Subject: "fred"})
		must(t, err)
		want = append(want, fmt.Sprintf("expired %s frank late", id))
		expect("created %s fred", id)
		w.age(t, 25*time.Hour, token)
		if n, err := w.Destroy(ctx, token); n != 0 || err != nil {
			t.Errorf("destroyed %d, %v", n, err)
		}
		want = append(want, fmt.Sprintf("expired %s fred late", id))
		_, err = w.Destroy(ctx, token)
		must(t, err)

		// What is no event.
		token, _ = create("gina")
		_, err = w.Set(ctx, token, pgsession.Session{Subject: "gina", Data: []byte(data + "!")})
		must(t, err)
		_, err = w.Touch(ctx, token)
		must(t, err)
		if !w.inTx {
			_, err = w.Revoke(ctx, pgsession.Revocation{Everyone: true, Actor: "root", Reason: "breach"})
			must(t, err)
			want = append(want, "cleared root breach 3")
			wantLog = append(wantLog, "cleared root breach 3")
		}

		got := w.recorded(t)
		expectEvents(t, got, want)
		expectEvents(t, log.events(), wantLog)
		for _, r := range log.with("session event") {
			inTx := false
			r.Attrs(func(a slog.Attr) bool { inTx = inTx || a.Key == "in_transaction" && a.Value.Bool(); return true })
			if inTx != w.inTx || r.Level != slog.LevelInfo {
				t.Errorf("in a transaction: %t, logged: %v", w.inTx, r)
			}
		}
		log.says(t, "used after its grace", "event=reused", "id="+string(first))

		var all string
		w.scan(t, &all, `select string_agg(e::text, ' ') from {schema}.session_events as e`)
		for _, r := range log.with("") {
			all += " " + r.Message
			r.Attrs(func(a slog.Attr) bool { all += " " + a.String(); return true })
		}
		for _, secret := range append(secrets, data) {
			if strings.Contains(all, secret) {
				t.Errorf("%q is in the events or in the log", secret)
			}
		}
		if !strings.Contains(all, string(first)) {
			t.Error("the scan looks at nothing")
		}
	})
}

func TestARolledBackChangeLeavesNoEvent(t *testing.T) {
	t.Parallel()
	everyPool(t, pgsession.Config{Audit: audited}, func(t *testing.T, w *way) {
		ctx := t.Context()
		token, _ := w.create(t, pgsession.Session{Subject: "ada"})
		other, s := w.create(t, pgsession.Session{Subject: "bob"})
		before := w.recorded(t)
		work := func(tx transaction) {
			t.Helper()
			inside := w.store.WithQuery(tx.query)
			_, _, err := inside.Create(ctx, pgsession.Session{Data: []byte("1")})
			must(t, err)
			next, _, err := inside.Renew(ctx, token, pgsession.Renewal{})
			must(t, err)
			_, err = inside.Destroy(ctx, next)
			must(t, err)
			_, err = inside.Revoke(ctx, pgsession.Revocation{IDs: []pgsession.ID{s.ID}})
			must(t, err)
		}
		tx := w.begin(t)
		work(tx)
		expectEvents(t, w.recorded(t), before) // others see none yet
		must(t, tx.rollback())
		expectEvents(t, w.recorded(t), before)
		if _, err := w.GetFresh(ctx, other); err != nil {
			t.Error(err)
		}
		tx = w.begin(t)
		work(tx)
		must(t, tx.commit())
		if n := len(w.recorded(t)); n != len(before)+4 {
			t.Errorf("after a commit there are %q", w.recorded(t))
		}
	})
}

func TestWhatExpiresIsRecordedOnceAndEventsArePrunedByAgeWhoeverPrunes(t *testing.T) {
	t.Parallel()
	const sessions = 25
	for name, prune := range map[string]func(t *testing.T, w *way, done func() bool){
		"ticker": func(t *testing.T, w *way, done func() bool) {
			w.tick(t, w.query, pgsession.Config{Cleanup: pgsession.Cleanup{BatchSize: 10}})
			eventually(t, "the ticker has pruned", done)
		},
		"opportunistic": func(t *testing.T, w *way, done func() bool) {
			store := storeOf(t, w.query, pgsession.Config{Schema: w.schema, Cleanup: pgsession.Cleanup{
				Mode: pgsession.CleanupOpportunistic, OneIn: 1, BatchSize: 10,
			}})
			must(t, store.Setup(t.Context()))
			token := pgsession.Token("of opportunity")
			eventually(t, "writes have pruned", func() bool {
				_, err := store.Set(t.Context(), token, pgsession.Session{})
				must(t, err)
				return done()
			})
			_, err := store.Destroy(t.Context(), token)
			must(t, err)
		},
		"the procedure of pg_cron": func(t *testing.T, w *way, _ func() bool) {
			w.exec(t, `call {schema}.session_prune_all(10)`)
		},
		"Prune": func(t *testing.T, w *way, _ func() bool) {
			_, err := w.store.Prune(t.Context())
			must(t, err)
		},
		"a hook": func(t *testing.T, w *way, done func() bool) {
			var c catcher
			c.fail(context.Canceled)
			log := &logs{}
			store := setUp(t, w.query, pgsession.Config{
				Schema: w.schema, Logger: slog.New(log), Audit: pgsession.Audit{Log: true},
				Cleanup: pgsession.Cleanup{OnPrune: c.catch, Lease: time.Millisecond, BatchSize: 10},
			})
			if _, err := store.Prune(t.Context()); err == nil || done() {
				t.Error("a hook that fails has pruned")
			}
			c.fail(nil)
			eventually(t, "the hook has pruned", func() bool {
				w.exec(t, `update {table} set prune_after = now() where expires_at < now()`) // what it failed for comes later
				_, err := store.Prune(t.Context())
				must(t, err)
				return done()
			})
			total := 0
			for _, event := range log.events() {
				var n int
				_, err := fmt.Sscanf(event, "expired %d", &n)
				must(t, err)
				total += n
			}
			if total != sessions {
				t.Errorf("%d were logged: %q", total, log.events())
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := onPool(t, pgsession.Config{Audit: pgsession.Audit{Table: true, Retention: 24 * time.Hour}})
			w.expire(t, sessions, "s")
			w.seed(t, 3, "ended", "bob", 1) // whose tombstones are pruned with them
			_, err := w.Revoke(t.Context(), pgsession.Revocation{Subject: "bob"})
			must(t, err)
			w.exec(t, `update {table} set expires_at = now() - interval '1 hour', prune_after = now() - interval '1 hour' where revoked_at is not null`)
			w.exec(t, `insert into {schema}.session_events (at, kind, id)
				select now() - interval '25 hours' - i * interval '1 second', 'created', 'old ' || i from generate_series(1, 35) as i`)
			w.exec(t, `insert into {schema}.session_events (at, kind, id) values (now() - interval '23 hours', 'created', 'young')`)
			var left int
			done := func() bool {
				w.scan(t, &left, `select count(*) from {schema}.session_events where id like 'old %'`)
				return w.rows(t) <= 1 && left == 0 // one of opportunity
			}
			prune(t, w, done)
			if !done() {
				t.Errorf("%d sessions and %d old events are left", w.rows(t), left)
			}
			var expired, ids, young int
			w.scan(t, &expired, `select count(*) from {schema}.session_events where kind = 'expired'`)
			w.scan(t, &ids, `select count(distinct id) from {schema}.session_events where kind = 'expired' and expired_at < at`)
			w.scan(t, &young, `select count(*) from {schema}.session_events where id = 'young'`)
			if expired != sessions || ids != sessions || young != 1 {
				t.Errorf("%d events of %d expired sessions, and %d young ones", expired, ids, young)
			}
		})
	}
}

func TestAnEndThatLeavesNoTombstoneIsRecordedOnce(t *testing.T) {
	t.Parallel()
	everyPool(t, pgsession.Config{Audit: audited}, func(t *testing.T, w *way) {
		ctx := t.Context()
		cfg := w.store.Config()
		cfg.Tombstone, cfg.Listen = -1, nil
		store := storeOf(t, w.query, cfg)
		ended, first := w.create(t, pgsession.Session{})
		_, err := w.Destroy(ctx, ended)
		must(t, err)
		late, second := w.create(t, pgsession.Session{})
		w.age(t, 25*time.Hour, late)
		live, third := w.create(t, pgsession.Session{})
		_, fourth := w.create(t, pgsession.Session{})
		if n, err := store.Destroy(ctx, ended, late, live); n != 1 || err != nil {
			t.Errorf("destroyed %d, %v", n, err)
		}
		_, err = store.Revoke(ctx, pgsession.Revocation{IDs: []pgsession.ID{first.ID, second.ID, third.ID, fourth.ID}})
		must(t, err)
		if n := w.rows(t); n != 0 {
			t.Errorf("%d rows are left", n)
		}
		expectSame(t, w.recorded(t), []string{
			"created " + string(first.ID), "created " + string(second.ID), "created " + string(third.ID), "created " + string(fourth.ID),
			"destroyed " + string(first.ID), "expired " + string(second.ID) + " late", "destroyed " + string(third.ID),
			"revoked " + string(fourth.ID),
		})
		if n := len(w.recorded(t)); n != 8 {
			t.Errorf("%d events were recorded", n)
		}
	})
}

func TestEventsAreKeptForEverWhereRetentionIsNone(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{Audit: pgsession.Audit{Table: true, Retention: -1}})
	must(t, w.store.Setup(t.Context())) // to which that is nothing new
	w.exec(t, `insert into {schema}.session_events (at, kind) values (now() - interval '99 years', 'created')`)
	_, err := w.store.Prune(t.Context())
	must(t, err)
	if n := len(w.recorded(t)); n != 1 {
		t.Errorf("%d events are left", n)
	}
}

func TestARevocationOfManyIsRecordedInItsBatches(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{Audit: audited})
	w.seed(t, 4500, "s", "ada", 1)
	n, err := w.Revoke(t.Context(), pgsession.Revocation{Subject: "ada", Actor: "grace"})
	must(t, err)
	events := 0
	for event, err := range w.store.AuditEvents(t.Context(), pgsession.AuditFilter{Subject: "ada"}) {
		must(t, err)
		if event.Kind != pgsession.AuditRevoked || event.Actor != "grace" || event.ID == "" {
			t.Fatalf("%+v", event)
		}
		events++
	}
	if n != 4500 || events != n {
		t.Errorf("%d were revoked, and %d events recorded", n, events)
	}
}

func TestWithoutTheAuditEventsAreForWhoeverDebugs(t *testing.T) {
	t.Parallel()
	log := &logs{}
	w := onPool(t, pgsession.Config{Logger: slog.New(log)})
	useAll(t, w.store, nil)
	w.expire(t, 3, "s")
	_, err := w.store.Prune(t.Context())
	must(t, err)
	if events := w.recorded(t); len(events) > 0 {
		t.Errorf("recorded: %q", events)
	}
	if events := log.events(); len(events) == 0 {
		t.Error("nothing was logged")
	}
	for _, r := range log.with("session event") {
		if r.Level != slog.LevelDebug {
			t.Errorf("%v at %v", r.Message, r.Level)
		}
	}
}

func TestGetsSetsAndTouchesDoNotAskWhetherTheyAreAudited(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{Audit: audited, TouchInterval: time.Microsecond})
	ctx := t.Context()
	token, s := w.create(t, pgsession.Session{Subject: "ada", Codec: pgsession.CodecJSON, Data: []byte("{}")})
	inTransaction(t, w.admin, func(tx pgx.Tx) {
		inside := w.store.WithQuery(tx.Query)
		asked := func() int {
			return value[int](t, tx, `
				select coalesce(sum(seq_scan + idx_scan + n_tup_ins), 0)::int4 from pg_stat_xact_user_tables
				 where schemaname = $1 and relname in ('session_audit', 'session_events')`, w.schema)
		}
		_, err := inside.Get(ctx, token)
		must(t, err)
		s.Data = []byte(`{"n":1}`)
		s, err = inside.Set(ctx, token, s)
		must(t, err)
		_, err = inside.Set(ctx, token, s)
		must(t, err)
		_, err = inside.Patch(ctx, token, []byte(`{"n":2}`))
		must(t, err)
		_, err = inside.Touch(ctx, token)
		must(t, err)
		if n := asked(); n != 0 {
			t.Errorf("the tables of the audit were read or written %d times", n)
		}
		_, err = inside.Destroy(ctx, token)
		must(t, err)
		if asked() == 0 {
			t.Error("that a destroy has read them is not seen")
		}
	})
}
