package pgsession

import (
	"time"
	"unsafe"
)

// held is a session as the cache holds it, packed: what is in the text costs neither an allocation of
// its own nor a pointer for the garbage collector to follow. It is never changed. A View that does not look
// at Data reads nothing of the text.
type held struct {
	text          string // the id; the subject; the data
	idLength      uint16
	subjectLength uint16
	codec         int16
	columns       map[string]any
	createdAt     int64 // microseconds since 1970
	expiresAt     int64
	version       int64
	idle          time.Duration
	absolute      time.Duration
}

// hold packs a copy of a session.
func hold(s *Session) held {
	b := make([]byte, 0, len(s.ID)+len(s.Subject)+len(s.Data))
	b = append(b, s.ID...)
	b = append(b, s.Subject...)
	b = append(b, s.Data...)
	return held{
		text:          unsafe.String(unsafe.SliceData(b), len(b)), // b is not written again
		idLength:      uint16(len(s.ID)),
		subjectLength: uint16(len(s.Subject)),
		codec:         s.Codec,
		columns:       s.Columns,
		createdAt:     s.CreatedAt.UnixMicro(),
		expiresAt:     s.ExpiresAt.UnixMicro(),
		version:       s.Version,
		idle:          s.IdleTimeout,
		absolute:      s.AbsoluteTimeout,
	}
}

// session unpacks it without a copy: Data and Columns are the cache's.
func (h *held) session() (s Session) {
	subjectAt := int(h.idLength)
	dataAt := subjectAt + int(h.subjectLength)
	data := h.text[dataAt:]
	s.Subject = h.text[subjectAt:dataAt]
	s.Data = unsafe.Slice(unsafe.StringData(data), len(data))
	s.Codec = h.codec
	s.Columns = h.columns
	s.IdleTimeout = h.idle
	s.AbsoluteTimeout = h.absolute
	s.ID = ID(h.text[:subjectAt])
	s.CreatedAt = time.UnixMicro(h.createdAt).UTC()
	s.ExpiresAt = time.UnixMicro(h.expiresAt).UTC()
	s.Version = h.version
	return s
}

// size is what it holds beyond itself, in bytes.
func (h *held) size() int {
	const entry = 64 // of a map, about
	size := len(h.text)
	for name, value := range h.columns {
		text, _ := value.(string)
		size += len(name) + len(text) + entry
	}
	return size
}

// touchUnneeded says whether a touch would write nothing, as far as the touch function would see
// it; remaining is how long the session still lives if it is not used.
func (h *held) touchUnneeded(interval, remaining time.Duration) bool {
	if h.idle < 0 || interval < 0 {
		return true
	}
	if interval == 0 {
		interval = h.idle / 20
	}
	if h.absolute >= 0 && h.expiresAt >= h.createdAt+h.absolute.Microseconds() {
		return true // at the absolute deadline
	}
	return h.idle-remaining < interval
}
