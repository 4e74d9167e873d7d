package pgsession

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// connectTimeout bounds the making of a connection.
const connectTimeout = 10 * time.Second

// ListenFrom makes a Config.Listen of a pool's configuration: connections like the pool's, with its
// hooks BeforeConnect and AfterConnect, and none taken from it.
//
// It returns nil for nil, which is no Listen.
func ListenFrom(pool *pgxpool.Pool) func(ctx context.Context) (*pgx.Conn, error) {
	if pool == nil {
		return nil
	}
	return func(ctx context.Context) (*pgx.Conn, error) {
		config := pool.Config()
		if config.BeforeConnect != nil {
			if err := config.BeforeConnect(ctx, config.ConnConfig); err != nil {
				return nil, err
			}
		}
		config.ConnConfig.OnNotification = nil // it would take them from pgx.Conn.WaitForNotification
		conn, err := pgx.ConnectConfig(ctx, config.ConnConfig)
		if err != nil {
			return nil, err
		}
		if config.AfterConnect != nil {
			if err := config.AfterConnect(ctx, conn); err != nil {
				_ = conn.Close(ctx) // the hook's error is the news
				return nil, err
			}
		}
		return conn, nil
	}
}

// openQuiet opens and prepares a connection that may be silent for long.
func openQuiet(
	ctx context.Context, connect func(context.Context) (*pgx.Conn, error), purpose string,
) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := connect(ctx)
	if err != nil {
		return nil, err
	}
	if conn == nil {
		return nil, errors.New("Config.Listen returned no connection")
	}
	setTCPOptions(conn.PgConn().Conn())
	_, err = conn.Exec(ctx, "unlisten *", pgx.QueryExecModeExec)
	if err == nil {
		forgetNotifications(conn)
		_, err = conn.Exec(ctx, quietSQL, pgx.QueryExecModeExec, purpose)
	}
	if err != nil {
		_ = conn.Close(ctx) // the error is the news
		return nil, err
	}
	return conn, nil
}

// forgetNotifications drops what has come on the connection. What Config.Listen returns may have listened
// to the application's channels, as a pool's AfterConnect does, which is none of ours: a listener would
// take it for an error, and the control connection would keep it for good.
func forgetNotifications(conn *pgx.Conn) {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	for { // in a context that is over it only takes what has come
		if _, err := conn.WaitForNotification(over); err != nil {
			return
		}
	}
}

// quietSQL names the connection, keeps the server from ending it when it is idle, and has the server
// notice when this machine is gone: a listener that does not read fills the server's queue.
const quietSQL = `
select pg_catalog.set_config('idle_session_timeout', '0', false),
       pg_catalog.set_config('datestyle', 'ISO', false),
       pg_catalog.set_config('tcp_user_timeout', '30000', false),
       pg_catalog.set_config('application_name', pg_catalog.concat_ws(' ', nullif(
           pg_catalog.current_setting('application_name'), ''), $1::pg_catalog.text), false)`

// tcpUserTimeout is how long what was sent may stay without an answer from the server's machine.
const tcpUserTimeout = 10 * time.Second

// setTCPOptions has the kernel notice a server's machine that is gone, where it is TCP and as far as
// the system can. Beats notice it sooner; this ends the connection.
func setTCPOptions(conn net.Conn) {
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok { // tls.Conn
		conn = secure.NetConn()
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	// Without any of this it would only take longer.
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3})
	_ = setTCPUserTimeout(tcp, tcpUserTimeout)
}

// awaitCleanup waits until nothing of a connection is left, and for a while at most once the store is
// closed: pgx tells a server that does not answer to cancel, for up to 15 seconds.
func awaitCleanup(life context.Context, conn *pgx.Conn) {
	done := conn.PgConn().CleanupDone()
	select {
	case <-done:
		return
	case <-life.Done():
	}
	timer := time.NewTimer(closePatience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// control is the connection for beats and publications. It connects when it is used, and again after
// it was lost. One statement runs at a time.
type control struct {
	connect func(ctx context.Context) (*pgx.Conn, error)
	cleanup func(*pgx.Conn) // of one that was closed
	turn    chan struct{}   // held by sending to it
	conn    *pgx.Conn       // nil: none
	broken  atomic.Bool     // the last statement failed, a beat's or another: others had better go elsewhere
}

func newControl(connect func(context.Context) (*pgx.Conn, error), cleanup func(*pgx.Conn)) *control {
	return &control{connect: connect, cleanup: cleanup, turn: make(chan struct{}, 1)}
}

// queryRow runs a statement that returns one row.
func (c *control) queryRow(ctx context.Context, sql string, args []any, dest ...any) (err error) {
	defer func() { c.broken.Store(err != nil && !unacceptable(err)) }()
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if c.conn == nil {
		conn, err := c.connect(ctx)
		if err != nil {
			return err
		}
		c.conn = conn
	}
	err = c.conn.QueryRow(ctx, sql, args...).Scan(dest...)
	// On a standby nothing will ever work: the next connection may lead elsewhere.
	if state := sqlState(err); err != nil && (state == "" || state == codeReadOnly || c.conn.IsClosed()) {
		c.discard()
	}
	return err
}

// discard closes the connection. The caller holds the turn.
func (c *control) discard() {
	if c.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.conn.Close(ctx) // it is not needed any more
	c.cleanup(c.conn)
	c.conn = nil
}

// disconnect has the next statement connect anew.
func (c *control) disconnect() {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	c.discard()
}
