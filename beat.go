package pgsession

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// beats asks for a nonce when half of the liveness deadline is left, and at once when listening begins.
// Each call costs the server's processor a connection's awakening, which is most of what an idle
// instance costs, so what a heard beat proves puts the next call off.
func (l *link) beats(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.kick:
			l.notifier.checkLive(l.beat(ctx))
		case <-timer.C:
			l.notifier.checkLive(l.beat(ctx))
		case <-l.proved:
		}
		timer.Reset(l.untilBeat())
	}
}

// untilBeat is for how long there need be no call. A nonce is heard by the next call of anyone at the
// latest, which publishes it: so where a call was answered and nothing is heard yet, another one comes
// when a fifth of the deadline is left, and what was published last is old enough by then. Where
// this instance is not live, the next call comes as soon as it may publish, however long the deadline is.
func (l *link) untilBeat() time.Duration {
	deadline := l.notifier.cfg.Cache.Liveness
	left, live := l.notifier.coherence.Live()
	switch {
	case !live:
		return l.interval() * 11 / 10
	case left > deadline/2:
		return left - deadline/2
	}
	return max(left-deadline/5, deadline/12)
}

// interval is the time between two publications: less than that between two calls, so that one instance
// alone publishes with each.
func (l *link) interval() time.Duration {
	return min(l.notifier.cfg.Cache.Liveness*3/10, 900*time.Millisecond)
}

func (l *link) beat(ctx context.Context) error {
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
	args := []any{l.interval().Seconds(), true}
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
