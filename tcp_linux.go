package pgsession

import (
	"net"
	"syscall"
	"time"
)

// tcpUserTimeoutOption is TCP_USER_TIMEOUT of tcp(7), in milliseconds.
const tcpUserTimeoutOption = 18

func setTCPUserTimeout(conn *net.TCPConn, d time.Duration) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var optionErr error
	err = raw.Control(func(fd uintptr) {
		optionErr = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeoutOption, int(d.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return optionErr
}
