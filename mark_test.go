package pgsession_test

import (
	"testing"
	"time"

	"github.com/pgsession/pgsession"
)

// marks are ways to leave the mark of a lock on a session's row; they return the token that it has then.
var marks = map[string]func(*testing.T, *way, pgsession.Token) pgsession.Token{
	"a login": func(t *testing.T, w *way, token pgsession.Token) pgsession.Token {
		next, _, err := w.store.Renew(t.Context(), token, pgsession.Renewal{Subject: "ada"})
		must(t, err)
		return next
	},
	"a prune that moved it": func(t *testing.T, w *way, token pgsession.Token) pgsession.Token {
		w.exec(t, `update {table} set prune_after = now() - interval '1 s'`)
		_, err := w.store.Prune(t.Context())
		must(t, err)
		return token
	},
	"a write that was rolled back": func(t *testing.T, w *way, token pgsession.Token) pgsession.Token {
		tx, err := w.admin.Begin(t.Context())
		must(t, err)
		_, err = w.store.WithQuery(tx.Query).Set(t.Context(), token, pgsession.Session{Data: []byte("2")})
		must(t, err)
		must(t, tx.Rollback(t.Context()))
		return token
	},
}

// A transaction that locks a row and then writes it leaves its mark on what it wrote, which keeps the next
// write from being the ordinary one. That one must not leave it again, or a login would make all later
// writes of the session slow.
func TestTheFirstWriteOfAMarkedRowClearsTheMark(t *testing.T) {
	t.Parallel()
	writes := map[string]func(*testing.T, *way, pgsession.Token){
		"set": func(t *testing.T, w *way, token pgsession.Token) {
			s, err := w.store.GetFresh(t.Context(), token)
			must(t, err)
			s.Data = []byte("3")
			_, err = w.store.Set(t.Context(), token, s)
			must(t, err)
		},
		"touch": func(t *testing.T, w *way, token pgsession.Token) {
			_, err := w.store.Touch(t.Context(), token)
			must(t, err)
		},
	}
	for how, mark := range marks {
		for what, write := range writes {
			t.Run(what+" after "+how, func(t *testing.T) {
				t.Parallel()
				w := onPool(t, pgsession.Config{TouchInterval: time.Microsecond, Cleanup: withoutCleanup})
				token, _ := w.create(t, pgsession.Session{Data: []byte("1")})
				token = mark(t, w, token)
				marked := func() bool {
					return value[bool](t, w.admin, w.fill(`select xmax <> '0'::xid from {table} where revoked_at is null`))
				}
				if !marked() {
					t.Fatal("there is no mark")
				}
				write(t, w, token)
				if marked() {
					t.Error("the mark is still there")
				}
			})
		}
	}
}
