//go:build unix

package postgres

import (
	"fmt"
	"syscall"
	"time"
)

// processInfo is what the system says of a process. Its state is a letter of ps: T for stopped, Z for
// ended and not yet reaped.
type processInfo struct {
	parent int
	state  byte
}

func childrenOf(pid int) ([]int, error) {
	processes, err := listProcesses()
	if err != nil {
		return nil, err
	}
	var children []int
	for child, info := range processes {
		if info.parent == pid && info.state != 'Z' {
			children = append(children, child)
		}
	}
	return children, nil
}

// awaitState waits until each of some processes has ended, or is in a state. It polls, since neither
// the ending nor the stopping of a process that is not one's child is announced.
func awaitState(pids []int, state byte, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for {
		processes, err := listProcesses()
		if err != nil {
			return err
		}
		late := 0
		for _, pid := range pids {
			if info, ok := processes[pid]; ok && info.state != 'Z' && info.state != state {
				late = pid
			}
		}
		if late == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("postgres: process %d is in state %c after %s",
				late, processes[late].state, timeout)
		}
		time.Sleep(pollInterval)
	}
}

// signal sends a signal to each of some processes. One that has just ended is no failure.
func signal(pids []int, sig syscall.Signal) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, sig)
	}
}
