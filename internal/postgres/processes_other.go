//go:build unix && !linux

package postgres

import (
	"fmt"
	"os/exec"
	"strings"
)

// listProcesses returns every process, by its id.
func listProcesses() (map[int]processInfo, error) {
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=,stat=").Output()
	if err != nil {
		return nil, fmt.Errorf("postgres: list processes: %w", err)
	}
	processes := make(map[int]processInfo)
	for line := range strings.Lines(string(out)) {
		var pid, parent int
		var state string
		if _, err := fmt.Sscan(line, &pid, &parent, &state); err == nil {
			processes[pid] = processInfo{parent: parent, state: state[0]}
		}
	}
	return processes, nil
}
