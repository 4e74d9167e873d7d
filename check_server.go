package pgsession

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// listenBugs are the minor versions that mended, in each major one, that a listener which is slow to
// read loses a notification: vacuum removed the state of the transaction that sent it ("could not
// access status of transaction"), and the server passed over the notification and went on, telling
// nobody. Release notes of PostgreSQL 15.16, 2026-02-12, "Prevent truncation of CLOG that is still needed
// by unread NOTIFY messages" and "Escalate errors occurring during NOTIFY message processing to FATAL";
// 14.21, 16.12, 17.8 and 18.2 are of the same day.
var listenBugs = map[int64]int64{14: 21, 15: 16, 16: 12, 17: 8, 18: 2}

func (c *checker) checkServer(ctx context.Context) error {
	var version int64
	var recovery, stats bool
	var isolation string
	var usage float64
	var now pgtype.Timestamptz
	sent := time.Now()
	err := c.store.one(ctx, statement{sql: serverSQL}, nil, &version, &recovery, &isolation, &usage, &stats, &now)
	if err != nil {
		return err
	}
	round := time.Since(sent)
	if skew := now.Time.Sub(sent.Add(round / 2)); skew.Abs() > c.cfg.Check.Clock+round/2 {
		c.find(SeverityWarning, FindingClock, "let both machines keep their time by NTP",
			"the server's clock is %v from this machine's: deadlines are the server's, and what shows them here is that far off",
			skew.Round(time.Millisecond))
	}
	if recovery {
		c.find(SeverityError, FindingReplica, "connect to the primary, as by target_session_attrs=read-write",
			"the server is a standby: nothing can be written, and notifications cannot be heard")
	}
	if isolation != "read committed" {
		c.find(SeverityWarning, FindingIsolation, "set default_transaction_isolation for this role to read committed",
			"transactions are %s by default: writes of one session fail and are retried, and reads are not cached", isolation)
	}
	if usage > c.cfg.Check.Queue {
		c.find(SeverityWarning, FindingQueue, "end the session that listens and stays in a transaction: "+
			"see pg_stat_activity for the oldest; when the queue is full, commits that notify fail",
			"the server's queue of notifications is full to %.2g %%", usage*100)
	}
	if minor, ok := listenBugs[version/10000]; ok && version%10000 < minor {
		c.find(SeverityWarning, FindingListenBug, fmt.Sprintf("upgrade to PostgreSQL %d.%d or newer", version/10000, minor),
			"PostgreSQL %d.%d can lose notifications to a listener that is slow to read", version/10000, version%10000)
	}
	if !stats {
		c.find(SeverityInfo, FindingUnobservable, "grant pg_read_all_stats to the role that checks",
			"the current role cannot see when the transactions of others began; their age in transactions is all there is")
	}
	return nil
}

func (c *checker) checkConnection(ctx context.Context) error {
	known, real, err := c.store.backend(ctx)
	if err != nil {
		return err
	}
	switch {
	case known == 0:
		c.find(SeverityInfo, FindingUnobservable, "check with a QueryFunc of pgx's own",
			"the driver does not tell its connection's process, so that a pooler cannot be told from the server")
	case known != real:
		c.find(SeverityInfo, FindingPooler, "none is needed: each call is one statement; prepared statements need PgBouncer 1.21",
			"a pooler is between the QueryFunc and the server")
	}
	return nil
}

func (c *checker) checkHorizon(ctx context.Context) error {
	var kind, name string
	var transactions int64
	var seconds float64 // below 0: unknown
	limits := []any{c.cfg.Check.Snapshot.Seconds(), c.cfg.Check.SnapshotAge}
	return c.each(ctx, horizonSQL, limits, []any{&kind, &name, &transactions, &seconds}, func() {
		age := fmt.Sprintf("for %d transactions", transactions)
		if seconds >= 0 {
			age = fmt.Sprintf("for %v", time.Duration(seconds*float64(time.Second)).Round(time.Second))
		}
		remedy := map[string]string{
			"session":              "end the transaction, or the session by pg_terminate_backend",
			"standby":              "end the longest transaction there, or switch hot_standby_feedback off there",
			"replication slot":     "bring its reader back, or drop it by pg_drop_replication_slot",
			"prepared transaction": "commit or roll it back: COMMIT PREPARED, ROLLBACK PREPARED",
		}[kind]
		c.find(SeverityWarning, FindingHorizon, remedy,
			"the %s %s has kept dead rows from being removed %s: touches stop being HOT, and the table grows",
			kind, name, age)
	})
}

// checkListeners looks at the connections that hear of changes.
func (c *checker) checkListeners(ctx context.Context) {
	n := c.store.store.notify
	started, live, reason := n.health()
	listeners := c.cfg.listeners()
	switch {
	case len(listeners) == 0 && c.cfg.Cache.Mode == CacheOn:
		c.find(SeverityInfo, FindingListener, "set Config.Listen to ListenFrom(pool)",
			"there is no Config.Listen, so nothing is cached, and Subscribe hears nothing")
	case len(listeners) == 0:
	case !started:
		c.find(SeverityInfo, FindingListener, "call Setup", "Setup has not run in this process, so nothing listens")
	case !live:
		c.find(SeverityWarning, FindingListener, "see to what the reason says; until then reads go to the database",
			"it is not proved that notifications arrive: %s", reason)
	}
	for i, listen := range listeners {
		if err := c.checkListener(ctx, i, listen); err != nil {
			c.find(SeverityWarning, FindingListener, "see that Config.Listen reaches the server",
				"a connection to listen on cannot be had: %v", err)
		}
	}
}

// checkListener opens a connection as the listener does, and looks where it ends.
func (c *checker) checkListener(ctx context.Context, i int, listen func(context.Context) (*pgx.Conn, error)) error {
	conn, err := openQuiet(ctx, listen, "pgsession check")
	if err != nil {
		return err
	}
	defer func() {
		_ = conn.Close(ctx) // it was only looked at
		awaitCleanup(c.store.store.life, conn)
	}()
	var pid int32
	var recovery bool
	err = conn.QueryRow(ctx, `select pg_catalog.pg_backend_pid(), pg_catalog.pg_is_in_recovery()`,
		pgx.QueryExecModeExec).Scan(&pid, &recovery)
	if err != nil {
		return err
	}
	if uint32(pid) != conn.PgConn().PID() {
		c.find(SeverityWarning, FindingPooler, "let Config.Listen reach the server itself: a pooler passes no notifications on",
			"a pooler is between listener %d and the server", i+1)
	}
	if recovery {
		c.find(SeverityError, FindingReplica, "let Config.Listen connect to the primary",
			"listener %d is connected to a standby, where notifications cannot be heard", i+1)
	}
	return nil
}

// What Check asks of the catalogue. Every name and operator is qualified: the caller's search_path may
// be hostile.

const serverSQL = `
select pg_catalog.current_setting('server_version_num')::pg_catalog.int8,
       pg_catalog.pg_is_in_recovery(),
       pg_catalog.current_setting('transaction_isolation'),
       pg_catalog.pg_notification_queue_usage(),
       pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'usage'),
       pg_catalog.clock_timestamp()`

// horizonSQL tells what is older than the limits, the oldest first. Each snapshot that was taken while an old
// transaction ran is as old as that in transactions, so that on a busy server the culprit is one of many: what
// began first is it, and where that may not be seen, what has the oldest transaction of its own. Of other
// databases only what replicates holds rows of this one. An autovacuum's snapshot holds none.
//
//	$1 Limits.Snapshot in seconds, $2 Limits.SnapshotAge
const horizonSQL = `
with holders as (
    (select case when a.backend_type operator(pg_catalog.=) 'walsender' then 'standby' else 'session' end as kind,
            pg_catalog.concat_ws(' ', a.pid, a.usename, a.application_name, a.backend_type) as name,
            s.transactions, s.seconds
       from pg_catalog.pg_stat_activity as a
      cross join lateral (
            select greatest(pg_catalog.age(a.backend_xmin), pg_catalog.age(a.backend_xid))::pg_catalog.int8 as transactions,
                   coalesce(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() operator(pg_catalog.-) a.xact_start),
                            '-1'::pg_catalog.float8) as seconds
            ) as s
      where s.transactions is not null
        and a.pid operator(pg_catalog.<>) pg_catalog.pg_backend_pid()
        and (a.datname is null or a.datname operator(pg_catalog.=) pg_catalog.current_database())
        and (a.backend_type operator(pg_catalog.<>) 'autovacuum worker') is not false
        and case when s.seconds operator(pg_catalog.>=) '0'::pg_catalog.float8
                 then s.seconds operator(pg_catalog.>) $1::pg_catalog.float8
                 else s.transactions operator(pg_catalog.>) $2::pg_catalog.int8 end
      order by s.transactions desc, a.xact_start asc nulls last, pg_catalog.age(a.backend_xid) desc nulls last
      limit 10)
     union all
    select 'replication slot', s.slot_name::pg_catalog.text, pg_catalog.age(s.xmin)::pg_catalog.int8,
           '-1'::pg_catalog.float8
      from pg_catalog.pg_replication_slots as s
     where pg_catalog.age(s.xmin)::pg_catalog.int8 operator(pg_catalog.>) $2::pg_catalog.int8
     union all
    select 'prepared transaction', p.gid, pg_catalog.age(p.transaction)::pg_catalog.int8, w.seconds
      from pg_catalog.pg_prepared_xacts as p
     cross join lateral (
           select pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() operator(pg_catalog.-) p.prepared) as seconds
           ) as w
     where p.database operator(pg_catalog.=) pg_catalog.current_database()
       and w.seconds operator(pg_catalog.>) $1::pg_catalog.float8
)
select h.kind::pg_catalog.text, h.name, h.transactions, h.seconds
  from holders as h
 order by h.transactions desc, h.seconds desc`
