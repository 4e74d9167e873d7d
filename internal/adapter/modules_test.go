package adapter_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// The replacement of the root by the directory above is for work in here: whoever depends on an adapter gets the
// version that is required, and of that there must be one.
func TestTheAdaptersRequireAReleaseOfTheRoot(t *testing.T) {
	t.Parallel()
	required := regexp.MustCompile(`(?m)^(?:require)?\s+(github\.com/pgsession/pgsession\S*) (v\S+)`)
	for _, module := range []string{"scsstore", "gorillastore", "ginstore", "fiberstorage"} {
		text, err := os.ReadFile(filepath.Join("..", "..", module, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		found := required.FindAllStringSubmatch(string(text), -1)
		if len(found) == 0 {
			t.Errorf("%s does not require the root", module)
		}
		for _, f := range found {
			if f[2] == "v0.0.0" {
				t.Errorf("%s requires %s %s, which cannot be had", module, f[1], f[2])
			}
		}
	}
}
