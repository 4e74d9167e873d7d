//go:build !unix

package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
)

func startCluster(context.Context, binaries, Options) (*Server, error) {
	return nil, &absentError{"postgres: installed binaries are run on Unix only"}
}

func runUnprivileged(context.Context, string, ...string) (string, error) {
	return "", &absentError{"postgres: installed binaries are run on Unix only"}
}

func startBouncer(context.Context, string, string, *pgx.ConnConfig, BouncerOptions) (*Bouncer, error) {
	return nil, &absentError{"postgres: pgbouncer is run on Unix only"}
}
