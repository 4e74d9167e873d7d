//go:build unix

package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// sandbox is a directory of its own for one server program, which runs there as an unprivileged user
// and leaves nothing behind. One program runs in it at a time.
type sandbox struct {
	dir   string
	runAs *syscall.Credential // nil for the present user
	guard *exec.Cmd
	// tell is the guard's standard input. Its closing, be it by us or by our death, is what ends the
	// guard's wait.
	tell io.WriteCloser
}

// guardScript waits for its standard input to end. The kernel sees to that when the owner dies, of
// whatever cause, on every Unix: a parent-death signal would be for Linux only, is bound to the
// thread that forked, and removes no directory.
//
// Its input is the process group to end, or an empty line while there is none; or "done", when the
// owner has tidied up itself. SIGCONT is for a server that was paused.
const guardScript = `
pid=
while read -r line; do
	if [ "$line" = done ]; then exit 0; fi
	pid=$line
done
if [ -n "$pid" ]; then
	kill -QUIT "-$pid"
	kill -CONT "-$pid"
	tries=0
	while kill -0 "-$pid" && [ "$tries" -lt 100 ]; do
		tries=$((tries + 1))
		sleep 0.1
	done
	kill -KILL "-$pid"
fi
rm -rf "$1"
`

// newSandbox creates a directory, and its guard. The directory is on a disk where durable is true, and
// in memory otherwise if there is plenty.
func newSandbox(name string, durable bool) (*sandbox, error) {
	runAs, err := unprivileged()
	if err != nil {
		return nil, err
	}
	var dir string
	err = fs.ErrNotExist
	if parent := memoryDirectory(); parent != "" && !durable {
		dir, err = os.MkdirTemp(parent, "pgsession-"+name+"-")
	}
	if err != nil {
		dir, err = os.MkdirTemp(temporaryDirectory(runAs), "pgsession-"+name+"-")
	}
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	s := &sandbox{dir: dir, runAs: runAs}
	if runAs != nil {
		if err := os.Chown(dir, int(runAs.Uid), int(runAs.Gid)); err != nil {
			return nil, errors.Join(fmt.Errorf("postgres: %w", err), os.RemoveAll(dir))
		}
	}
	// The guard has a session of its own, so that Ctrl-C reaches its owner only.
	s.guard = exec.Command("/bin/sh", "-c", guardScript, "pgsession-guard", dir)
	s.guard.Dir = "/"
	s.guard.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: runAs}
	if s.tell, err = s.guard.StdinPipe(); err == nil {
		err = s.guard.Start()
	}
	if err != nil {
		err = fmt.Errorf("postgres: start the guard of %s: %w", dir, err)
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

// remove deletes the directory and ends the guard. Whatever ran in it must have ended.
func (s *sandbox) remove() error {
	err := os.RemoveAll(s.dir)
	// The guard is told last: until then it would do what is not done yet.
	_, tellErr := io.WriteString(s.tell, "done\n")
	err = errors.Join(err, tellErr, s.tell.Close())
	_ = s.guard.Wait() // how the guard ended no longer matters
	if err != nil {
		return fmt.Errorf("postgres: remove %s: %w", s.dir, err)
	}
	return nil
}

func (s *sandbox) path(name string) string { return filepath.Join(s.dir, name) }

// process is a program that runs in a sandbox.
type process struct {
	cmd  *exec.Cmd
	gone chan struct{} // closed when the process has been reaped
	err  error         // how it ended; read after gone
}

// start runs a program with its output appended to the file logName.
func (s *sandbox) start(logName, program string, args ...string) (*process, error) {
	log, err := os.OpenFile(s.path(logName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	defer func() { _ = log.Close() }() // the program has a descriptor of its own
	cmd := exec.Command(program, args...)
	cmd.Dir = s.dir
	cmd.Env = cleanEnvironment(s.dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: s.runAs}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("postgres: %w", explain(err, program, s.runAs))
	}
	p := &process{cmd: cmd, gone: make(chan struct{})}
	_, err = fmt.Fprintln(s.tell, cmd.Process.Pid)
	go func() {
		p.err = cmd.Wait()
		// A process id can be used again once its process was reaped.
		_, _ = fmt.Fprintln(s.tell)
		close(p.gone)
	}()
	if err != nil {
		_ = cmd.Process.Kill()
		<-p.gone
		return nil, fmt.Errorf("postgres: the guard of %s has died: %w", s.dir, err)
	}
	return p, nil
}

// run runs a program to its end. Its error holds what the program wrote.
func (s *sandbox) run(ctx context.Context, logName, program string, args ...string) error {
	p, err := s.start(logName, program, args...)
	if err != nil {
		return err
	}
	select {
	case <-p.gone:
		err = p.err
	case <-ctx.Done():
		signal([]int{-p.cmd.Process.Pid}, syscall.SIGKILL) // initdb runs postgres in its group
		<-p.gone
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("postgres: %s: %w\n%s", filepath.Base(program), err, s.tail(logName))
	}
	return nil
}

// tail returns the end of one of the logs, for an error.
func (s *sandbox) tail(logName string) string {
	content, err := os.ReadFile(s.path(logName))
	if err != nil {
		return err.Error()
	}
	return tail(content)
}

func (p *process) running() bool {
	select {
	case <-p.gone:
		return false
	default:
		return true
	}
}

// end sends a signal that is meant to end the process and waits for that, with SIGKILL after ten
// seconds.
func (p *process) end(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig) // an error means that it has ended
	impatience := time.NewTimer(10 * time.Second)
	defer impatience.Stop()
	select {
	case <-p.gone:
	case <-impatience.C:
		_ = p.cmd.Process.Kill()
		<-p.gone
	}
}

// unprivileged returns who is to run a server: nil for the present user, unless that is root, whom
// PostgreSQL refuses.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // no credential is how os/exec spells the present user
	}
	for _, name := range []string{"postgres", "nobody"} {
		account, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(account.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(account.Gid, 10, 32)
		if err := errors.Join(uidErr, gidErr); err != nil {
			return nil, fmt.Errorf("postgres: user %s: %w", name, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("postgres: PostgreSQL refuses to run as root, and there is neither a user " +
		"postgres nor a user nobody to run it as")
}

// temporaryDirectory returns the usual one, unless whoever runs the server cannot get there: root
// often has one of its own.
func temporaryDirectory(runAs *syscall.Credential) string {
	dir := os.TempDir()
	if runAs != nil && closedDirectory(dir) != "" {
		return "/tmp"
	}
	return dir
}

// closedDirectory returns the first directory on the way to path that others cannot pass, else "".
func closedDirectory(path string) string {
	for path = filepath.Clean(path); ; path = filepath.Dir(path) {
		if info, err := os.Stat(path); err == nil && info.IsDir() && info.Mode()&0o001 == 0 {
			return path
		}
		if path == filepath.Dir(path) {
			return ""
		}
	}
}

// runUnprivileged runs a program that needs no directory, and returns what it wrote.
func runUnprivileged(ctx context.Context, program string, args ...string) (string, error) {
	runAs, err := unprivileged()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = "/"
	cmd.Env = cleanEnvironment("/")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: runAs}
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = errors.Join(ctx.Err(), explain(err, program, runAs))
		return "", fmt.Errorf("postgres: %s: %w: %s", program, err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// explain says who was denied permission, and by which directory: the program's path alone does not
// show that it is root's and the server's user is another.
func explain(err error, program string, runAs *syscall.Credential) error {
	if runAs == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	who := "user id " + strconv.FormatUint(uint64(runAs.Uid), 10)
	if account, lookupErr := user.LookupId(strconv.FormatUint(uint64(runAs.Uid), 10)); lookupErr == nil {
		who = "user " + account.Username
	}
	if dir := closedDirectory(program); dir != "" {
		return fmt.Errorf("%w: root runs PostgreSQL as %s, whom directory %s keeps out; "+
			"put the binaries elsewhere", err, who, dir)
	}
	return fmt.Errorf("%w: root runs PostgreSQL as %s, who may not run this file", err, who)
}

// cleanEnvironment is the environment without what configures PostgreSQL's programs, such as PGPORT
// and PGDATA, with messages in English.
func cleanEnvironment(home string) []string {
	var env []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "PG") && !strings.HasPrefix(name, "LC_") && name != "LANG" {
			env = append(env, entry)
		}
	}
	return append(env, "LC_ALL=C", "HOME="+home)
}
