//go:build unix

package pgsession_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// The process of TestAStoppedProcessServesNothingOldWhenItGoesOn: where it is told a database it is the
// one that is stopped.
const stoppedProcessVariable = "PGSESSION_TEST_STOPPED_PROCESS"

// stoppedLiveness is that process's deadline.
const stoppedLiveness = 300 * time.Millisecond

// sighting is what the process has seen of a session: at what times, in nanoseconds since 1970, the
// first and the last read began that returned it.
type sighting struct {
	Version     int64 // 0: missing
	First, Last int64
}

// report is what the process has seen since the last one.
type report struct {
	Hits      int64
	Sightings []sighting
	Err       string
}

func TestAStoppedProcessServesNothingOldWhenItGoesOn(t *testing.T) {
	if address := os.Getenv(stoppedProcessVariable); address != "" {
		stoppedProcess(t, address)
		return
	}
	t.Parallel()
	address := pgtest.Database(t)
	store := setUp(t, pgtest.Connect(t, address).Query, pgsession.Config{})
	token, s, err := store.Create(t.Context(), pgsession.Session{Data: []byte("1")})
	must(t, err)

	program, err := os.Executable()
	must(t, err)
	command := osexec.CommandContext(t.Context(), program, "-test.run=^"+t.Name()+"$", "-test.v=false")
	command.Env = append(os.Environ(), stoppedProcessVariable+"="+address)
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	must(t, err)
	output, err := command.StdoutPipe()
	must(t, err)
	must(t, command.Start())
	answers := bufio.NewReader(output)
	ask := func(question string) (r report) {
		t.Helper()
		_, err := fmt.Fprintln(input, question)
		must(t, err)
		line, err := answers.ReadBytes('\n')
		must(t, err)
		must(t, json.Unmarshal(line, &r))
		if r.Err != "" {
			t.Fatal(r.Err)
		}
		return r
	}
	ask(string(token))

	for _, change := range []func() error{
		func() (err error) { s, err = store.Set(t.Context(), token, s); return err },
		func() (err error) { s, err = store.Set(t.Context(), token, s); return err },
		func() (err error) {
			_, err = store.Destroy(t.Context(), token)
			s.Version = 0
			return err
		},
	} {
		old := s.Version
		hits := ask("report").Hits
		eventually(t, "it reads from memory", func() bool {
			r := ask("report")
			return r.Hits > hits+100 && len(r.Sightings) > 0 && r.Sightings[len(r.Sightings)-1].Version == old
		})
		must(t, command.Process.Signal(syscall.SIGSTOP))
		var status syscall.WaitStatus
		_, err := syscall.Wait4(command.Process.Pid, &status, syscall.WUNTRACED, nil)
		if err != nil || !status.Stopped() {
			t.Fatalf("it is not stopped: %v, %v", status, err)
		}
		s.Data = fmt.Append(s.Data, ".")
		must(t, change())
		time.Sleep(stoppedLiveness + 50*time.Millisecond) // must truly pass
		wakes := time.Now().UnixNano()
		must(t, command.Process.Signal(syscall.SIGCONT))
		eventually(t, "it has the new one", func() bool {
			for _, seen := range ask("report").Sightings {
				switch {
				case seen.Version == old && seen.Last >= wakes:
					t.Fatalf("%v after it went on a read began that returned the old one", time.Duration(seen.Last-wakes))
				case seen.Version == s.Version && seen.First >= wakes:
					t.Logf("the first read of the new one began %v after it went on", time.Duration(seen.First-wakes))
					return true
				}
			}
			return false
		})
	}
	must(t, input.Close())
	must(t, command.Wait())
}

// stoppedProcess reads a session again and again, and reports when it is asked.
func stoppedProcess(t *testing.T, address string) {
	ctx, cancel := context.WithCancel(context.Background())
	pool, err := pgxpool.New(ctx, address)
	must(t, err)
	t.Cleanup(pool.Close)
	cfg := pgsession.Config{Listen: listenFor(address)}
	cfg.Cache.Liveness = stoppedLiveness
	store := setUp(t, pool.Query, cfg)
	awaitLive(t, store)
	questions := bufio.NewScanner(os.Stdin)
	if !questions.Scan() {
		t.Fatal(questions.Err())
	}
	token := pgsession.Token(questions.Text())

	var mu sync.Mutex
	seen := map[int64]sighting{}
	var order []int64
	var failure atomic.Pointer[error]
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			for ctx.Err() == nil {
				var version int64
				began := time.Now().UnixNano()
				err := store.View(ctx, token, func(s pgsession.Session) error {
					version = s.Version
					return nil
				})
				if err != nil && ctx.Err() == nil && !errors.Is(err, pgsession.ErrNotFound) {
					failure.Store(&err)
				}
				mu.Lock()
				one, ok := seen[version]
				if !ok {
					one = sighting{Version: version, First: began}
					order = append(order, version)
				}
				one.First, one.Last = min(one.First, began), max(one.Last, began)
				seen[version] = one
				mu.Unlock()
			}
		})
	}
	answer := func() {
		r := report{Hits: store.Stats().Cache.Hits}
		if err := failure.Load(); err != nil {
			r.Err = (*err).Error()
		}
		mu.Lock()
		for _, version := range order {
			r.Sightings = append(r.Sightings, seen[version])
		}
		clear(seen)
		order = nil
		mu.Unlock()
		line, err := json.Marshal(r)
		must(t, err)
		fmt.Println(string(line))
	}
	answer()
	for questions.Scan() {
		answer()
	}
	cancel()
	group.Wait()
}
