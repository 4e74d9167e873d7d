package fiberstorage_test

import (
	"bytes"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/fiberstorage"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/webtest"
)

// Fiber's Regenerate ends the old session and the save makes the new one, so that there is room for it.
func TestARenewalAtTheLimitOfSessionsEndsNobodysSession(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		for _, most := range []int{1, 2} {
			for _, overflow := range []pgsession.Overflow{pgsession.OverflowReject, pgsession.OverflowEvictOldest} {
				t.Run(fmt.Sprint(most, " ", overflow), func(t *testing.T) {
					t.Parallel()
					store := openStore(t, pgtest.Schema(t), pgsession.Config{MaxPerSubject: most, Overflow: overflow})
					storage, err := fiberstorage.Sessions(store, fiberstorage.Options{
						Describe: func(s *pgsession.Session) error {
							if bytes.Contains(s.Data, []byte("ada")) {
								s.Subject = "ada"
							}
							return nil
						},
					})
					if err != nil {
						t.Fatal(err)
					}
					a := start(t, version, storage, time.Hour)
					devices := make([]*webtest.Browser, most)
					for i := range devices {
						devices[i] = webtest.NewBrowser(t)
						post(t, devices[i], a.url+"/login/ada")
					}
					for range 3 {
						thief := devices[0].Copy(a.url)
						post(t, devices[0], a.url+"/login/ada")
						thief.Want(http.MethodGet, a.url+"/who", "<nil>")
					}
					for _, device := range devices {
						device.Want(http.MethodGet, a.url+"/who", "ada")
					}

					// A login, by contrast, is one more.
					r := webtest.NewBrowser(t).Post(a.url + "/login/ada")
					if (r.Status == http.StatusOK) != (overflow != pgsession.OverflowReject) {
						t.Errorf("one more login is answered %d", r.Status)
					}
					if n, err := store.Count(t.Context(), pgsession.Filter{Subject: "ada"}); n != int64(most) || err != nil {
						t.Errorf("ada has %d sessions, %v; want %d", n, err, most)
					}
				})
			}
		}
	})
}
