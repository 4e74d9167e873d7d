package pgsession

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"math"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// Audit is the part of [Config] about recording what happens to sessions: that they were created, renewed,
// destroyed, revoked, expired, and that a token was used after it was renewed. Reads, touches and changes
// of data are no events. Neither tokens nor data are ever recorded.
type Audit struct {
	// Log has what this instance does logged to Config.Logger at Info, rather than at Debug: each event that
	// [AuditEvent] can hold, but for sessions that were pruned, which are counted. README, "Audit", names the
	// attributes. A token that is used after it was renewed is logged at Warn in any case.
	//
	// Defaults to false.
	Log bool

	// Table has events recorded in a table, <table>_events, each in the transaction of what it tells of:
	// committed with it, or rolled back with it. It is the table's setting, which Setup makes: from then
	// on it holds for all instances, for other languages and for pg_cron's job. An instance without it
	// does not end it; the README says what does.
	//
	// Defaults to false.
	Table bool

	// Retention is how long an event stays in the table. Whoever prunes sessions prunes these too. -1: for
	// ever. Instances whose role may not change it leave it as it is; give all the same.
	//
	// Defaults to 90 days.
	Retention time.Duration
}

// AuditKind says what an [AuditEvent] tells of.
type AuditKind string

const (
	// AuditCreated: a session began.
	AuditCreated AuditKind = "created"
	// AuditRenewed: a session got a new token, by [Sessions.Renew]; Subject is whose it is from then on.
	AuditRenewed AuditKind = "renewed"
	// AuditDestroyed: a session was ended by [Sessions.Destroy], by whoever had its token.
	AuditDestroyed AuditKind = "destroyed"
	// AuditRevoked: a session was ended by [Sessions.Revoke].
	AuditRevoked AuditKind = "revoked"
	// AuditEvicted: a session was ended by a login beyond Config.MaxPerSubject.
	AuditEvicted AuditKind = "evicted"
	// AuditCleared: sessions were ended by a Revocation of Everyone, or by [Store.Clear]: an event for each
	// batch, with their number.
	AuditCleared AuditKind = "cleared"
	// AuditExpired: a session that had expired was pruned, or replaced, or destroyed.
	AuditExpired AuditKind = "expired"
	// AuditReused: a token was used after the grace of its renewal. It is recorded once a minute at most,
	// and not where it was met on a standby.
	AuditReused AuditKind = "reused"
)

// AuditEvent is what happened to a session, or to several.
type AuditEvent struct {
	At   time.Time // when it was recorded, by the server's clock, in UTC
	Kind AuditKind
	// ID is the session's; where it was renewed, the one that it had, and Successor the new one. Empty for
	// AuditCleared.
	ID, Successor ID
	// Subject is whose session it was; empty for an anonymous one.
	Subject string
	// Actor and Reason are those of the [Revocation].
	Actor, Reason string
	// Sessions is how many were ended, for AuditCleared.
	Sessions int64
	// ExpiredAt is the deadline that the session met, for AuditExpired.
	ExpiredAt time.Time
}

// AuditFilter narrows [Store.AuditEvents]. The zero value is all that is recorded.
type AuditFilter struct {
	// Subject and ID: only events of this subject, or session. AuditCleared has neither.
	Subject string
	ID      ID
	// Kind: only events of this kind.
	Kind AuditKind
	// Since and Until: only events from Since on, and before Until.
	Since, Until time.Time
}

// AuditEvents iterates over what Audit.Table has recorded, the oldest first, as Config.AdminRole may. It
// reads in pages, as [Sessions.All] does. An error is the last that is yielded. What is committed while it
// reads may have an earlier time than what was yielded, and is not.
func (s *Store) AuditEvents(ctx context.Context, filter AuditFilter) iter.Seq2[AuditEvent, error] {
	return func(yield func(AuditEvent, error) bool) {
		args := []any{
			textArg(filter.Subject), textArg(string(filter.ID)), textArg(string(filter.Kind)),
			timeArg(filter.Since), timeArg(filter.Until), nil, nil, int64(pageRows),
		}
		if err := filter.validate(); err != nil {
			yield(AuditEvent{}, &Error{Op: "audit events", Err: err})
			return
		}
		for {
			page, last, err := s.auditPage(ctx, args)
			if err != nil {
				yield(AuditEvent{}, &Error{Op: "audit events", Err: err})
				return
			}
			for _, event := range page {
				if !yield(event, nil) {
					return
				}
			}
			if len(page) < pageRows {
				return
			}
			args[5], args[6] = page[len(page)-1].At, last
		}
	}
}

func (f AuditFilter) validate() error {
	for _, text := range []struct{ what, value string }{
		{"subject", f.Subject}, {"id", string(f.ID)}, {"kind", string(f.Kind)},
	} {
		if text.value == "" {
			continue
		}
		if err := validateText(text.what, text.value, maxSubjectLength); err != nil {
			return err
		}
	}
	return nil
}

// auditPage reads one page, and the number of its last event.
func (s *sessions) auditPage(ctx context.Context, args []any) (page []AuditEvent, seq int64, err error) {
	var at, expired pgtype.Timestamptz
	var kind string
	var id, successor, subject, actor, reason pgtype.Text
	var count pgtype.Int8
	err = s.each(ctx, s.store.sql.events, args,
		[]any{&at, &seq, &kind, &id, &successor, &subject, &actor, &reason, &count, &expired},
		func() { page = page[:0] }, func() {
			event := AuditEvent{
				At: at.Time.UTC(), Kind: AuditKind(kind), ID: ID(id.String), Successor: ID(successor.String),
				Subject: subject.String, Actor: actor.String, Reason: reason.String, Sessions: count.Int64,
			}
			if expired.Valid {
				event.ExpiredAt = expired.Time.UTC()
			}
			page = append(page, event)
		})
	return page, seq, err
}

// audit logs what was done, after it was. In a transaction of the caller's it may be rolled back yet.
func (s *sessions) audit(ctx context.Context, e AuditEvent) {
	cfg := s.store.cfg
	level := slog.LevelDebug
	if cfg.Audit.Log {
		level = slog.LevelInfo
	}
	if !cfg.Logger.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 9)
	attrs = append(attrs, slog.String("event", string(e.Kind)))
	for _, a := range []struct{ name, value string }{
		{"id", string(e.ID)},
		{"successor", string(e.Successor)},
		{"subject", e.Subject},
		{"actor", e.Actor},
		{"reason", e.Reason},
	} {
		if a.value != "" {
			attrs = append(attrs, slog.String(a.name, a.value))
		}
	}
	if e.Sessions != 0 {
		attrs = append(attrs, slog.Int64("sessions", e.Sessions))
	}
	if s.inTx {
		attrs = append(attrs, slog.Bool("in_transaction", true))
	}
	attrs = append(attrs, slog.String("schema", cfg.Schema), slog.String("table", cfg.Table))
	cfg.Logger.LogAttrs(ctx, level, "pgsession: session event", attrs...)
}

func (s *sessions) auditExpired(ctx context.Context, n int64) {
	if n > 0 {
		s.audit(ctx, AuditEvent{Kind: AuditExpired, Sessions: n})
	}
}

// recordReused has the server record that an old id was used, if the table says so: that is no matter of
// this instance's Config. What it could not record was logged.
func (s *sessions) recordReused(ctx context.Context, id ID) {
	var recorded bool
	if err := s.one(ctx, s.store.sql.reused, []any{string(id)}, &recorded); err != nil {
		s.store.notify.log(ctx, slog.LevelWarn, "pgsession: an event could not be recorded",
			slog.String("event", string(AuditReused)), slog.String("id", string(id)), slog.Any("error", err))
	}
}

// pruneEvents deletes what was recorded too long ago.
func (s *sessions) pruneEvents(ctx context.Context) error {
	var from any
	for {
		next, err := s.pruneEventsBatch(ctx, from)
		if err != nil || !next.Valid {
			return err
		}
		from = next.Time
	}
}

// pruneEventsBatch returns where the next batch begins; null: there is none.
func (s *sessions) pruneEventsBatch(ctx context.Context, from any) (next pgtype.Timestamptz, err error) {
	var deleted int64
	err = s.one(ctx, s.store.sql.pruneEvents, []any{int64(s.store.cfg.Cleanup.BatchSize), from}, &deleted, &next)
	return next, err
}

// inspectAudit reads whether events are recorded, where Config asks that they are.
func (s *Store) inspectAudit(ctx context.Context, state *schemaState) error {
	cfg := s.store.cfg
	name := cfg.Table + "_audit_status"
	if !cfg.Audit.Table || !state.audit || !state.functions[name]["current"] || state.strangers[state.owners[name]] {
		return nil
	}
	var retention pgtype.Float8
	if err := s.one(ctx, s.store.sql.auditStatus, nil, &state.audited, &retention); err != nil {
		return err
	}
	if retention.Valid {
		d := time.Duration(-1)
		if retention.Float64 >= 0 {
			d = time.Duration(math.Round(retention.Float64*1e6)) * time.Microsecond
		}
		state.retention = &d
	}
	return nil
}

// auditProblem is what Setup has to mend, or "". Another retention is none to a role that can't change it.
func (state *schemaState) auditProblem(cfg *config) string {
	want := cfg.Audit.Retention
	if want != -1 {
		want = want.Truncate(time.Microsecond) // the server's precision
	}
	switch {
	case !cfg.Audit.Table:
		return ""
	case !state.audited:
		return "no events are recorded, as Config.Audit.Table asks"
	case state.retention != nil && *state.retention != want && state.mayExecute(cfg, "audit"):
		return fmt.Sprintf("events are kept for %s instead of %s", forHowLong(*state.retention), forHowLong(want))
	}
	return ""
}

func forHowLong(retention time.Duration) string {
	if retention < 0 {
		return "ever"
	}
	return retention.String()
}

// auditStatement has events recorded; "" where Config does not ask.
func (c *config) auditStatement() string {
	if !c.Audit.Table {
		return ""
	}
	return "select " + quoteIdentifier(c.Schema) + "." + quoteIdentifier(c.Table+"_audit") +
		"(true, '" + strconv.FormatFloat(secondsArg(c.Audit.Retention), 'f', -1, 64) + "')"
}

// maxActorLength bounds Revocation.Actor and Reason, in bytes.
const maxActorLength = 1024

func validateActor(actor, reason string) error {
	for _, text := range []struct{ field, value string }{
		{"Revocation.Actor", actor}, {"Revocation.Reason", reason},
	} {
		if text.value == "" {
			continue
		}
		if err := validateText(text.field, text.value, maxActorLength); err != nil {
			return err
		}
	}
	return nil
}

// textArg is a text as an argument: null where it is empty.
func textArg(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func timeArg(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}
