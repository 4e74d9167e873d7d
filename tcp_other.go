//go:build !linux

package pgsession

import (
	"net"
	"time"
)

// setTCPUserTimeout does nothing: only Linux has the option.
func setTCPUserTimeout(*net.TCPConn, time.Duration) error { return nil }
