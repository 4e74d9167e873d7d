package pgsession

// Overflow says what a login does where its subject has Config.MaxPerSubject live sessions.
type Overflow int

const (
	// OverflowReject: it fails with [ErrTooManySessions].
	OverflowReject Overflow = iota
	// OverflowEvictOldest ends the session that was created first.
	OverflowEvictOldest
	// OverflowEvictIdlest ends the session that was not used for the longest time, by the precision of
	// Config.TouchInterval. When a session was used is told by its idle deadline: within the idle timeout
	// of its absolute deadline, which uses do not move, a session in use looks idle, and without an idle
	// timeout only changes count.
	OverflowEvictIdlest
)

func (o Overflow) constant() string {
	return [...]string{"'reject'", "'evict_oldest'", "'evict_idlest'"}[o] + "::pg_catalog.text"
}
