package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// meter reads what servers have used of processors. The views pg_stat_* count calls and wall time; which
// processes there are is pg_stat_activity's to say, and the kernel counts their nanoseconds. The files
// stay open, so that a reading of hundreds of backends takes less than a millisecond of its own.
type meter struct {
	conn   *pgx.Conn
	others []int // processes beside PostgreSQL's: Redis
	files  map[int]*os.File
	last   map[int]time.Duration
	gone   time.Duration // of those that ended
}

// errNotHere is that of a server whose processes are not this machine's, as in a container.
var errNotHere = errors.New("the server's processes are not on this machine")

func newMeter(ctx context.Context, url string, others ...int) (*meter, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	m := &meter{conn: conn, others: others, files: map[int]*os.File{}, last: map[int]time.Duration{}}
	if _, err := m.used(ctx); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func (m *meter) close() {
	_ = m.conn.Close(context.Background())
	for _, f := range m.files {
		_ = f.Close()
	}
}

// used is what all processes have used since some time. One that comes and ends between two readings
// is not counted, and parallel workers, which do just that, never are.
func (m *meter) used(ctx context.Context) (time.Duration, error) {
	rows, err := m.conn.Query(ctx, "select pid from pg_stat_activity where backend_type !~ 'worker'")
	if err != nil {
		return 0, err
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return 0, err
	}
	for _, pid := range append(pids, m.others...) {
		if m.files[pid] == nil {
			if err := m.open(pid); err != nil {
				return 0, err
			}
		}
	}
	total := m.gone
	buffer := make([]byte, 128)
	for pid, f := range m.files {
		n, _ := f.ReadAt(buffer, 0)                        // it ends before the buffer does, which is an error too
		text, _, _ := strings.Cut(string(buffer[:n]), " ") // nanoseconds first
		used, err := strconv.ParseInt(text, 10, 64)
		if err != nil { // the process ended
			m.gone += m.last[pid]
			total += m.last[pid]
			delete(m.files, pid)
			delete(m.last, pid)
			_ = f.Close()
			continue
		}
		m.last[pid] = time.Duration(used)
		total += time.Duration(used)
	}
	return total, nil
}

// open opens the counts of a process. A process of that number may be another one here.
func (m *meter) open(pid int) error {
	directory := fmt.Sprintf("/proc/%d", pid)
	name, err := os.ReadFile(filepath.Join(directory, "comm"))
	if err != nil || !strings.HasPrefix(string(name), "postgres") && !strings.HasPrefix(string(name), "redis") {
		if errors.Is(err, os.ErrNotExist) && len(m.files) > 0 {
			return nil // it has ended since
		}
		return errNotHere
	}
	f, err := os.Open(filepath.Join(directory, "schedstat"))
	if err != nil {
		return fmt.Errorf("%w: %w", errNotHere, err)
	}
	m.files[pid] = f
	return nil
}
