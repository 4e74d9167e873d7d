package pgsession

import (
	"time"
	"unsafe"
)

// held is a session as the cache holds it. Its id, subject and data are parts of one text, which costs one
// allocation, and a View that does not look at them reads nothing of it. It is never changed.
type held struct {
	id, subject, data string
	columns           map[string]any
	codec             int16
	createdAt         int64 // microseconds since 1970, for a third of a time.Time
	expiresAt         int64
	version           int64
	idle, absolute    time.Duration
}

// hold makes a copy of a session. The Columns are not copied.
func hold(s *Session) held {
	b := make([]byte, 0, len(s.ID)+len(s.Subject)+len(s.Data))
	b = append(b, s.ID...)
	b = append(b, s.Subject...)
	b = append(b, s.Data...)
	text := unsafe.String(unsafe.SliceData(b), len(b)) // b is not written again
	subjectAt, dataAt := len(s.ID), len(s.ID)+len(s.Subject)
	return held{
		id:        text[:subjectAt],
		subject:   text[subjectAt:dataAt],
		data:      text[dataAt:],
		columns:   s.Columns,
		codec:     s.Codec,
		createdAt: s.CreatedAt.UnixMicro(),
		expiresAt: s.ExpiresAt.UnixMicro(),
		version:   s.Version,
		idle:      s.IdleTimeout,
		absolute:  s.AbsoluteTimeout,
	}
}

// session makes a Session of it without a copy: Data and Columns are the cache's.
func (h *held) session() Session {
	return Session{
		Subject:         h.subject,
		Data:            unsafe.Slice(unsafe.StringData(h.data), len(h.data)),
		Codec:           h.codec,
		Columns:         h.columns,
		IdleTimeout:     h.idle,
		AbsoluteTimeout: h.absolute,
		ID:              ID(h.id),
		CreatedAt:       time.UnixMicro(h.createdAt).UTC(),
		ExpiresAt:       time.UnixMicro(h.expiresAt).UTC(),
		Version:         h.version,
	}
}

// size is what it holds beyond itself, in bytes.
func (h *held) size() int {
	const entry = 64 // of a map, about
	size := len(h.id) + len(h.subject) + len(h.data)
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
