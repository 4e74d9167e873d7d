package pgsession

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
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
//
// A handler of the log may ask for Stats, so it is called without mu; changes is what keeps the records in
// order.
func (n *notifier) checkLive(reason error) {
	n.changes.Lock()
	defer n.changes.Unlock()
	if log := n.changed(reason); log != nil {
		log()
	}
}

// changed takes the present state, and returns what logs it if it is another one.
func (n *notifier) changed(reason error) (log func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.life.Err() != nil {
		return nil // nothing is wrong with a connection that ends with the store
	}
	if reason != nil {
		n.reason = reason
	}
	attrs := []slog.Attr{
		slog.String("channel", n.channel), slog.Int64("connects", n.connects.Load()), slog.Int64("heard", n.hears.Load()),
	}
	_, live := n.coherence.Live()
	switch {
	case live && n.state != liveYes:
		n.state, n.since, n.reason = liveYes, time.Now(), nil
		return func() { n.log(n.life, slog.LevelInfo, "pgsession: notifications arrive", attrs...) }
	case !live && n.state != liveNo && (n.state == liveYes || n.reason != nil):
		if n.reason == nil {
			n.reason = errSilent
		}
		n.state, n.since = liveNo, time.Time{}
		attrs = append(attrs, slog.Any("reason", n.reason))
		return func() {
			n.log(n.life, slog.LevelWarn, "pgsession: notifications may not arrive; reads go to the database", attrs...)
		}
	}
	return nil
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

// place is where a connection leads to.
type place struct {
	// cluster is the same after a restart and at a physical standby, unlike the server's start time: so what
	// was found out about it once holds.
	cluster  string
	database int64
}

// locate asks where one is, and which server answers.
func locate(query func(sql string, dest ...any) error) (server string, where place, err error) {
	var started pgtype.Timestamptz
	var cluster pgtype.Int8
	err = query(fmt.Sprintf(placeSQL, clusterSQL), &started, &cluster, &where.database)
	if state := sqlState(err); state == codePermissionDenied || state == codeUndefinedFunction {
		// A provider that keeps that function to itself: a server that was restarted is another cluster then.
		err = query(fmt.Sprintf(placeSQL, "null"), &started, &cluster, &where.database)
	}
	if err != nil {
		return "", place{}, err
	}
	server = serverIdentity(started.Time)
	where.cluster = server
	if cluster.Valid {
		where.cluster = strconv.FormatInt(cluster.Int64, 10)
	}
	return server, where, nil
}

const (
	placeSQL = `
select pg_catalog.pg_postmaster_start_time(), (%s)::pg_catalog.int8, d.oid::pg_catalog.int8
  from pg_catalog.pg_database as d
 where d.datname operator(pg_catalog.=) pg_catalog.current_database()`
	clusterSQL = `select c.system_identifier from pg_catalog.pg_control_system() as c`
)

// identify asks where the QueryFunc leads to.
func (n *notifier) identify(ctx context.Context) error {
	_, where, err := locate(func(sql string, dest ...any) error {
		return n.direct.one(ctx, statement{sql: sql}, nil, dest...)
	})
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.databases[where.cluster] = where.database
	return nil
}

// arrived says whether a link may listen where it is. Beats would be heard in another database than the
// QueryFunc's too, of that one's own store. It may lead to several: so one is wrong that is not its own,
// in a cluster where it has one, which all links are known to miss.
//
// The QueryFunc is asked when a link first comes to a cluster, and not when it comes back: listening
// must not wait for a pool that is saturated.
func (n *notifier) arrived(ctx context.Context, l *link, where place) error {
	n.mu.Lock()
	_, asked := n.databases[where.cluster]
	n.mu.Unlock()
	if !asked {
		ctx, cancel := context.WithTimeout(ctx, n.attemptTimeout())
		defer cancel()
		if err := n.identify(ctx); err != nil {
			return fmt.Errorf("asking which database the QueryFunc reaches: %w", err)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	own := place{where.cluster, n.databases[where.cluster]}
	n.databases[where.cluster] = own.database // also where it is 0: it was asked
	if own.database != 0 && own != where && !slices.ContainsFunc(n.links, func(other *link) bool {
		return other != l && (other.where == place{} || other.where == own)
	}) {
		return errOtherDatabase
	}
	l.where = where
	return nil
}

// left is arrived's undoing.
func (n *notifier) left(l *link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l.where = place{}
}
