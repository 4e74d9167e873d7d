package pgsession_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/pgsession/pgsession"
)

// addTo puts an item into the cart.
func addTo(data *[]byte, item string) error {
	var content struct {
		Cart map[string]int `json:"cart"`
	}
	err := json.Unmarshal(*data, &content)
	if err == nil {
		content.Cart[item] = 1
		*data, err = json.Marshal(content)
	}
	return err
}

// The README's "Concurrent writes", as it stands there.
func TestTwoTabsSaveAsTheREADMESays(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w := onPool(t, pgsession.Config{})
	store := w.store
	asked := 0
	ask := func(there pgsession.Session) (err error) {
		if asked++; !sameJSON(t, string(there.Data), `{"cart":{"book":1}}`) {
			err = fmt.Errorf("asked about %s", there.Data)
		}
		return err
	}
	for how, c := range map[string]struct {
		save  func(token pgsession.Token, session pgsession.Session, item string) error
		items []string
	}{
		"the last one wins": {func(token pgsession.Token, session pgsession.Session, _ string) error {
			session.Version = 0
			_, err := store.Set(ctx, token, session)
			return err
		}, []string{"pen"}},
		"conflict": {func(token pgsession.Token, session pgsession.Session, _ string) error {
			there, err := store.Set(ctx, token, session)
			if errors.Is(err, pgsession.ErrConflict) {
				return ask(there)
			}
			return err
		}, []string{"book"}},
		"update": {func(token pgsession.Token, _ pgsession.Session, item string) error {
			_, err := store.Update(ctx, token, func(s *pgsession.Session) error {
				return addTo(&s.Data, item)
			})
			return err
		}, []string{"book", "pen"}},
		"patch": {func(token pgsession.Token, _ pgsession.Session, item string) error {
			patch, err := json.Marshal(map[string]any{"cart": map[string]int{item: 1}})
			if err != nil {
				return err
			}
			_, err = store.Patch(ctx, token, patch)
			return err
		}, []string{"book", "pen"}},
	} {
		token, read := w.create(t, pgsession.Session{Data: []byte(`{"cart":{}}`), Codec: pgsession.CodecJSON})
		for _, item := range []string{"book", "pen"} {
			session := read
			must(t, addTo(&session.Data, item))
			must(t, c.save(token, session, item))
		}
		got, err := store.Get(ctx, token)
		must(t, err)
		var content struct{ Cart map[string]int }
		must(t, json.Unmarshal(got.Data, &content))
		if items := slices.Sorted(maps.Keys(content.Cart)); !slices.Equal(items, c.items) {
			t.Errorf("%s: %q are in the cart, want %q", how, items, c.items)
		}
	}
	if asked != 1 {
		t.Errorf("%d conflicts, want 1", asked)
	}
}

func TestTheREADMEsTabsAreThoseThatAreTested(t *testing.T) {
	t.Parallel()
	lines := func(file string) []string {
		text, err := os.ReadFile(file)
		must(t, err)
		list := strings.Split(string(text), "\n")
		for i := range list {
			code, _, _ := strings.Cut(list[i], "// ")
			list[i] = strings.TrimSpace(code)
		}
		return list
	}
	readme, test := lines("README.md"), lines("tabs_test.go")
	begin := slices.IndexFunc(readme, func(line string) bool { return strings.HasPrefix(line, "One tab puts a book") })
	tested := 0
	for i, line := range readme[begin+3:] {
		if line == "```" {
			break
		}
		if line != "" {
			tested++
		}
		if !slices.Contains(test, line) {
			t.Errorf("line %d of README.md is not tested: %s", begin+4+i, line)
		}
	}
	if tested < 8 {
		t.Errorf("README.md has %d lines of two tabs", tested)
	}
}
