package pgsession_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each line of the threat model names what shows it.
func TestTheThreatModelNamesTestsThatExist(t *testing.T) {
	t.Parallel()
	var source strings.Builder
	for _, dir := range []string{".", "internal/cache"} {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		must(t, err)
		for _, file := range files {
			text, err := os.ReadFile(file)
			must(t, err)
			source.Write(text)
		}
	}
	model, err := os.ReadFile("SECURITY.md")
	must(t, err)
	names := regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w+)`").FindAllStringSubmatch(string(model), -1)
	if len(names) < 20 {
		t.Errorf("it names %d tests", len(names))
	}
	for _, name := range names {
		if !strings.Contains(source.String(), "func "+name[1]+"(") {
			t.Errorf("%s is nowhere", name[1])
		}
	}
	threats, _, _ := strings.Cut(string(model), "| requirement |") // of a standard, which that table answers
	for _, line := range strings.Split(threats, "\n") {
		if row := strings.Split(line, "|"); len(row) == 5 && !strings.Contains(line, "---") &&
			strings.TrimSpace(row[2]) != "protects" && !strings.Contains(row[3], "`Test") {
			t.Errorf("no test: %s", line)
		}
	}
}
