package pgsession

import (
	"time"
	"unsafe"
)

// held is a session as the cache holds it, in few bytes and so that a hit has little to do. Its text costs one
// allocation, and a View that looks at none of it does not read it. It is never changed.
type held struct {
	text                          *byte // the data, the subject, the id
	dataSize, subjectSize, idSize uint32
	codec                         int16
	columns                       map[string]any
	createdAt, expiresAt          time.Time
	version                       int64
	idle, absolute                time.Duration
}

// hold makes a copy of a session. The Columns are not copied.
func hold(s *Session) held {
	b := make([]byte, 0, len(s.Data)+len(s.Subject)+len(s.ID))
	b = append(b, s.Data...)
	b = append(b, s.Subject...)
	b = append(b, s.ID...)
	return held{
		text:        unsafe.SliceData(b), // b is not written again
		dataSize:    uint32(len(s.Data)), // at most maxDecoded
		subjectSize: uint32(len(s.Subject)),
		idSize:      uint32(len(s.ID)),
		codec:       s.Codec,
		columns:     s.Columns,
		createdAt:   s.CreatedAt,
		expiresAt:   s.ExpiresAt,
		version:     s.Version,
		idle:        s.IdleTimeout,
		absolute:    s.AbsoluteTimeout,
	}
}

// session makes a Session of it without a copy: Data and Columns are the cache's.
func (h *held) session() Session {
	// The id is last since it is never empty: no part begins where the text ends, which is another's memory.
	subject := (*byte)(unsafe.Add(unsafe.Pointer(h.text), h.dataSize))
	id := (*byte)(unsafe.Add(unsafe.Pointer(subject), h.subjectSize))
	return Session{
		Subject:         unsafe.String(subject, h.subjectSize),
		Data:            unsafe.Slice(h.text, h.dataSize),
		Codec:           h.codec,
		Columns:         h.columns,
		IdleTimeout:     h.idle,
		AbsoluteTimeout: h.absolute,
		ID:              ID(unsafe.String(id, h.idSize)),
		CreatedAt:       h.createdAt,
		ExpiresAt:       h.expiresAt,
		Version:         h.version,
	}
}

// size is what it holds beyond itself, in bytes.
func (h *held) size() int {
	const aMap, group, entry = 48, 288, 48 // about: itself, each eight slots, and what an entry points to
	size := int(h.dataSize) + int(h.subjectSize) + int(h.idSize)
	if n := len(h.columns); n > 0 {
		groups := 1
		for n > groups*8 || groups > 1 && n > groups*7 { // an eighth stays empty
			groups *= 2
		}
		size += aMap + groups*group
	}
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
	if h.absolute >= 0 && !h.expiresAt.Before(h.createdAt.Add(h.absolute)) {
		return true // at the absolute deadline
	}
	return h.idle-remaining < interval
}
