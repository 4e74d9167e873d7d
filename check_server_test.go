package pgsession_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/postgres"
)

// An own server: what holds the horizon is the whole server's.
func TestCheckFindsTheCulpritOfABusyServer(t *testing.T) {
	t.Parallel()
	server := pgtest.PrivateServer(t, postgres.Options{Settings: map[string]string{"autovacuum": "off", "max_prepared_transactions": "2"}})
	pool := pgtest.Connect(t, server.URL())
	exec(t, pool, "create role blind login")
	blind, err := postgres.WithUser(server.URL(), "blind", "")
	must(t, err)
	cfg := pgsession.Config{AppRole: "blind", Check: pgsession.Limits{Snapshot: time.Millisecond, SnapshotAge: 1}}
	stores := map[string]*pgsession.Store{
		"superuser": setUp(t, pool.Query, cfg), "a role that does not see when others began": setUp(t, pgtest.Connect(t, blind).Query, cfg),
	}
	var others []*pgx.Conn // before the culprit, as pg_stat_activity has them
	for range 20 {
		others = append(others, dial(t, server.URL(), map[string]string{"application_name": "blameless"}))
	}
	culprit := dial(t, server.URL(), map[string]string{"application_name": "culprit"})
	prepared := dial(t, server.URL(), nil)
	exec(t, culprit, "begin")
	exec(t, culprit, "select pg_current_xact_id()")
	for _, conn := range others { // whose oldest transaction that may be running is the culprit's
		exec(t, conn, "begin isolation level repeatable read")
		exec(t, conn, "select 1")
	}
	exec(t, prepared, "begin")
	exec(t, prepared, "create table prepared ()")
	exec(t, prepared, "prepare transaction 'forgotten'")
	for range 3 {
		exec(t, pool, "select pg_current_xact_id()")
	}
	for name, store := range stores {
		eventually(t, "all are old", func() bool { return len(only(check(t, store), pgsession.FindingHorizon)) >= 10 })
		findings := only(check(t, store), pgsession.FindingHorizon)
		if !strings.Contains(findings[0].Message, "culprit") {
			t.Errorf("%s: the first finding is %s", name, findings[0])
		}
		finding(t, findings, pgsession.FindingHorizon, pgsession.SeverityWarning, "prepared transaction forgotten")
	}
	exec(t, culprit, "rollback")
	exec(t, prepared, "rollback prepared 'forgotten'")
	for _, conn := range others {
		exec(t, conn, "rollback")
	}
	for name, store := range stores {
		if found := only(check(t, store), pgsession.FindingHorizon); len(found) > 0 {
			t.Errorf("%s: %v", name, found)
		}
	}
}

func TestCheckFindsAStandbyThatHoldsTheHorizon(t *testing.T) {
	t.Parallel()
	server := pgtest.PrivateServer(t, postgres.Options{Settings: map[string]string{
		"autovacuum": "off", "hot_standby_feedback": "on", "wal_receiver_status_interval": "1",
	}})
	standby := pgtest.Standby(t, server)
	store := setUp(t, pgtest.Connect(t, server.URL()).Query, pgsession.Config{Check: pgsession.Limits{SnapshotAge: 1}})
	reader := dial(t, standby.URL(), nil)
	exec(t, reader, "begin isolation level repeatable read")
	exec(t, reader, "select 1")
	pool := pgtest.Connect(t, server.URL())
	eventually(t, "it is found", func() bool {
		exec(t, pool, "select pg_current_xact_id()")
		found := only(check(t, store), pgsession.FindingHorizon)
		return len(found) > 0 && strings.Contains(found[0].Message, "the standby") && strings.Contains(found[0].Remedy, "hot_standby_feedback")
	})
}
