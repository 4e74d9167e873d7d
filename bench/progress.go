package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// progress is a bar on a terminal, and nothing elsewhere.
type progress struct {
	shown bool
	start time.Time
	end   time.Time // when it is to be over
	last  time.Time
}

func newProgress(budget time.Duration) *progress {
	now := time.Now()
	return &progress{shown: term.IsTerminal(int(os.Stderr.Fd())), start: now, end: now.Add(budget)}
}

const barWidth = 30

// show says what is being done; by the budget, for how much of it is to be done is given by the time.
func (p *progress) show(what string) {
	if !p.shown || time.Since(p.last) < 100*time.Millisecond {
		return
	}
	p.last = time.Now()
	share := min(1, float64(time.Since(p.start))/float64(p.end.Sub(p.start)))
	done := int(share * barWidth)
	left := max(0, time.Until(p.end)).Round(time.Second)
	fmt.Fprintf(os.Stderr, "\r\x1b[K%s%s %3.0f %%  %v left  %s",
		strings.Repeat("█", done), strings.Repeat("░", barWidth-done), 100*share, left, what)
}

// clear takes the bar away, for what is printed.
func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
}
