package postgres

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
)

// listProcesses returns every process, by its id. It reads /proc rather than running ps, which small
// container images lack.
func listProcesses() (map[int]processInfo, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(files) == 0 {
		return nil, errors.New("postgres: list processes: /proc is not mounted")
	}
	processes := make(map[int]processInfo, len(files))
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// "1234 (name, which may hold anything) S 1 ..."
		fields := bytes.Fields(content[bytes.LastIndexByte(content, ')')+1:])
		if len(fields) < 2 {
			continue
		}
		pid, pidErr := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		parent, parentErr := strconv.Atoi(string(fields[1]))
		if pidErr == nil && parentErr == nil {
			processes[pid] = processInfo{parent: parent, state: fields[0][0]}
		}
	}
	return processes, nil
}
