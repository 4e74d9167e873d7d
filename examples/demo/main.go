// Demo shows pgsession at work: two HTTP servers that share their sessions through one PostgreSQL,
// a tour by a real HTTP client that checks what it shows, and a page on which to do the same by hand.
//
//	go run ./demo          the tour, then the page, until Ctrl-C
//	go run ./demo -once    the tour alone; the same where standard input is no terminal
//
// DATABASE_URL names the PostgreSQL to use. Without it one is started for the demo, and ended with it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// Exit statuses. 2 is what the flag package uses for a wrong flag.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130 // 128 + SIGINT, as shells have it
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func run(args []string, stdin, stdout *os.File, stderr io.Writer) int {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	once := flags.Bool("once", false, "exit after the tour")
	schema := flags.String("schema", "pgsession_demo", "the `name` of a schema that is not there yet: "+
		"created at the start, dropped at the end")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return exitUsage
	}
	if flags.NArg() > 0 {
		_, _ = fmt.Fprintf(stderr, "demo: it takes no arguments, but for flags: %q\n", flags.Args())
		return exitUsage
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// A second Ctrl-C ends the process at once, should tearing down hang.
	defer context.AfterFunc(ctx, stop)()

	d := &demo{
		schema: *schema,
		serve:  !*once && isTerminal(stdin),
		out:    newReport(stdout, wantsColour(stdout)),
		logger: slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	err := d.run(ctx)
	status := exitStatus(err, ctx.Err() != nil)
	switch status {
	case exitInterrupted:
		d.out.line("Interrupted.")
	case exitFailed:
		_, _ = fmt.Fprintln(stderr, "demo:", err)
	}
	return status
}

// exitStatus is what the shell is told. Ending what serves until Ctrl-C by Ctrl-C is a success.
func exitStatus(err error, interrupted bool) int {
	switch {
	case err == nil:
		return 0
	case interrupted && !errors.Is(err, errTeardown):
		return exitInterrupted
	}
	return exitFailed
}
