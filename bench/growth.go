package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
)

// growth compares tables of a hundred thousand, a million and ten million sessions: each operation by
// one client, over all sessions at random, which is harder than traffic is.
func growth(ctx context.Context, url string, res *results, opts options) error {
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return err
	}
	defer pool.Close()
	sizes := []int{opts.sessions}
	for n := opts.sessions / 10; n >= opts.small; n /= 10 {
		sizes = append(sizes, n)
	}
	if smallest := sizes[len(sizes)-1]; smallest > opts.small {
		sizes = append(sizes, opts.small)
	}
	slices.Reverse(sizes)
	var sides []growthSide
	for _, n := range sizes {
		p := population{schema: fmt.Sprintf("pgsession_%d", n), sessions: n}
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
		line, err := s.describeSize(ctx, pool)
		if err != nil {
			return err
		}
		res.printf("%s", line)
	}
	var beyond error
	for _, op := range growthOperations {
		ratio, err := compareGrowth(ctx, res, op.name, op.share*opts.calls, sides, op.call)
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

// compareGrowth calls op on all sides in turns of a hundred, and prints the percentiles and the
// ratio of the last one's median to the first one's.
func compareGrowth(
	ctx context.Context, res *results, name string, calls int, sides []growthSide, op growthCall,
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
	c := curve{Plot: "growth", Name: name}
	var line strings.Builder
	fmt.Fprintf(&line, "%-6s", name)
	for i, s := range sides {
		percentiles := percentilesOf(times[i])
		c.X, c.Y = append(c.X, float64(s.sessions)), append(c.Y, float64(percentiles.p50))
		c.High = append(c.High, float64(percentiles.p99))
		fmt.Fprintf(&line, "  %9d sessions: %v", s.sessions, percentiles)
	}
	ratio := c.Y[len(c.Y)-1] / c.Y[0]
	res.printf("%s  p50 %.2f x", line.String(), ratio)
	res.Curves = append(res.Curves, c)
	return ratio, nil
}

func (p population) describeSize(ctx context.Context, pool *pgxpool.Pool) (string, error) {
	size, err := tableSize(ctx, pool, p.table())
	if err != nil {
		return "", err
	}
	n := float64(p.sessions)
	parts := []string{fmt.Sprintf("table %.0f", float64(size.table)/n)}
	for _, index := range size.indexes {
		parts = append(parts, fmt.Sprintf("%s %.0f", index.name, float64(index.bytes)/n))
	}
	return fmt.Sprintf("%d sessions: %.0f MB; bytes per session of %d: %s, together %.0f",
		p.sessions, float64(size.all)/1e6, dataSize, strings.Join(parts, ", "), float64(size.all)/n), nil
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
