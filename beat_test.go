package pgsession_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

const beatSQL = "select b.nonce from {schema}.session_beat($1::float8) as b"

// beats are the nonces among payloads.
func beats(t *testing.T, payloads []string) (nonces []string) {
	t.Helper()
	for _, text := range payloads {
		var p struct{ Beat string }
		must(t, json.Unmarshal([]byte(text), &p))
		if p.Beat != "" {
			nonces = append(nonces, p.Beat)
		}
	}
	return nonces
}

func TestABeatReturnsTheNonceThatIsPublishedNext(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	e := listenTo(t, pgtest.URL(t), channelOf(w.schema, "session"))
	beat := func(interval float64) (nonce string) {
		t.Helper()
		w.scan(t, &nonce, beatSQL, interval)
		return nonce
	}
	w.exec(t, "update {schema}.session_beat set at = clock_timestamp()")
	first := beat(3600)
	if second := beat(3600); second != first {
		t.Errorf("two calls before it is published returned %s and %s", first, second)
	}
	if heard := e.heard(t); len(heard) > 0 {
		t.Errorf("before its time %q was published", heard)
	}
	if published := beat(0); published != first {
		t.Errorf("the call that publishes returned %s, want %s", published, first)
	}
	e.heardBeats(t, "its time has come", first)
	next := beat(3600)
	if next == first {
		t.Error("a nonce was used twice")
	}

	// The clock was set back.
	w.exec(t, "update {schema}.session_beat set at = clock_timestamp() + interval '1 hour'")
	if nonce := beat(3600); nonce != next {
		t.Errorf("got %s, want %s", nonce, next)
	}
	e.heardBeats(t, "the clock was set back", next)

	// Who publishes stands still, with the row locked.
	tx := begin(t, w.admin)
	rows, err := tx.query(t.Context(), w.fill(beatSQL), 0.0)
	must(t, err)
	frozen, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
	must(t, err)
	if nonce := beat(3600); nonce != frozen {
		t.Errorf("before it is overdue: got %s, want %s", nonce, frozen)
	}
	if nonce := beat(0); nonce == frozen {
		t.Error("nobody publishes, and it was not noticed")
	} else {
		e.heardBeats(t, "nobody publishes", nonce)
	}
	must(t, tx.rollback())

	// A snapshot older than the call.
	tx = begin(t, w.admin)
	rows, err = tx.query(t.Context(), "set transaction isolation level repeatable read")
	must(t, err)
	rows.Close()
	rows, err = tx.query(t.Context(), w.fill(beatSQL), 3600.0)
	must(t, err)
	own, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
	must(t, err)
	must(t, tx.commit())
	if own == beat(3600) {
		t.Error("a shared nonce was returned under a snapshot of its own")
	}
	e.heardBeats(t, "repeatable read", own)

	// The row is gone, as after a restore of the schema alone.
	w.exec(t, "delete from {schema}.session_beat")
	e.heardBeats(t, "no row", beat(3600))
	after := beat(3600)
	if again := beat(3600); again != after {
		t.Errorf("the row was not mended: %s, %s", after, again)
	}
}

func (e *ear) heardBeats(t *testing.T, what string, want ...string) {
	t.Helper()
	if got := beats(t, e.heard(t)); !slices.Equal(got, want) {
		t.Errorf("%s: heard the beats %q, want %q", what, got, want)
	}
}

// Hearing a nonce proves that all was heard that had been committed before the beat was called.
func TestANonceComesAfterAllThatWasCommittedBeforeItsBeat(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	channel := channelOf(w.schema, "session")
	e := listenTo(t, pgtest.URL(t), channel)
	const callers, calls = 8, 100
	nonces := make([][]string, callers)
	var group sync.WaitGroup
	for i := range callers {
		conn := dial(t, pgtest.URL(t), nil)
		group.Go(func() {
			for j := range calls {
				_, err := conn.Exec(t.Context(), "select pg_notify($1, $2)", channel, fmt.Sprintf(`{"mark":"%d.%d"}`, i, j))
				var nonce string
				if err == nil {
					err = conn.QueryRow(t.Context(), w.fill(beatSQL), 0.001).Scan(&nonce)
				}
				if err != nil {
					t.Error(err)
					return
				}
				nonces[i] = append(nonces[i], nonce)
			}
		})
	}
	group.Wait()
	w.exec(t, beatSQL, 0.0) // publishes the one that some wait for
	heard := e.heard(t)
	shared := 0
	for i, list := range nonces {
		for j, nonce := range list {
			mark := slices.Index(heard, fmt.Sprintf(`{"mark":"%d.%d"}`, i, j))
			beat := slices.Index(heard, fmt.Sprintf(`{"v":1,"beat":"%s"}`, nonce))
			if mark < 0 || beat < mark {
				t.Errorf("the mark is heard as number %d, and its nonce as number %d", mark, beat)
			}
			if j > 0 && nonce == list[j-1] {
				shared++
			}
		}
	}
	if n := strings.Count(strings.Join(heard, ""), `"beat"`); n < 10 || shared == 0 {
		t.Errorf("%d beats were published, %d calls shared one", n, shared)
	}
}
