package main

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// options are the flags. Those that a benchmark does not name are not its own, and do nothing.
type options struct {
	sessions, small, large int
	calls                  int
	quiet                  time.Duration
	keep, scattered        bool
	batch                  int
	users, days            int
	day                    time.Duration
	store, with            string

	clients, data []int
	keys          []string
	workloads     []string
	rivals        []string
	rounds        int
	budget        time.Duration
	rate          float64
	slow, full    bool
	name          string
	results       string
	readme        string
	cpu           time.Duration

	busy float64 // no flag: how many processors were, before anything of this run was
}

func parse(name string, args []string) (o options, err error) {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	sessions := 10_000_000
	if name == "headline" || name == "latency" || name == "profile" {
		sessions = sessionCount
	}
	flags.IntVar(&o.sessions, "sessions", sessions,
		"growth, prune: `rows` in the big table; headline, latency, profile: sessions")
	flags.IntVar(&o.small, "small", 100_000, "growth: `rows` in the smallest table; each further has ten times as many")
	flags.IntVar(&o.large, "large", 500, "headline: `sessions`, at most, where they have more than 16 kB")
	flags.IntVar(&o.calls, "calls", 30_000, "growth: `writes` of each kind to each table; reads are twice as many")
	flags.DurationVar(&o.quiet, "quiet", 20*time.Second, "prune: how long traffic runs before")
	flags.BoolVar(&o.keep, "keep", false,
		"growth, prune: on the server of DATABASE_URL, use the tables that a run with -keep left, and leave them")
	flags.BoolVar(&o.scattered, "scattered", false, "prune: rows expire in no order at all, not in that of their creation")
	flags.IntVar(&o.batch, "batch", 0, "prune: Cleanup.BatchSize; its default, if 0")
	flags.IntVar(&o.users, "users", 15_000, "day: `sessions` of users at any time")
	flags.IntVar(&o.days, "days", 1, "day: how `many`")
	flags.DurationVar(&o.day, "day", 3*time.Minute, "day: how long a day takes")
	flags.StringVar(&o.store, "store", "", "day: pgsession, scs or fiber; all of them, if empty")
	flags.StringVar(&o.with, "with", "", "day: storage parameters in place of those of the migration, as in \"fillfactor=100\"")

	clients, data := "1,8,32", "400,4096,65536"
	flags.Func("clients", "headline, latency, updates: how `many`, as in \"1,8,32\"", set(&clients))
	flags.Func("data", "headline, latency: `bytes` of a session, as in \"400,4096,65536\"", set(&data))
	flags.BoolVar(&o.full, "full", false, "headline: every size with every number of clients; else all but the first size "+
		"with the middle number alone, and zipf with the last")
	keys, workloads, rivals := "", "", ""
	flags.StringVar(&keys, "keys", "uniform", "headline, latency: which sessions are asked for, `uniform,zipf`")
	flags.StringVar(&workloads, "workloads", "", "headline: read,churn,update,touch,mix; latency: get,fresh,update,mix")
	flags.StringVar(&rivals, "rivals", "", "headline, latency: `names`, with commas between; all of them, if empty")
	flags.IntVar(&o.rounds, "rounds", 9, "headline, latency, updates: how `many`, as far as the budget goes")
	flags.DurationVar(&o.budget, "budget", 280*time.Second, "headline, latency: how long it may take")
	flags.Float64Var(&o.rate, "rate", 1000, "latency: `requests` a second")
	flags.BoolVar(&o.slow, "slow", false, "headline, latency: a commit takes a millisecond more, as on a slower disk")
	flags.StringVar(&o.name, "name", name, "the `file` of the results, without .json")
	flags.StringVar(&o.results, "results", "results", "the `directory` of the results")
	flags.StringVar(&o.readme, "readme", "../README.md", "report: the `file` that quotes the results; none, if empty")
	flags.DurationVar(&o.cpu, "cpu", 5*time.Second, "profile: how long each operation runs")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.keys, o.workloads, o.rivals = list(keys), list(workloads), list(rivals)
	if o.clients, err = numbers(clients); err == nil {
		o.data, err = numbers(data)
	}
	switch {
	case err != nil:
		return o, err
	case flags.NArg() > 0:
		return o, fmt.Errorf("not a flag: %s", flags.Arg(0))
	case o.sessions < 100 || o.small < 100 || o.large < 10 || o.calls < 100 || o.users < 10 || o.days < 1 ||
		o.day < time.Second || o.quiet < 100*time.Millisecond:
		return o, errors.New("at least 100 sessions and calls, 10 large ones and users, a day of a second, and 100ms of quiet")
	case o.rounds < 1 || o.rate <= 0 || o.budget <= 0 || o.cpu <= 0 || slices.Min(o.clients) < 1 || slices.Min(o.data) < 100:
		return o, errors.New("at least a round, a client, 100 bytes of data, and a rate, a budget and a time above 0")
	}
	for _, k := range o.keys {
		if k != "uniform" && k != "zipf" {
			return o, fmt.Errorf("no such distribution of keys: %s", k)
		}
	}
	return o, nil
}

func set(value *string) func(string) error {
	return func(s string) error {
		*value = s
		return nil
	}
}

// list is what stands between commas.
func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func numbers(s string) (all []int, err error) {
	for _, part := range list(s) {
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil, fmt.Errorf("not a number: %s", part)
		}
		all = append(all, n)
	}
	if len(all) == 0 {
		return nil, errors.New("at least one number")
	}
	return all, nil
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

// slowDisk has each commit take a millisecond more.
var slowDisk = map[string]string{"commit_delay": "1000", "commit_siblings": "0"}

// rivalsServer has room for the connections of all rivals, and no checkpoint that would fall into the
// turn of one of them.
func (o options) rivalsServer() map[string]string {
	settings := map[string]string{
		"max_connections":    "800",
		"shared_buffers":     "1GB",
		"max_wal_size":       "16GB",
		"checkpoint_timeout": "1h",
	}
	if o.slow {
		for name, value := range slowDisk {
			settings[name] = value
		}
	}
	return settings
}

// dayServer compresses time for autovacuum too: it looks once a minute, and a second, the least that
// it takes, is several minutes of a compressed day.
func (o options) dayServer() map[string]string {
	naptime := max(1, int(time.Minute.Seconds()/o.speed()))
	return map[string]string{"autovacuum_naptime": strconv.Itoa(naptime) + "s", "shared_buffers": "512MB"}
}

// speed is by how much a day is shortened.
func (o options) speed() float64 { return float64(24*time.Hour) / float64(o.day) }
