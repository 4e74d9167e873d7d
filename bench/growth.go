package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
)

// growth compares a table of ten million sessions with one of a hundred thousand: each operation by
// one client, over all sessions at random, which is harder than traffic is.
func growth(ctx context.Context, url string, opts options) error {
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := printSettings(ctx, pool, "max_wal_size", "wal_compression"); err != nil {
		return err
	}
	var sides []growthSide
	for _, p := range []population{
		{schema: "pgsession_small", sessions: opts.small},
		{schema: "pgsession_big", sessions: opts.sessions},
	} {
		store, err := p.fill(ctx, pool, opts.keep)
		if err != nil {
			return err
		}
		defer store.Close()
		if !opts.keep {
			defer func() { _ = p.drop(context.WithoutCancel(ctx), pool) }()
		}
		sides = append(sides, growthSide{population: p, store: store})
	}
	for _, s := range sides {
		if err := s.printSize(ctx, pool); err != nil {
			return err
		}
	}
	var beyond error
	for _, op := range growthOperations {
		ratio, err := compareGrowth(ctx, op.name, op.share*opts.calls, sides, op.call)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", op.name, err)
		case op.limit > 0 && ratio > op.limit:
			beyond = errors.Join(beyond, fmt.Errorf("%w: %s", errBeyondLimit, op.name))
		}
	}
	return beyond
}

type growthSide struct {
	population
	store *pgsession.Store
}

var growthOperations = []struct {
	name  string
	share int // of the calls, on each side
	limit float64
	call  growthCall
}{
	{"Get", 2, 1.5, func(ctx context.Context, s *pgsession.Store, n, _ int) error {
		_, err := s.GetFresh(ctx, token(n))
		return err
	}},
	{"Set", 1, 0, func(ctx context.Context, s *pgsession.Store, n, write int) error {
		_, err := s.Set(ctx, token(n), pgsession.Session{Data: payload(write), Subject: subject(n)})
		return err
	}},
	{"Touch", 1, 0, func(ctx context.Context, s *pgsession.Store, n, _ int) error {
		_, err := s.Touch(ctx, token(n))
		return err
	}},
}

// growthCall is of session n, and the write of that number.
type growthCall func(ctx context.Context, s *pgsession.Store, n, write int) error

// compareGrowth calls op on both sides in turns of a hundred, and prints the percentiles and the
// ratio of the medians.
func compareGrowth(
	ctx context.Context, name string, calls int, sides []growthSide, op growthCall,
) (float64, error) {
	const turn = 100
	random := rand.New(rand.NewPCG(1, 2))
	times := make([][]time.Duration, len(sides))
	for done := 0; done < calls*11/10; done += turn {
		for i, s := range sides {
			for k := range turn {
				n := random.IntN(s.sessions)
				start := time.Now()
				if err := op(ctx, s.store, n, done+k); err != nil {
					return 0, err
				}
				if done >= calls/10 { // after plans and the upper pages of indexes are there
					times[i] = append(times[i], time.Since(start))
				}
			}
		}
	}
	var medians []float64
	fmt.Printf("%-6s", name)
	for i, s := range sides {
		percentiles := percentilesOf(times[i])
		medians = append(medians, float64(percentiles.p50))
		fmt.Printf("  %9d sessions: %v", s.sessions, percentiles)
	}
	fmt.Printf("  p50 %.2f x\n", medians[1]/medians[0])
	return medians[1] / medians[0], nil
}

func (p population) printSize(ctx context.Context, pool *pgxpool.Pool) error {
	size, err := tableSize(ctx, pool, p.table())
	if err != nil {
		return err
	}
	n := float64(p.sessions)
	parts := []string{fmt.Sprintf("table %.0f", float64(size.table)/n)}
	for _, index := range size.indexes {
		parts = append(parts, fmt.Sprintf("%s %.0f", index.name, float64(index.bytes)/n))
	}
	fmt.Printf("%s: %.0f MB; bytes per session of %d: %s, together %.0f\n",
		p.schema, float64(size.all)/1e6, dataSize, strings.Join(parts, ", "), float64(size.all)/n)
	return nil
}

// relationSizes are bytes: of the table with its maps and what is toasted, and of each index.
type relationSizes struct {
	all, table int64
	indexes    []struct {
		name  string
		bytes int64
	}
}

func tableSize(ctx context.Context, pool *pgxpool.Pool, table string) (s relationSizes, err error) {
	err = pool.QueryRow(ctx, "select pg_total_relation_size($1::regclass), pg_table_size($1::regclass)", table).
		Scan(&s.all, &s.table)
	if err != nil {
		return s, err
	}
	rows, err := pool.Query(ctx, `select c.relname, pg_relation_size(i.indexrelid)
	                                from pg_index as i join pg_class as c on c.oid = i.indexrelid
	                               where i.indrelid = $1::regclass order by c.relname`, table)
	if err != nil {
		return s, err
	}
	defer rows.Close()
	for rows.Next() {
		var index struct {
			name  string
			bytes int64
		}
		if err := rows.Scan(&index.name, &index.bytes); err != nil {
			return s, err
		}
		s.indexes = append(s.indexes, index)
	}
	return s, rows.Err()
}
