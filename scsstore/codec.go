package scsstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/alexedwards/scs/v2"

	"github.com/pgsession/pgsession/internal/values"
)

// Codec is an [scs.Codec] that gives the same bytes for the same values, in whatever order the map was
// filled. With [scs.GobCodec], which does not, requests that changed nothing look like ones that did.
//
// Builtin types, [time.Time], []any, map[string]any and other slices and maps of builtin types need no
// registration. Declared types need gob.Register, as with scs's own codec; their bytes may differ, and
// the store decodes them to find out whether the session was changed.
//
// Decode reads the data of scs.GobCodec as well, so that a change to Codec logs nobody out.
type Codec struct{}

var _ scs.Codec = Codec{}

// Encode implements [scs.Codec].
func (Codec) Encode(deadline time.Time, vals map[string]any) ([]byte, error) {
	b, err := values.Marshal(appendTime(nil, deadline), vals)
	if err != nil {
		return nil, fmt.Errorf("scsstore: %w", err)
	}
	return b, nil
}

// Decode implements [scs.Codec].
func (Codec) Decode(b []byte) (deadline time.Time, vals map[string]any, err error) {
	if !values.Is(b) {
		if deadline, vals, err = (scs.GobCodec{}).Decode(b); err != nil {
			return time.Time{}, nil, fmt.Errorf("scsstore: %w", err)
		}
	} else {
		prefix, v, err := values.Unmarshal(b)
		if err != nil {
			return time.Time{}, nil, fmt.Errorf("scsstore: %w", err)
		}
		var ok bool
		if deadline, ok = readTime(prefix); ok {
			vals, ok = v.(map[string]any)
		}
		if !ok {
			return time.Time{}, nil, errors.New("scsstore: the data is not a session of scs")
		}
	}
	if vals == nil {
		vals = make(map[string]any) // scs writes into it
	}
	return deadline, vals, nil
}

// appendTime writes a time such that [readTime] finds it without decoding anything else.
func appendTime(b []byte, t time.Time) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(t.Unix()))
	return binary.BigEndian.AppendUint32(b, uint32(t.Nanosecond()))
}

func readTime(b []byte) (time.Time, bool) {
	if len(b) != 12 {
		return time.Time{}, false
	}
	seconds, nanoseconds := binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:])
	return time.Unix(int64(seconds), int64(nanoseconds)).UTC(), true
}

// unshared returns bytes that nobody else writes. What a codec that we do not know makes of its input
// may share memory with it.
func unshared(b []byte) []byte {
	if values.Is(b) {
		return b
	}
	return bytes.Clone(b)
}

// deadline returns scs's deadline in some data.
func (s *Store) deadline(b []byte) (time.Time, error) {
	if deadline, ok := readTime(values.Prefix(b)); ok {
		return deadline, nil
	}
	deadline, _, err := s.options.Codec.Decode(b)
	if err != nil {
		return time.Time{}, fmt.Errorf("set Options.Codec to SessionManager.Codec: %w", err)
	}
	return deadline, nil
}

// content is what a session's data says.
type content struct {
	deadline time.Time
	values   map[string]any
}

// same says whether two sessions' data say the same.
func (s *Store) same(a, b []byte) bool {
	return values.Equal(a, b, func(b []byte) (content, error) {
		deadline, vals, err := s.options.Codec.Decode(b)
		return content{deadline, vals}, err
	})
}
