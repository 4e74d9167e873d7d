package pgsession_test

import (
	"errors"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
)

func TestClearEndsAllThatLive(t *testing.T) {
	t.Parallel()
	const sessions = 25_000 // in three batches
	for _, tombstone := range []time.Duration{0, -1} {
		w := onPool(t, pgsession.Config{Tombstone: tombstone})
		w.seed(t, sessions, "row", "ada", 1)
		w.age(t, 25*time.Hour, seeded("row", 1))
		_, err := w.Destroy(t.Context(), seeded("row", 2))
		must(t, err)
		for _, want := range []int64{sessions - 2, 0} {
			if n, err := w.store.Clear(t.Context()); n != want || err != nil {
				t.Errorf("tombstones for %v: cleared %d, %v; want %d", tombstone, n, err, want)
			}
		}
		var rows, live, secrets int
		w.scan(t, &rows, `select count(*) from {table}`)
		w.scan(t, &live, `select count(*) from {table} as t where t.revoked_at is null`)
		w.scan(t, &secrets, `select count(t.data) from {table} as t where t.revoked_at is not null`)
		wantRows := map[time.Duration]int{0: sessions, -1: 1}[tombstone]
		if rows != wantRows || live != 1 || secrets != 0 {
			t.Errorf("tombstones for %v: %d rows, %d live, %d with data; want %d, the expired one, none",
				tombstone, rows, live, secrets, wantRows)
		}
		want := map[time.Duration]error{0: pgsession.ErrRevoked, -1: nil}[tombstone]
		if _, err := w.Set(t.Context(), seeded("row", 3), pgsession.Session{}); !errors.Is(err, want) {
			t.Errorf("tombstones for %v: a late set: %v, want %v", tombstone, err, want)
		}
	}
}
