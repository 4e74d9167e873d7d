package pgsession_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

func TestFromSetupOnExpiredSessionsAreLeftToTheHook(t *testing.T) {
	t.Parallel()
	for _, mode := range []pgsession.CleanupMode{
		pgsession.CleanupAuto, pgsession.CleanupTicker, pgsession.CleanupOpportunistic, pgsession.CleanupOff,
	} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			w := onPool(t, pgsession.Config{})
			var c catcher
			hooked := storeOf(t, w.query, pgsession.Config{Schema: w.schema, Cleanup: pgsession.Cleanup{
				Mode: mode, Interval: 24 * time.Hour, OneIn: 1_000_000_000, OnPrune: c.catch, // at once it does nothing
			}})
			must(t, hooked.Migrate(t.Context()))
			w.expire(t, 3, "before")
			if n, err := w.store.Prune(t.Context()); n != 3 || err != nil {
				t.Errorf("Migrate starts nothing, and a prune without a hook is %d, %v", n, err)
			}
			must(t, hooked.Setup(t.Context()))
			w.expire(t, 5, "s")
			_, err := w.store.Prune(t.Context())
			wantError(t, "a prune without a hook", err, pgsession.ErrBusy)
			w.exec(t, `call {schema}.session_prune_all()`)
			if n, err := hooked.Prune(t.Context()); n != 5 || err != nil {
				t.Errorf("with the hook %d were pruned, %v", n, err)
			}
			if n, _ := c.counts(); n != 5 {
				t.Errorf("the hook has seen %d", n)
			}
		})
	}
}

func TestAHookIsCalledInTickerAndOpportunisticModes(t *testing.T) {
	t.Parallel()
	for _, mode := range []pgsession.CleanupMode{pgsession.CleanupTicker, pgsession.CleanupOpportunistic} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			w := onPool(t, pgsession.Config{})
			var c catcher
			hooked := storeOf(t, w.query, pgsession.Config{Schema: w.schema, Cleanup: pgsession.Cleanup{
				Mode: mode, Interval: time.Millisecond, OneIn: 1, BatchSize: 4, OnPrune: c.catch,
			}})
			must(t, hooked.Setup(t.Context()))
			w.expire(t, 10, "s")
			token, _, err := hooked.Create(t.Context(), pgsession.Session{Data: []byte("here")})
			must(t, err)
			eventually(t, "all are gone", func() bool {
				_, err := hooked.Set(t.Context(), token, pgsession.Session{Data: []byte("x")})
				must(t, err)
				return w.rows(t) == 1
			})
			if n, most := c.counts(); n != 10 || most != 1 {
				t.Errorf("the hook has seen %d, one of them %d times", n, most)
			}
			eventually(t, "they are counted", func() bool { return hooked.Stats().Pruned == 10 })
			must(t, hooked.Close())
			if s := hooked.Stats(); s.PrunesFailed != 0 || s.Pruned != 10 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// A prune that began before there was a hook must not go on unseen after Setup.
func TestSetupWithAHookWaitsForAPruneThatKnowsOfNone(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	w.expire(t, 5, "s")
	tx := w.begin(t)
	rows, err := tx.query(t.Context(), w.fill(`select {schema}.session_prune(2)`))
	must(t, err)
	rows.Close()
	hooked := storeOf(t, pgtest.Pool(t).Query, pgsession.Config{
		Schema: w.schema, Cleanup: pgsession.Cleanup{Mode: pgsession.CleanupOff, OnPrune: new(catcher).catch},
	})
	done := make(chan error)
	go func() { done <- hooked.Setup(t.Context()) }()
	w.awaitWaiting(t, 1)
	must(t, tx.commit())
	must(t, <-done)
	_, err = w.store.Prune(t.Context())
	wantError(t, "a prune without a hook", err, pgsession.ErrBusy)
	if n := w.rows(t); n != 3 {
		t.Errorf("%d rows are left", n)
	}
	// Where it is registered already, it does not.
	tx = w.begin(t)
	rows, err = tx.query(t.Context(), w.fill(`select count(*) from {schema}.session_claim()`))
	must(t, err)
	rows.Close()
	must(t, hooked.Setup(t.Context()))
	must(t, tx.commit())
}

func TestARegistrationOfAHookLapsesAfterADayAndTheLogSaysSo(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	var c catcher
	hooked := setUp(t, w.query, pgsession.Config{Schema: w.schema, Cleanup: pgsession.Cleanup{OnPrune: c.catch}})
	log := &logs{}
	plain := setUp(t, w.query, pgsession.Config{Schema: w.schema, Logger: slog.New(log)})
	const lapsed = "within a day"
	age := func(ago string) {
		t.Helper()
		w.exec(t, `update {schema}.session_cleanup set hooked_at = now() - interval '`+ago+`'`)
	}
	busy := func(when string) {
		t.Helper()
		_, err := plain.Prune(t.Context())
		wantError(t, when, err, pgsession.ErrBusy)
	}
	age("23 hours")
	busy("after 23 hours")
	// Setup and claims renew it.
	must(t, hooked.Setup(t.Context()))
	age("23 hours")
	_, err := hooked.Prune(t.Context())
	must(t, err)
	w.exec(t, `update {schema}.session_cleanup set hooked_at = hooked_at - interval '22 hours'`)
	busy("22 hours after a claim")
	if records := log.with(lapsed); len(records) != 0 {
		t.Errorf("nothing has lapsed: %+v", records)
	}

	age("25 hours")
	w.expire(t, 5, "s")
	for range 2 {
		_, err := plain.Prune(t.Context())
		must(t, err)
	}
	if records := log.with(lapsed); len(records) != 1 || records[0].Level != slog.LevelWarn || w.rows(t) != 0 {
		t.Errorf("after a day: %+v; %d rows are left", records, w.rows(t))
	}
	if s, err := plain.CleanupStatus(t.Context()); err != nil || !s.Hook.IsZero() {
		t.Errorf("%+v, %v", s, err)
	}

	// A clock was wrong.
	age("-2 days")
	_, err = plain.Prune(t.Context())
	must(t, err)

	// The procedure has no log but the server's.
	age("25 hours")
	var notices []string
	config, err := pgx.ParseConfig(pgtest.URL(t))
	must(t, err)
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n.Severity+" "+n.Message) }
	conn, err := pgx.ConnectConfig(t.Context(), config)
	must(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	exec(t, conn, w.fill(`call {schema}.session_prune_all()`))
	if len(notices) != 1 || !strings.HasPrefix(notices[0], "WARNING pgsession: no hook") {
		t.Errorf("the procedure says %q", notices)
	}

	// It can be ended before.
	must(t, hooked.Setup(t.Context()))
	busy("after Setup")
	w.exec(t, `select {schema}.session_hook(false)`)
	_, err = plain.Prune(t.Context())
	must(t, err)
}

func TestAnInstanceWhoseRoleMayNotPruneRegistersNoHook(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	owner := setUp(t, dial(t, c.ownerAddress, nil).Query, c.cfg)
	cfg := c.cfg
	cfg.Cleanup.OnPrune = new(catcher).catch
	setUp(t, dial(t, c.appAddress, nil).Query, cfg)
	_, err := owner.Prune(t.Context())
	must(t, err)
	setUp(t, dial(t, c.adminAddress, nil).Query, cfg)
	_, err = owner.Prune(t.Context())
	wantError(t, "a prune without a hook", err, pgsession.ErrBusy)
}
