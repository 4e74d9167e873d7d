package scsstore_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/webtest"
	"github.com/pgsession/pgsession/scsstore"
)

// scs ends the old session in RenewToken and makes the new one at the end of the request, so that there is room for it.
func TestARenewalAtTheLimitOfSessionsEndsNobodysSession(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1, 2} {
		for name, overflow := range map[string]pgsession.Overflow{
			"reject": pgsession.OverflowReject, "evict the oldest": pgsession.OverflowEvictOldest,
		} {
			t.Run(fmt.Sprint(most, " ", name), func(t *testing.T) {
				t.Parallel()
				store := open(t, pgtest.Database(t), pgsession.Config{MaxPerSubject: most, Overflow: overflow})
				m := manage(t, store, scsstore.Options{
					Subject: func(values map[string]any) string { user, _ := values["user"].(string); return user },
				})
				address := serve(t, m, map[string]func(context.Context) string{
					"/login": func(ctx context.Context) string {
						if err := m.RenewToken(ctx); err != nil {
							return err.Error()
						}
						m.Put(ctx, "user", "ada")
						return "ada"
					},
					"/who": func(ctx context.Context) string { return m.GetString(ctx, "user") },
				})
				devices := make([]*webtest.Browser, most)
				for i := range devices {
					devices[i] = webtest.NewBrowser(t)
					devices[i].Want(http.MethodGet, address+"/login", "ada")
				}
				for range 3 {
					thief := devices[0].Copy(address)
					devices[0].Want(http.MethodGet, address+"/login", "ada")
					thief.Want(http.MethodGet, address+"/who", "")
				}
				for _, device := range devices {
					device.Want(http.MethodGet, address+"/who", "ada")
				}

				// A login, by contrast, is one more.
				late := webtest.NewBrowser(t)
				if r := late.Get(address + "/login"); (r.Status == http.StatusOK) != (overflow != pgsession.OverflowReject) {
					t.Errorf("one more login is answered %d", r.Status)
				}
				if n, err := store.Count(t.Context(), pgsession.Filter{Subject: "ada"}); n != int64(most) || err != nil {
					t.Errorf("ada has %d sessions, %v; want %d", n, err, most)
				}
			})
		}
	}
}
