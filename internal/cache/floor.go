package cache

import (
	"sync/atomic"
	"time"
)

// floors is subjectFloor: for each subject the number of operations that had begun when its sessions
// were last revoked. What those brought is not served.
//
// Subjects share slots, so that a flood of them takes no memory and nothing need be forgotten: a
// revoke costs the neighbours in its slot a reload. Slot 0 is nobody's and stays at 0.
type floors struct {
	slots   [1 << 12]atomic.Uint64
	highest uint64 // of all, under Cache.mu
}

func slotOf(subject Subject) uint16 {
	if subject == 0 {
		return 0
	}
	const golden = 0x9e3779b97f4a7c15
	return uint16(1 + (uint64(subject)*golden>>32)%(1<<12-1))
}

func (f *floors) at(slot uint16) uint64 { return f.slots[slot].Load() }

// raise lifts a subject's floor to seq. The caller holds Cache.mu.
func (f *floors) raise(subject Subject, seq uint64) {
	if subject != 0 {
		f.slots[slotOf(subject)].Store(seq)
		f.highest = seq
	}
}

// maxEnded is how many ended sessions are remembered, about 8 MB. Beyond it some are forgotten: what
// is then not caught is a lagging replica's answer, which is never cached.
const maxEnded = 1 << 16

// ended remembers for MaxAge which versions of which sessions this process has ended, so that a
// lagging replica does not bring one back. It is used under Cache.mu.
type ended struct {
	maxAge   time.Duration
	sessions map[Key]endedSession
	swept    int64
}

type endedSession struct {
	version int64
	until   int64
}

func (m *ended) init(maxAge time.Duration) {
	m.maxAge = maxAge
	m.sessions = make(map[Key]endedSession)
}

func (m *ended) add(s Version, now int64) {
	if now >= after(m.swept, m.maxAge/4) {
		m.swept = now
		for key, one := range m.sessions {
			if now >= one.until {
				delete(m.sessions, key)
			}
		}
	}
	old, known := m.sessions[s.Key]
	if !known && len(m.sessions) >= maxEnded {
		for key := range m.sessions { // any
			delete(m.sessions, key)
			break
		}
	}
	m.sessions[s.Key] = endedSession{max(old.version, s.Version), after(now, m.maxAge)}
}

func (m *ended) has(key Key, version, now int64) bool {
	one, ok := m.sessions[key]
	return ok && version <= one.version && now < one.until
}
