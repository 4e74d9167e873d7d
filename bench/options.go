package main

import (
	"errors"
	"flag"
	"fmt"
	"strconv"
	"time"
)

// options are the flags. Those that a benchmark does not name are not its own, and do nothing.
type options struct {
	sessions, small int
	calls           int
	quiet           time.Duration
	keep, scattered bool
	users, days     int
	day             time.Duration
	store, with     string
}

func parse(name string, args []string) (o options, err error) {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.IntVar(&o.sessions, "sessions", 10_000_000, "growth, prune: `rows` in the big table")
	flags.IntVar(&o.small, "small", 100_000, "growth: `rows` in the small one")
	flags.IntVar(&o.calls, "calls", 30_000, "growth: `writes` of each kind to each table; reads are twice as many")
	flags.DurationVar(&o.quiet, "quiet", 20*time.Second, "prune: how long traffic runs before")
	flags.BoolVar(&o.keep, "keep", false,
		"growth, prune: on the server of DATABASE_URL, use the tables that a run with -keep left, and leave them")
	flags.BoolVar(&o.scattered, "scattered", false, "prune: rows expire in no order at all, not in that of their creation")
	flags.IntVar(&o.users, "users", 15_000, "day: `sessions` of users at any time")
	flags.IntVar(&o.days, "days", 1, "day: how `many`")
	flags.DurationVar(&o.day, "day", 3*time.Minute, "day: how long a day takes")
	flags.StringVar(&o.store, "store", "", "day: pgsession, scs or fiber; all of them, if empty")
	flags.StringVar(&o.with, "with", "", "day: storage parameters in place of those of the migration, as in \"fillfactor=100\"")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("not a flag: %s", flags.Arg(0))
	case o.sessions < 100 || o.small < 100 || o.calls < 100 || o.users < 10 || o.days < 1 ||
		o.day < time.Second || o.quiet < 100*time.Millisecond:
		return o, errors.New("at least 100 sessions and calls, 10 users, a day of a second, and 100ms of quiet")
	}
	return o, nil
}

// bigServer is configured as one would for a table of some gigabytes on a machine with some
// gigabytes more: the table does not fit into shared_buffers, checkpoints come by the clock, and the
// log's files are used again, not made anew. It takes PostgreSQL 15, for lz4.
var bigServer = map[string]string{
	"shared_buffers":     "2GB",
	"max_wal_size":       "16GB",
	"min_wal_size":       "4GB",
	"checkpoint_timeout": "15min",
	"wal_compression":    "lz4",
}

// dayServer compresses time for autovacuum too: it looks once a minute, and a second, the least that
// it takes, is several minutes of a compressed day.
func (o options) dayServer() map[string]string {
	naptime := max(1, int(time.Minute.Seconds()/o.speed()))
	return map[string]string{"autovacuum_naptime": strconv.Itoa(naptime) + "s", "shared_buffers": "512MB"}
}

// speed is by how much a day is shortened.
func (o options) speed() float64 { return float64(24*time.Hour) / float64(o.day) }
