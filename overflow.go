package pgsession

// Overflow says what a login does where its subject has Config.MaxPerSubject live sessions.
type Overflow int

const (
	// OverflowReject: it fails with [ErrTooManySessions].
	OverflowReject Overflow = iota
	// OverflowEvictOldest ends the session that was created first.
	OverflowEvictOldest
	// OverflowEvictIdlest ends the session that was not used for the longest time, by the precision of
	// Config.TouchInterval.
	OverflowEvictIdlest
)

func (o Overflow) constant() string {
	return [...]string{"'reject'", "'evict_oldest'", "'evict_idlest'"}[o] + "::pg_catalog.text"
}
