package postgres

import (
	"os"
	"syscall"
)

// tmpfsMagic is TMPFS_MAGIC of statfs(2).
const tmpfsMagic = 0x01021994

// memoryDirectory returns a directory that is in memory, or "" where there is none with plenty of
// room, as in a container. Each test's database is a thousand files, which take a disk's file system
// longer to create than PostgreSQL.
func memoryDirectory() string {
	const (
		dir    = "/dev/shm"
		plenty = 4 << 30
	)
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil || fs.Type != tmpfsMagic {
		return ""
	}
	// Whoever runs the server is to pass, and what one user makes no other is to remove.
	info, err := os.Stat(dir)
	if err != nil || info.Mode()&os.ModeSticky == 0 || info.Mode()&0o007 != 0o007 {
		return ""
	}
	if fs.Bavail < plenty/uint64(fs.Bsize) {
		return ""
	}
	return dir
}
