package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// width is that of a line: what fits a terminal of 80 columns.
const width = 78

// Colours of the terminal's own palette, which fit its background, whatever that is.
const (
	bold  = "1"
	faint = "2"
	red   = "31"
	green = "32"
)

// report writes what happens, for people.
type report struct {
	out    io.Writer
	colour bool
}

func newReport(out io.Writer, colour bool) *report { return &report{out, colour} }

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// wantsColour follows https://no-color.org, and keeps escape codes out of files and pipes.
func wantsColour(f *os.File) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(f)
}

func (r *report) paint(code, s string) string {
	if !r.colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// line writes a line. An error is ignored: there is nobody left to tell.
func (r *report) line(s string) { _, _ = fmt.Fprintln(r.out, s) }

func (r *report) heading(s string) { r.line(r.paint(bold, s)) }

// text writes a paragraph.
func (r *report) text(s string) {
	for _, l := range wrap(s, width) {
		r.line(l)
	}
}

// fact writes a name, its value, and how long it took to get there, if that is of interest.
func (r *report) fact(name, value string, took time.Duration) {
	left := "  " + pad(name, 12)
	if took > 0 {
		value = pad(value, width-len("  ")-12-10) + r.paint(faint, fmt.Sprintf("%10s", duration(took)))
	}
	r.line(left + value)
}

// step writes how a step of the tour went.
func (r *report) step(number int, s *step, took time.Duration) {
	mark, title := r.paint(green, "✓"), r.paint(bold, s.title)
	if s.failed() {
		mark, title = r.paint(red, "✗"), r.paint(red, s.title)
	}
	gap := strings.Repeat(" ", max(1, width-16-utf8.RuneCountInString(s.title)))
	r.line(fmt.Sprintf("%s %2d  %s%s%s", mark, number, title, gap, r.paint(faint, fmt.Sprintf("%10s", duration(took)))))
	for _, said := range s.said {
		for _, l := range wrap(said, width-6) {
			r.line("      " + l)
		}
	}
	for _, d := range s.differences {
		r.line("      " + r.paint(red, d.what))
		r.line("        expected  " + d.want)
		r.line("        got       " + r.paint(red, d.got))
	}
}

// duration is short, and as exact as anybody wants to know.
func duration(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

func pad(s string, n int) string {
	return s + strings.Repeat(" ", max(1, n-utf8.RuneCountInString(s)))
}

// wrap breaks a text into lines at spaces. A word that is longer than a line stands alone.
func wrap(s string, n int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(s) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > n:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
