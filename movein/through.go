package movein

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pgsession/pgsession"
)

// Through is a store that looks into the old table for the sessions that it does not have, while an
// application moves in. It costs a query for each token that is unknown, and for each Set with
// Version 0. What a transaction's WithQuery does not find is not looked for.
type Through struct {
	*pgsession.Store
	importer *Importer
}

var _ pgsession.Sessions = (*Through)(nil)

// Through returns the importer's store with the old table behind it.
func (i *Importer) Through() *Through { return &Through{i.store, i} }

// Get implements [pgsession.Sessions].
func (t *Through) Get(ctx context.Context, token pgsession.Token) (pgsession.Session, error) {
	session, err := t.Store.Get(ctx, token)
	if moved, importErr := t.missed(ctx, token, err); importErr != nil {
		return pgsession.Session{}, importErr
	} else if moved {
		// Get could join a load that began before the import.
		return t.Store.GetFresh(ctx, token)
	}
	return session, err
}

// GetFresh implements [pgsession.Sessions].
func (t *Through) GetFresh(ctx context.Context, token pgsession.Token) (pgsession.Session, error) {
	session, err := t.Store.GetFresh(ctx, token)
	if moved, importErr := t.missed(ctx, token, err); importErr != nil {
		return pgsession.Session{}, importErr
	} else if moved {
		return t.Store.GetFresh(ctx, token)
	}
	return session, err
}

// View implements [pgsession.Sessions].
func (t *Through) View(ctx context.Context, token pgsession.Token, f func(pgsession.Session) error) error {
	seen := false // an error of f's is f's, whatever it is
	err := t.Store.View(ctx, token, func(s pgsession.Session) error {
		seen = true
		return f(s)
	})
	if seen {
		return err
	}
	if moved, importErr := t.missed(ctx, token, err); importErr != nil {
		return importErr
	} else if moved {
		session, err := t.Store.GetFresh(ctx, token)
		if err != nil {
			return err
		}
		return f(session)
	}
	return err
}

// Set implements [pgsession.Sessions]. What it is about to replace is imported first, so that the old
// table's session cannot come after it.
func (t *Through) Set(
	ctx context.Context, token pgsession.Token, session pgsession.Session,
) (pgsession.Session, error) {
	if session.Version == 0 {
		if _, err := t.missed(ctx, token, pgsession.ErrNotFound); err != nil {
			return pgsession.Session{}, err
		}
	}
	return t.Store.Set(ctx, token, session)
}

// Update implements [pgsession.Sessions].
func (t *Through) Update(
	ctx context.Context, token pgsession.Token, f func(*pgsession.Session) error,
) (pgsession.Session, error) {
	if f == nil {
		return t.Store.Update(ctx, token, nil)
	}
	called := false
	session, err := t.Store.Update(ctx, token, func(s *pgsession.Session) error {
		called = true
		return f(s)
	})
	if called {
		return session, err
	}
	if moved, importErr := t.missed(ctx, token, err); importErr != nil {
		return pgsession.Session{}, importErr
	} else if moved {
		return t.Store.Update(ctx, token, f)
	}
	return session, err
}

// Touch implements [pgsession.Sessions].
func (t *Through) Touch(ctx context.Context, token pgsession.Token) (time.Time, error) {
	expiresAt, err := t.Store.Touch(ctx, token)
	if moved, importErr := t.missed(ctx, token, err); importErr != nil {
		return time.Time{}, importErr
	} else if moved {
		return t.Store.Touch(ctx, token)
	}
	return expiresAt, err
}

// Renew implements [pgsession.Sessions].
func (t *Through) Renew(
	ctx context.Context, token pgsession.Token, renewal pgsession.Renewal,
) (pgsession.Token, pgsession.Session, error) {
	next, session, err := t.Store.Renew(ctx, token, renewal)
	if moved, importErr := t.missed(ctx, token, err); importErr != nil {
		return "", pgsession.Session{}, importErr
	} else if moved {
		return t.Store.Renew(ctx, token, renewal)
	}
	return next, session, err
}

// Patch implements [pgsession.Sessions].
func (t *Through) Patch(ctx context.Context, token pgsession.Token, mergePatch []byte) (pgsession.Session, error) {
	session, err := t.Store.Patch(ctx, token, mergePatch)
	if moved, importErr := t.missed(ctx, token, err); importErr != nil {
		return pgsession.Session{}, importErr
	} else if moved {
		return t.Store.Patch(ctx, token, mergePatch)
	}
	return session, err
}

// Destroy implements [pgsession.Sessions]. It ends the sessions in both tables. After an error some may
// have ended, and none of those comes back; call it again.
func (t *Through) Destroy(ctx context.Context, tokens ...pgsession.Token) (int, error) {
	type argument struct {
		ID  pgsession.ID `json:"id"`
		Key string       `json:"key"`
	}
	if len(tokens) == 0 || len(tokens) > maxDestroy {
		return t.Store.Destroy(ctx, tokens...)
	}
	arguments := make([]argument, 0, len(tokens))
	for _, token := range tokens {
		id, err := t.ID(token)
		if err != nil {
			return 0, err
		}
		// Any other cannot be in the old table, now or ever.
		if key := t.importer.options.TrimPrefix + string(token); storable(key) {
			arguments = append(arguments, argument{id, key})
		}
	}
	text, err := json.Marshal(arguments)
	if err != nil {
		return 0, err
	}
	i, n := t.importer, 0
	// The mark first, in a statement of its own: it waits for an import that is under way, which has the
	// old row locked; and from then on there is none.
	var id string
	marked := map[string]bool{}
	err = i.each(ctx, i.sql.mark, []any{string(text)}, []any{&id},
		func() { clear(marked) }, func() error { marked[id] = true; return nil })
	if err == nil {
		var live bool
		err = i.each(ctx, i.sql.remove, []any{string(text)}, []any{&id, &live}, func() { n = 0 }, func() error {
			if live && marked[id] { // that is, it was never imported
				n++
			}
			return nil
		})
	}
	if err != nil {
		return 0, fmt.Errorf("movein: destroy: %w", err)
	}
	ended, err := t.Store.Destroy(ctx, tokens...)
	return n + ended, err
}

// maxDestroy is how many Destroy takes.
const maxDestroy = 1000

// Clear ends all sessions, in both tables. Its number is that of the store's.
func (t *Through) Clear(ctx context.Context) (int64, error) {
	i := t.importer
	if err := i.each(ctx, i.sql.removeAll, nil, nil, func() {}, func() error { return nil }); err != nil {
		return 0, fmt.Errorf("movein: clear: %w", err)
	}
	return t.Store.Clear(ctx)
}

// missed imports a session where err says that the store has none, and says whether to look again.
func (t *Through) missed(ctx context.Context, token pgsession.Token, err error) (moved bool, importErr error) {
	if !errors.Is(err, pgsession.ErrNotFound) || errors.Is(err, pgsession.ErrInvalidToken) {
		return false, nil
	}
	i := t.importer
	id, err := t.ID(token)
	if err != nil {
		return false, err
	}
	if moved, err = i.one(ctx, token, id); err != nil {
		return false, fmt.Errorf("movein: session %s: %w", id, err)
	}
	return moved, nil
}

// one imports one session, and says whether there was one to import, now or before.
func (i *Importer) one(ctx context.Context, token pgsession.Token, id pgsession.ID) (bool, error) {
	key := i.options.TrimPrefix + string(token)
	if i.source.hashed {
		key = string(id)
	}
	if !storable(key) {
		return false, nil
	}
	for attempt := 1; ; attempt++ {
		rows, err := i.read(ctx, i.sql.one, key)
		if err != nil || len(rows) == 0 {
			return false, err
		}
		if err := i.convert(&rows[0]); err != nil {
			if errors.Is(err, ErrSkip) {
				return false, nil
			}
			return false, err
		}
		outcomes, err := i.insert(ctx, rows)
		if err != nil || outcomes[rows[0].id] != changedMeanwhile {
			return err == nil, err
		}
		if attempt == maxAttempts {
			return false, fmt.Errorf("%w in the old table", pgsession.ErrBusy)
		}
		if err := pause(ctx); err != nil {
			return false, err
		}
	}
}

// storable says whether PostgreSQL's type text can hold a key: a client may send anything.
func storable(key string) bool { return utf8.ValidString(key) && strings.IndexByte(key, 0) < 0 }
