package pgsession

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Texts of all sizes up to some classes of the allocator's, with and without a subject and data: a collection
// of garbage finds a part that begins in memory which is not the session's.
func TestWhatIsHeldIsTheSessionAsItWas(t *testing.T) {
	t.Parallel()
	created := time.Date(2026, 11, 30, 1, 2, 3, 456_789_000, time.UTC)
	id := ID(strings.Repeat("i", 43))
	var sessions []Session
	for _, size := range []int{0, 1, 5, 21, 37, 85, 5000} {
		for _, subject := range []string{"", "ada", strings.Repeat("s", maxSubjectLength)} {
			sessions = append(sessions, Session{
				Subject: subject, Data: bytes.Repeat([]byte{0, 0xff}, size)[:size], Codec: CodecJSON,
				Columns: map[string]any{"ip": "10.0.0.1"}, IdleTimeout: time.Hour, AbsoluteTimeout: noTimeout,
				ID: id, CreatedAt: created, ExpiresAt: created.Add(time.Hour), Version: 1 << 60,
			}, Session{Subject: subject, Data: make([]byte, size), ID: id[:1]})
		}
	}
	var helds []held
	for i := range sessions {
		given := sessions[i]
		given.Data = bytes.Clone(given.Data)
		helds = append(helds, hold(&given))
		clear(given.Data) // it is a copy
	}
	var parts []Session
	for range 3 {
		runtime.GC()
		for i := range helds {
			parts = append(parts, helds[i].session())
		}
	}
	for i, got := range parts {
		want := sessions[i%len(sessions)]
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%d bytes of %q are\n%+v, want\n%+v", len(want.Data), want.Subject, got, want)
		}
		if cap(got.Data) != len(got.Data) {
			t.Error("who appends to the data would write into the text")
		}
	}
}

// inUse is how many bytes are in use.
func inUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Not parallel: it looks at the heap.
func TestTheSizeOfWhatIsHeldIsWhatItTakes(t *testing.T) {
	for _, columns := range []int{0, 1, 2, 8, 9, 30} {
		const n = 1000
		helds := make([]held, 0, n)
		before := inUse()
		for range n {
			s := Session{ID: ID(strings.Repeat("i", 43)), Subject: "ada", Data: make([]byte, 400)}
			if columns > 0 {
				s.Columns = make(map[string]any, columns)
			}
			for i := range columns {
				s.Columns[fmt.Sprint("column", i)] = strings.Repeat("v", 10)
			}
			helds = append(helds, hold(&s))
		}
		took := float64(inUse()-before) / n
		if size := float64(helds[0].size()); size < 0.8*took || size > 1.25*took {
			t.Errorf("%d columns take %.0f bytes, and %.0f are counted", columns, took, size)
		}
		runtime.KeepAlive(helds)
	}
}

// A decoder may make much of little.
func TestDataThatIsTooLargeWhenDecodedIsRefused(t *testing.T) {
	t.Parallel()
	cfg := config{codecs: map[int16]Codec{100: bomb{}}}
	if _, err := cfg.decode("id", 100, nil); !errors.Is(err, ErrCodec) || !strings.Contains(err.Error(), "1073741825 bytes") {
		t.Error(err)
	}
}

type bomb struct{ opaqueCodec }

func (bomb) Decode(ID, []byte) ([]byte, error) { return make([]byte, maxDecoded+1), nil }
