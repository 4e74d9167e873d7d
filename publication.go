package pgsession

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// This file is the way that publications take: by the control connections, so that a pool that is
// saturated holds none up, and by the QueryFunc, where that is the only one that works or that
// reaches who listens.

const (
	// sendTimeout bounds one call of the notify function: a connection that hangs holds up writers once.
	sendTimeout = 2 * time.Second
	// maxDirect is how many calls by the QueryFunc look for the server that took a write.
	maxDirect = 8
)

var errAstray = errors.New("the QueryFunc is on another server than Config.Listen reaches")

// publish publishes that a session has a new version, in grouped mode, and returns when that is
// done. In other modes it does nothing. An error is ErrUnpublished: it goes on behind.
//
// Where it is not known that the version is committed, the QueryFunc may be in a transaction that
// nobody told the store of. Its notification has to wait for the commit, and so goes the same way.
func (s *sessions) publish(ctx context.Context, id ID, version int64, server string, done bool) error {
	n := s.store.notify
	if n == nil || n.cfg.Notify != NotifyGrouped {
		return nil
	}
	if done {
		return n.publisher.publish(ctx, id, version, server)
	}
	var busy string
	var took pgtype.Timestamptz
	if err := s.one(ctx, n.sql.notify, []any{versions{id: version}.json(), false}, &busy, &took); err != nil {
		n.inDoubt(id)
		return fmt.Errorf("%w: %w", ErrUnpublished, err)
	}
	if server != "" && serverIdentity(took.Time) != server { // no transaction is on two servers
		return n.publisher.publish(ctx, id, version, server)
	}
	return nil
}

// inDoubt publishes, whatever becomes of the request, that sessions may have changed, after the
// statement that may have changed them has ended. It does not wait. In other modes than the grouped
// one that statement notifies by itself.
func (n *notifier) inDoubt(ids ...ID) {
	if n != nil && n.cfg.Notify == NotifyGrouped {
		n.publisher.inDoubt(ids...)
	}
}

// send publishes where those hear it who hear the server that took the writes. That is asked of the
// call itself: any connection may have come to lead elsewhere since it was last used.
func (n *notifier) send(ctx context.Context, entries versions, server string) error {
	var failures []error
	by := func(l *link) (arrived bool) {
		_, took, err := l.publish(ctx, entries)
		if err != nil {
			failures = append(failures, fmt.Errorf("control connection: %w", err))
			return false
		}
		return n.reachesListeners(server, serverIdentity(took))
	}
	for _, l := range n.links {
		if !l.control.broken.Load() && by(l) {
			return nil
		}
	}
	elsewhere := false
	for range maxDirect {
		_, took, err := n.publishDirect(ctx, entries)
		if err != nil {
			failures = append(failures, err)
			break
		}
		// A server that was started after all of these writes is the one that took them, started anew, or has
		// replaced it: its listeners have lost their connections.
		if n.reachesListeners(server, serverIdentity(took)) || took.UnixMicro() > entries.newest() {
			return nil
		}
		elsewhere = true
	}
	for _, l := range n.links {
		if l.control.broken.Load() && by(l) {
			return nil
		}
	}
	if elsewhere {
		return errElsewhere
	}
	return errors.Join(failures...)
}

// reachesListeners says whether those who listen to the server that took a write hear what another one
// publishes: where a store has several databases, everybody listens to all of them, and so to both.
func (n *notifier) reachesListeners(wrote, published string) bool {
	if wrote == "" || wrote == published {
		return true
	}
	if len(n.links) < 2 {
		return false
	}
	took, _ := n.listensTo(wrote)
	told, _ := n.listensTo(published)
	return took && told
}

// ask publishes on all control connections, since any of their databases may have the locks of ids in
// doubt, and by the QueryFunc in place of one that does not work, or where it may have written elsewhere.
func (n *notifier) ask(ctx context.Context, entries versions) (busy []ID, err error) {
	var missing []*link
	for _, l := range n.links {
		if l.control.broken.Load() {
			missing = append(missing, l)
		} else if held, _, err := l.publish(ctx, entries); err != nil {
			missing = append(missing, l)
		} else {
			busy = append(busy, held...)
		}
	}
	astray := n.astray()
	if len(n.links) > 0 && len(missing) == 0 && !astray {
		return busy, nil
	}
	held, _, err := n.publishDirect(ctx, entries)
	if err == nil {
		return append(busy, held...), nil
	}
	if len(n.links) == 0 || astray {
		return nil, err
	}
	for _, l := range missing {
		held, _, linkErr := l.publish(ctx, entries)
		if linkErr != nil {
			return nil, errors.Join(fmt.Errorf("control connection: %w", linkErr), err)
		}
		busy = append(busy, held...)
	}
	return busy, nil
}

// publish calls the notify function by the control connection. After a failure the QueryFunc is asked
// first, until a call has succeeded here again, a beat's or this one's.
func (l *link) publish(ctx context.Context, entries versions) (busy []ID, took time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	var text string
	var started pgtype.Timestamptz
	err = l.control.queryRow(ctx, l.notifier.sql.notify.sql, []any{entries.arg(), true}, &text, &started)
	return parseIDs(text), started.Time, err
}

// publishDirect calls the notify function by the QueryFunc, without relaxed durability: it may be a
// transaction.
func (n *notifier) publishDirect(ctx context.Context, entries versions) (busy []ID, took time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	var text string
	var started pgtype.Timestamptz
	err = n.direct.one(ctx, n.sql.notify, []any{entries.arg(), false}, &text, &started)
	return parseIDs(text), started.Time, err
}

// sighting is a server that answered the QueryFunc, and that no listener hears.
type sighting struct {
	server string
	at     time.Time
}

// saw takes which server answered; "" is a standby, or not known. One that no listener hears makes what is
// cached worthless: what others write there is not heard either. The pool may have gone ahead, at a
// failover or where a name leads to a new address, or the listener.
func (n *notifier) saw(server string) {
	if n == nil || server == "" {
		return
	}
	if yes, maybe := n.listensTo(server); yes || maybe {
		return
	}
	if n.stray.Swap(&sighting{server, time.Now()}) != nil {
		return
	}
	n.gap()
	n.subscribers.emit(Event{Kind: EventMissed})
	n.checkLive(errAstray)
}

// gap drops what is cached, and what was proved.
func (n *notifier) gap() {
	for _, l := range n.links {
		l.hearer.HeardClear()
	}
}

// astray says whether the QueryFunc was lately seen on a server that no listener hears. So
// long as it is, writes notify in their own transactions, which no other server can have, and no beat
// proves anything.
func (n *notifier) astray() bool {
	if n == nil {
		return false
	}
	seen := n.stray.Load()
	if seen == nil {
		return false
	}
	if yes, _ := n.listensTo(seen.server); !yes && time.Since(seen.at) < n.cfg.Cache.MaxAge {
		return true
	}
	if n.stray.CompareAndSwap(seen, nil) {
		n.gap() // what was kept meanwhile may have been changed there
	}
	return false
}

// listensTo says whether a listener hears a server, and whether one may soon: it is not connected.
func (n *notifier) listensTo(server string) (yes, maybe bool) {
	for _, l := range n.links {
		l.mu.Lock()
		heard := l.server
		l.mu.Unlock()
		yes, maybe = yes || heard == server, maybe || heard == ""
	}
	return yes, maybe || len(n.links) == 0
}

// doubtHorizon is for how long a statement that nobody waits for may be on its way and then wait for locks.
// The kernel gives up what is on its way after tcpUserTimeout on the connections that Open makes; on others,
// and behind a proxy, it may arrive later, and then readers have what was before until MaxAge.
func (c *config) doubtHorizon() time.Duration {
	if c.LockTimeout < 0 {
		return c.Cache.MaxAge
	}
	return c.LockTimeout + tcpUserTimeout
}
