//go:build unix

package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

const bouncerLog = "pgbouncer.log"

func startBouncer(
	ctx context.Context, program, serverURL string, server *pgx.ConnConfig, opts BouncerOptions,
) (_ *Bouncer, err error) {
	sandbox, err := newSandbox("pgbouncer", false)
	if err != nil {
		return nil, err
	}
	var running *process
	stop := func() error {
		if running != nil {
			running.end(syscall.SIGKILL) // it has nothing to save
		}
		return sandbox.remove()
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, stop())
		}
	}()

	users, config := sandbox.path("userlist.txt"), sandbox.path("pgbouncer.ini")
	if err := sandbox.write(users, bouncerUsers(server)); err != nil {
		return nil, err
	}
	for range portAttempts {
		var port int
		if port, err = freePort(); err != nil {
			return nil, err
		}
		if err = sandbox.write(config, bouncerConfig(server, port, users, opts)); err != nil {
			return nil, err
		}
		var url string
		url, err = WithAddress(serverURL, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return nil, err
		}
		// Whatever the server's own connection needs, that to 127.0.0.1 has no certificate.
		if url, err = withParameter(url, "sslmode", "disable"); err != nil {
			return nil, err
		}
		if running, err = sandbox.start(bouncerLog, program, config); err != nil {
			return nil, err
		}
		err = await(ctx, running.gone, func(ctx context.Context) error {
			return bouncerAnswers(ctx, url, users)
		})
		if err == nil {
			return newBouncer(url, stop), nil
		}
		running.end(syscall.SIGKILL)
		log := sandbox.tail(bouncerLog)
		err = fmt.Errorf("postgres: pgbouncer: %w\n%s", err, log)
		if !strings.Contains(log, "ddress already in use") {
			break
		}
	}
	return nil, err
}

// write creates a file that whoever runs the sandbox's program, and nobody else, can read.
func (s *sandbox) write(path, content string) error {
	err := os.WriteFile(path, []byte(content), 0o600)
	if err == nil && s.runAs != nil {
		err = os.Chown(path, int(s.runAs.Uid), int(s.runAs.Gid))
	}
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	return nil
}
