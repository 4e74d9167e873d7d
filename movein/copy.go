package movein

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/adapter"
)

// Progress is how far a copy has come, in sessions.
type Progress struct {
	Total   int64 // live in the old table when it began
	Copied  int64 // imported now
	Present int64 // imported before, or had by the store already
	Ended   int64 // ended in the store before they could be imported
	Skipped int64 // left out by Options.Convert, or by Options.TrimPrefix
	Left    int64 // were being changed all the time: copy again
}

// Copy imports the live sessions of the old table, in batches that are committed one by one. It
// returns how far it came; an error ends it, and what was imported stays. Calling it again continues,
// and changes nothing where nothing is left.
func (i *Importer) Copy(ctx context.Context) (Progress, error) {
	var p Progress
	err := i.copy(ctx, &p)
	if err != nil {
		err = fmt.Errorf("movein: copy: %w", err)
	}
	return p, err
}

func (i *Importer) copy(ctx context.Context, p *Progress) error {
	err := i.each(ctx, i.sql.count, nil, []any{&p.Total}, func() {}, func() error { return nil })
	if err != nil {
		return err
	}
	after := i.source.first
	for {
		page, err := i.page(ctx, after, p)
		if err != nil {
			return err
		}
		if len(page) == 0 {
			return nil
		}
		after = page[len(page)-1].cursor
		if i.options.Progress != nil {
			i.options.Progress(*p)
		}
	}
}

// page imports the page of rows after a cursor, and returns it. Rows that changed in between are read
// again.
func (i *Importer) page(ctx context.Context, after string, p *Progress) ([]old, error) {
	settled := map[string]bool{} // by key: those that are counted
	for attempt := 1; ; attempt++ {
		page, err := i.read(ctx, i.sql.page, after, int64(i.options.BatchSize))
		if err != nil {
			return nil, err
		}
		var batch []old
		for _, row := range page {
			if settled[row.key] {
				continue
			}
			switch err := i.convert(&row); {
			case errors.Is(err, ErrSkip):
				settled[row.key] = true
				p.Skipped++
			case err != nil:
				return nil, err
			default:
				batch = append(batch, row)
			}
		}
		outcomes, err := i.insert(ctx, batch)
		if err != nil {
			return nil, err
		}
		changed := 0
		for _, row := range batch {
			switch outcome := outcomes[row.id]; {
			case settled[row.key]: // twice in one page, as pgstore's table allows
				continue
			case outcome == changedMeanwhile:
				changed++
				continue
			default:
				p.count(outcome)
			}
			settled[row.key] = true
		}
		if changed == 0 {
			return page, nil
		}
		if attempt == maxAttempts {
			p.Left += int64(changed)
			return page, nil
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
}

// outcome is what became of a row.
type outcome int

const (
	changedMeanwhile outcome = iota // the row is not what it was
	imported
	present
	ended
)

func (p *Progress) count(o outcome) {
	switch o {
	case imported:
		p.Copied++
	case present:
		p.Present++
	case ended:
		p.Ended++
	}
}

// argument is a session as the statement takes it.
type argument struct {
	ID       pgsession.ID `json:"id"`
	Place    string       `json:"place"`
	XID      string       `json:"xid"`
	Data     []byte       `json:"data"` // in base64
	Codec    int16        `json:"codec"`
	Subject  string       `json:"subject"`
	Columns  any          `json:"columns"` // a JSON text, or nil: the function takes it as text
	Idle     float64      `json:"idle"`
	Absolute float64      `json:"absolute"`
}

// insert imports rows, all or none, and says what became of each.
func (i *Importer) insert(ctx context.Context, batch []old) (map[pgsession.ID]outcome, error) {
	outcomes := make(map[pgsession.ID]outcome, len(batch))
	arguments := make([]argument, 0, len(batch))
	for _, row := range batch {
		if _, twice := outcomes[row.id]; twice {
			continue
		}
		outcomes[row.id] = changedMeanwhile
		s := &row.session
		columns, err := adapter.Columns(s.Columns)
		if err != nil {
			return nil, fmt.Errorf("session %s: %w", row.id, err)
		}
		arguments = append(arguments, argument{
			ID: row.id, Place: row.place, XID: row.xid, Data: nonNil(s.Data), Codec: s.Codec, Subject: s.Subject,
			Columns: columns, Idle: seconds(s.IdleTimeout), Absolute: seconds(s.AbsoluteTimeout),
		})
	}
	if len(arguments) == 0 {
		return outcomes, nil
	}
	text, err := json.Marshal(arguments)
	if err != nil {
		return nil, err
	}
	var id, status string
	var found, claimed bool
	err = i.each(ctx, i.sql.insert, []any{string(text)}, []any{&id, &found, &claimed, &status}, func() {}, func() error {
		switch {
		case !found:
			outcomes[pgsession.ID(id)] = changedMeanwhile
		case !claimed, status == "conflict":
			outcomes[pgsession.ID(id)] = present
		case status == "created":
			outcomes[pgsession.ID(id)] = imported
		case status == "revoked", status == "renewed", status == "reused":
			outcomes[pgsession.ID(id)] = ended
		default:
			return fmt.Errorf("session %s: the function answered %q", id, status)
		}
		return nil
	})
	return outcomes, err
}

func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func seconds(d time.Duration) float64 {
	if d < 0 {
		return -1
	}
	return d.Seconds()
}
