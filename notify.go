package pgsession

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/pgsession/pgsession/internal/cache"
)

// notifier publishes what this store changes and hears what others do. A nil one does neither.
type notifier struct{}

// publish publishes that a session has a new version, in grouped mode, and returns when that is
// done. In other modes it does nothing. An error is ErrUnpublished: it goes on behind.
func (n *notifier) publish(ctx context.Context, id ID, version int64) error {
	return nil
}

// inDoubt publishes, whatever becomes of the request, that sessions may have changed, after the
// statement that may have changed them has ended. It does not wait.
func (n *notifier) inDoubt(ids ...ID) {}

// subjectHash is whom a session belongs to, to the cache: 0 is nobody.
func subjectHash(subject string) cache.Subject {
	if subject == "" {
		return 0
	}
	sum := sha256.Sum256([]byte(subject))
	return cache.Subject(binary.BigEndian.Uint64(sum[:]))
}

// serverIdentity is a server's start time as the cache compares it; "" for the zero time.
func serverIdentity(started time.Time) string {
	if started.IsZero() {
		return ""
	}
	return started.UTC().Format(time.RFC3339Nano)
}
