package fiberstorage

import (
	"bytes"
	"encoding/gob"
	"sync"
)

// empties are what the two versions of fiber make of a session without values. They depend on the numbers that
// gob has given to types, which are a process's own; what another process has written is not compared.
var empties = sync.OnceValue(func() (all [][]byte) {
	for _, values := range []any{&map[string]any{}, &map[any]any{}} {
		var b bytes.Buffer
		if err := gob.NewEncoder(&b).Encode(values); err == nil {
			all = append(all, b.Bytes())
		}
	}
	return all
})

// holdsNothing says whether a value is a session of fiber's in which there is nothing.
func holdsNothing(val []byte) bool {
	for _, empty := range empties() {
		if bytes.Equal(val, empty) {
			return true
		}
	}
	return false
}
