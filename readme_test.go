package pgsession_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The README's programs are files that are compiled and run by tests of their own.
func TestREADMEShowsTheProgramsThatAreTested(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"examples/quickstart/main.go", "examples/node/sessions.mjs", "examples/scs/main.go"} {
		text, err := os.ReadFile(filepath.FromSlash(file))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(readme), "\n"+string(text)+"```\n") {
			t.Errorf("README.md does not show %s as it is", file)
		}
	}
}
