package pgsession

import (
	"net"
	"syscall"
	"testing"

	"github.com/pgsession/pgsession/internal/pgtest"
)

// What was given up must not arrive long after, when nobody publishes it any more.
func TestTheKernelWatchesThePoolOfOpen(t *testing.T) {
	t.Parallel()
	store, err := Open(t.Context(), pgtest.Database(t), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }() // always nil
	conn, err := store.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	raw, err := conn.Conn().PgConn().Conn().(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	const tcpUserTimeout = 18 // TCP_USER_TIMEOUT of tcp(7)
	if err := raw.Control(func(fd uintptr) {
		if v, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout); v != 10_000 || err != nil {
			t.Errorf("TCP_USER_TIMEOUT is %d: %v", v, err)
		}
	}); err != nil {
		t.Fatal(err)
	}
}
