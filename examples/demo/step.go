package main

import "fmt"

// step is one step of the tour: what it shows, and where that differs from what it should be.
type step struct {
	title       string
	said        []string
	differences []difference
}

// difference is something that is not as it should be.
type difference struct{ what, want, got string }

// say adds to what the step tells its audience.
func (s *step) say(format string, args ...any) { s.said = append(s.said, fmt.Sprintf(format, args...)) }

// failed says whether anything differed.
func (s *step) failed() bool { return len(s.differences) > 0 }

// expect compares what a step got with what it should have got. It says whether they are equal, for
// what cannot go on otherwise.
func expect[T comparable](s *step, what string, want, got T) bool {
	if got == want {
		return true
	}
	s.differences = append(s.differences, difference{what, text(want), text(got)})
	return false
}

// text shows strings in quotes, so that an empty one is seen.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("%q", v)
	case fmt.Stringer:
		return v.String()
	}
	return fmt.Sprintf("%v", v)
}
