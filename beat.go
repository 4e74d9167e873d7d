package pgsession

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// beats asks for nonces, when l.pace says so.
func (l *link) beats(ctx context.Context) {
	live, begun := l.notifier.coherence.Live, time.Now()
	timer := time.NewTimer(l.pace.Called(live()))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.kick:
			if wait, ok := l.pace.Hurry(time.Since(begun)); ok {
				timer.Reset(wait)
			}
		case <-l.proved:
			if wait, ok := l.pace.Heard(live()); ok {
				timer.Reset(wait)
			}
		case <-timer.C:
			l.notifier.checkLive(l.beat(ctx, l.pace.Interval()))
			timer.Reset(l.pace.Called(live()))
		}
	}
}

// beat calls the beat function, which publishes if the last publication is interval ago.
func (l *link) beat(ctx context.Context, interval time.Duration) error {
	l.mu.Lock()
	listening := l.server
	l.mu.Unlock()
	if listening == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, l.notifier.attemptTimeout())
	defer cancel()
	answered := l.hearer.beat()
	var nonce string
	var server pgtype.Timestamptz
	args := []any{interval.Seconds(), true}
	if err := l.control.queryRow(ctx, l.notifier.sql.beat.sql, args, &nonce, &server); err != nil {
		return fmt.Errorf("control connection: %w", err)
	}
	if identity := serverIdentity(server.Time); identity != listening {
		// One of the two is with a server that was replaced.
		l.control.disconnect()
		l.mu.Lock()
		if l.drop != nil && l.server == listening {
			l.drop(errOtherServer)
		}
		l.mu.Unlock()
		return errOtherServer
	}
	answered(nonce)
	return nil
}
