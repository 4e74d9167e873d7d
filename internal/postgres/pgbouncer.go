package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// BouncerOptions says how a PgBouncer should behave. The zero value pools by transaction.
type BouncerOptions struct {
	// Mode is the pool_mode: session, transaction or statement. Defaults to transaction.
	Mode string

	// Password is the one with which PgBouncer logs in to the server as any user but that of the
	// server's URL, whose password it has from there. Defaults to none, which a server that was
	// started here is content with.
	Password string

	// Settings are further parameters of the section [pgbouncer], such as max_prepared_statements.
	// They override those that [PgBouncer] sets.
	Settings map[string]string
}

// Bouncer is a running PgBouncer. Its methods are safe for concurrent use.
type Bouncer struct {
	url  string
	stop func() error // idempotent
}

// PgBouncer starts an installed pgbouncer in front of the server at serverURL, for all of its
// databases. Clients need no password, whichever user of the server they connect as. ctx bounds the
// start only: call [Bouncer.Stop]. [IsMissing] tells the error where pgbouncer is not installed.
//
// If this process dies without calling Stop, the PgBouncer ends as a server of [Start] does.
func PgBouncer(ctx context.Context, serverURL string, opts BouncerOptions) (*Bouncer, error) {
	program, err := findPgBouncer()
	if err != nil {
		return nil, err
	}
	server, err := pgx.ParseConfig(serverURL)
	if err != nil {
		return nil, fmt.Errorf("postgres: the server of the PgBouncer: %w", err)
	}
	return startBouncer(ctx, program, serverURL, server, opts)
}

// findPgBouncer looks on PATH, and where Debian puts it, which is on root's PATH only.
func findPgBouncer() (string, error) {
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer", "/usr/local/sbin/pgbouncer"} {
		if program, err := exec.LookPath(name); err == nil {
			return program, nil
		}
	}
	return "", &absentError{"postgres: pgbouncer is not installed; on Debian and Ubuntu: " +
		"apt-get install -y --no-install-recommends pgbouncer"}
}

// IsMissing reports whether an error of [Start] or [PgBouncer] says that a program is not installed.
func IsMissing(err error) bool {
	var absent *absentError
	return errors.As(err, &absent)
}

// bouncerConfig renders pgbouncer.ini.
func bouncerConfig(server *pgx.ConnConfig, port int, authFile string, opts BouncerOptions) string {
	tls := "disable"
	if server.TLSConfig != nil {
		tls = "prefer"
	}
	parameters := map[string]string{
		"listen_addr":     "127.0.0.1",
		"listen_port":     strconv.Itoa(port),
		"unix_socket_dir": "",
		"pool_mode":       "transaction",
		// Trust takes a client's word for who it is, but has to know the user, and the password to
		// give to the server: from the file for the user of the URL, from the query for the others.
		"auth_type":          "trust",
		"auth_file":          authFile,
		"auth_query":         authQuery(opts.Password),
		"admin_users":        server.User,
		"server_tls_sslmode": tls,
		// Drivers set it in every start-up message, and PgBouncer refuses what it does not know.
		"ignore_startup_parameters": "extra_float_digits",
		// Each database and user has a pool of its own, and tests have many.
		"max_client_conn":     "1000",
		"default_pool_size":   "10",
		"server_idle_timeout": "30",
	}
	if opts.Mode != "" {
		parameters["pool_mode"] = opts.Mode
	}
	maps.Copy(parameters, opts.Settings)

	var b strings.Builder
	fmt.Fprintf(&b, "[databases]\n* = host=%s port=%d auth_user=%s\n\n[pgbouncer]\n",
		quote(server.Host, '\''), server.Port, quote(server.User, '\''))
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		fmt.Fprintf(&b, "%s = %s\n", name, parameters[name])
	}
	return b.String()
}

func authQuery(password string) string {
	return fmt.Sprintf("select rolname, %s from pg_catalog.pg_roles where rolname = $1",
		quote(password, '\''))
}

// bouncerUsers renders the auth_file.
func bouncerUsers(server *pgx.ConnConfig) string {
	return quote(server.User, '"') + " " + quote(server.Password, '"') + "\n"
}

// quote puts a value in quotes, doubling those in it.
func quote(value string, mark rune) string {
	q := string(mark)
	return q + strings.ReplaceAll(value, q, q+q) + q
}

// bouncerAnswers makes sure that who answers is the PgBouncer that has this auth_file.
func bouncerAnswers(ctx context.Context, url, authFile string) error {
	console, err := WithDatabase(url, "pgbouncer")
	if err != nil {
		return err
	}
	conn, err := pgconn.Connect(ctx, console)
	if err != nil {
		return err
	}
	defer hangUp(ctx, conn)
	results, err := conn.Exec(ctx, "show config").ReadAll()
	if err != nil {
		return err
	}
	for _, row := range results[0].Rows {
		if string(row[0]) == "auth_file" && string(row[1]) == authFile {
			return nil
		}
	}
	return fmt.Errorf("%w by another PgBouncer", errPortTaken)
}

// URL returns the server's connection string with PgBouncer's address.
func (b *Bouncer) URL() string { return b.url }

// Stop ends PgBouncer and its connections, and removes its directory. Calls after the first return
// what the first returned.
func (b *Bouncer) Stop() error { return b.stop() }

func newBouncer(url string, stop func() error) *Bouncer {
	return &Bouncer{url: url, stop: sync.OnceValue(stop)}
}
