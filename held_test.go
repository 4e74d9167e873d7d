package pgsession

import (
	"bytes"
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
	if got, want := helds[0].size(), len(id)+len("ip10.0.0.1")+64; got != want {
		t.Errorf("the size is %d, want %d", got, want)
	}
}
