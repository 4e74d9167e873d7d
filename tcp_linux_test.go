package pgsession_test

import (
	"context"
	"net"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
)

// tcpUserTimeoutOption is TCP_USER_TIMEOUT of tcp(7).
const tcpUserTimeoutOption = 18

func socketOption(t *testing.T, conn *pgx.Conn, level, option int) (v int) {
	t.Helper()
	raw, err := conn.PgConn().Conn().(*net.TCPConn).SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) { v, err = syscall.GetsockoptInt(int(fd), level, option) }))
	must(t, err)
	return v
}

// The kernel ends a connection whose other machine is gone, long before its own defaults.
func TestTheKernelWatchesBothConnections(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var conns []*pgx.Conn
	store, _, _ := listening(t, func(address string, cfg *pgsession.Config) {
		cfg.Listeners = []func(context.Context) (*pgx.Conn, error){func(ctx context.Context) (*pgx.Conn, error) {
			conn, err := pgx.Connect(ctx, address)
			mu.Lock()
			defer mu.Unlock()
			conns = append(conns, conn)
			return conn, err
		}}
	})
	awaitLive(t, store)
	mu.Lock()
	defer mu.Unlock()
	if len(conns) < 2 {
		t.Fatalf("%d connections were made", len(conns))
	}
	for i, conn := range conns {
		for _, option := range []struct {
			name             string
			level, id, value int
		}{
			{"SO_KEEPALIVE", syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
			{"TCP_KEEPIDLE", syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 15},
			{"TCP_KEEPINTVL", syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 5},
			{"TCP_KEEPCNT", syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, 3},
			{"TCP_USER_TIMEOUT", syscall.IPPROTO_TCP, tcpUserTimeoutOption, 10_000},
		} {
			if v := socketOption(t, conn, option.level, option.id); v != option.value {
				t.Errorf("connection %d: %s is %d, want %d", i, option.name, v, option.value)
			}
		}
	}
}
