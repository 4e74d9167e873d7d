//go:build unix && !linux

package postgres

// memoryDirectory returns "": there is no usual directory in memory.
func memoryDirectory() string { return "" }
