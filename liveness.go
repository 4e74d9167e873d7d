package pgsession

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// This file is what a notifier knows of its listeners: whether they hear, why not, and whether they are
// where the QueryFunc is.

type liveState int

const (
	liveUnknown liveState = iota
	liveYes
	liveNo
)

// checkLive logs when liveness has begun or ended, with the reason.
func (n *notifier) checkLive(reason error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.life.Err() != nil {
		return // nothing is wrong with a connection that ends with the store
	}
	if reason != nil {
		n.reason = reason
	}
	_, live := n.coherence.Live()
	switch {
	case live && n.state != liveYes:
		n.log(n.life, slog.LevelInfo, "pgsession: notifications arrive", slog.String("channel", n.channel),
			slog.Int64("connects", n.connects.Load()), slog.Int64("heard", n.hears.Load()))
		n.state, n.since, n.reason = liveYes, time.Now(), nil
	case !live && n.state != liveNo && (n.state == liveYes || n.reason != nil):
		if n.reason == nil {
			n.reason = errSilent
		}
		n.log(n.life, slog.LevelWarn, "pgsession: notifications may not arrive; reads go to the database",
			slog.String("channel", n.channel), slog.Any("reason", n.reason),
			slog.Int64("connects", n.connects.Load()), slog.Int64("heard", n.hears.Load()))
		n.state, n.since = liveNo, time.Time{}
	}
}

// warnUnknown logs once a minute: anyone may send such notifications.
func (n *notifier) warnUnknown(size int) {
	n.mu.Lock()
	first := time.Since(n.warned) > time.Minute
	if first {
		n.warned = time.Now()
	}
	n.mu.Unlock()
	if first {
		n.log(n.life, slog.LevelWarn, "pgsession: a notification that this version does not know; dropped what was cached",
			slog.Int("bytes", size))
	}
}

// identify asks which server and database the QueryFunc reaches.
func (n *notifier) identify(ctx context.Context) error {
	var server pgtype.Timestamptz
	var database int64
	if err := n.direct.one(ctx, statement{sql: identitySQL}, nil, &server, &database); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.server, n.database = serverIdentity(server.Time), database
	return nil
}

// reaches says whether the QueryFunc reaches this database, as far as it is known: it may reach other
// servers too.
func (n *notifier) reaches(ctx context.Context, server string, database int64) (bool, error) {
	n.mu.Lock()
	known := n.server == server
	n.mu.Unlock()
	if !known { // it was started anew, say
		ctx, cancel := context.WithTimeout(ctx, n.attemptTimeout())
		defer cancel()
		if err := n.identify(ctx); err != nil {
			return false, err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.server != server || n.database == database, nil
}

// identitySQL tells which server and which database one is connected to.
const identitySQL = `
select pg_catalog.pg_postmaster_start_time(), d.oid::pg_catalog.int8
  from pg_catalog.pg_database as d
 where d.datname operator(pg_catalog.=) pg_catalog.current_database()`
