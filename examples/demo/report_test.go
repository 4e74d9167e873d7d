package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestAStepThatDiffersShowsExpectedAndGot(t *testing.T) {
	t.Parallel()
	s := &step{title: "Arithmetic"}
	if !expect(s, "one", 1, 1) || s.failed() {
		t.Error("equal values are taken for different ones")
	}
	if expect(s, "two", 2, 3) || !s.failed() {
		t.Error("different values are taken for equal ones")
	}
	expect(s, "nothing", "something", "")
	expect(s, "rows", census{rows: 1, live: 1}, census{})
	s.say("It is said that %d is two.", 3)

	var out strings.Builder
	newReport(&out, false).step(7, s, 12*time.Millisecond)
	want := "✗  7  Arithmetic" + strings.Repeat(" ", width-16-len("Arithmetic")) + "     12 ms\n" +
		"      It is said that 3 is two.\n" +
		"      two\n        expected  2\n        got       3\n" +
		"      nothing\n        expected  \"something\"\n        got       \"\"\n" +
		"      rows\n        expected  1: 1 live, 0 expired, 0 tombstones\n" +
		"        got       0: 0 live, 0 expired, 0 tombstones\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestColourChangesNoText(t *testing.T) {
	t.Parallel()
	write := func(colour bool) string {
		var out strings.Builder
		r := newReport(&out, colour)
		r.heading("A heading")
		r.fact("PostgreSQL", "somewhere", time.Second)
		good, bad := &step{title: "Good"}, &step{title: "Bad"}
		expect(bad, "it", 1, 2)
		r.step(1, good, time.Second)
		r.step(2, bad, time.Second)
		return out.String()
	}
	plain, coloured := write(false), write(true)
	if strings.Contains(plain, "\x1b") {
		t.Errorf("escape codes without colour:\n%q", plain)
	}
	stripped := coloured
	for _, code := range []string{bold, faint, red, green, "0"} {
		stripped = strings.ReplaceAll(stripped, "\x1b["+code+"m", "")
	}
	if stripped != plain || coloured == plain {
		t.Errorf("colour changes more than colour:\n%q\n%q", coloured, plain)
	}
}

func TestWrap(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text string
		want string
	}{
		{"", ""},
		{"one", "one"},
		{"one two three", "one two|three"},
		{"a  word   or\ntwo", "a word|or two"},
		{"antidisestablishmentarianism is long", "antidisestablishmentarianism|is long"},
		{"äöü äöü", "äöü äöü"},
	} {
		lines := wrap(test.text, 7)
		if got := strings.Join(lines, "|"); got != test.want {
			t.Errorf("wrap(%q) = %q, want %q", test.text, got, test.want)
		}
		for _, line := range lines {
			if utf8.RuneCountInString(line) > 7 && strings.Contains(line, " ") {
				t.Errorf("wrap(%q) has the line %q", test.text, line)
			}
		}
	}
}

func TestDurations(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0:                       "0.0 ms",
		1234 * time.Microsecond: "1.2 ms",
		56 * time.Millisecond:   "56 ms",
		1234 * time.Millisecond: "1.23 s",
	} {
		if got := duration(d); got != want {
			t.Errorf("duration(%v) = %q, want %q", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		-time.Second:                    "a moment",
		300 * time.Millisecond:          "a moment",
		time.Second:                     "1 second",
		29*time.Minute + 50*time.Second: "30 minutes",
		59*time.Minute + 50*time.Second: "1 hour",
		24 * time.Hour:                  "1 day",
		48 * time.Hour:                  "2 days",
	} {
		if got := roughly(d); got != want {
			t.Errorf("roughly(%v) = %q, want %q", d, got, want)
		}
	}
}
