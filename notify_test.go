package pgsession_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// ear is a raw connection that listens.
type ear struct {
	conn    *pgx.Conn
	channel string
	n       int
}

// listenTo listens on a channel, from now on.
func listenTo(t *testing.T, address, channel string) *ear {
	t.Helper()
	e := &ear{conn: dial(t, address, nil), channel: channel}
	exec(t, e.conn, "listen "+identifier(channel))
	return e
}

// heard returns the payloads that came since it was last called. What was committed before this call
// is among them: it sends one itself, which comes last.
func (e *ear) heard(t *testing.T) (payloads []string) {
	t.Helper()
	e.n++
	end := fmt.Sprint("end ", e.n)
	exec(t, e.conn, "select pg_notify($1, $2)", e.channel, end)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		n, err := e.conn.WaitForNotification(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if n.Payload == end {
			return payloads
		}
		payloads = append(payloads, n.Payload)
	}
}

// expect fails the test unless these payloads were heard, beats apart.
func (e *ear) expect(t *testing.T, what string, want ...string) {
	t.Helper()
	var got []string
	for _, p := range e.heard(t) {
		if !strings.Contains(p, `"beat"`) {
			got = append(got, p)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || len(got) != len(want) {
		t.Errorf("%s: heard %q, want %q", what, got, want)
	}
}

// listenFor is a Config.Listen for an address.
func listenFor(address string) func(context.Context) (*pgx.Conn, error) {
	return func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, address) }
}

func changed(kind string, id pgsession.ID, version int64) string {
	return fmt.Sprintf(`{"v":1,"%s":[["%s",%d]]}`, kind, id, version)
}

func TestWhatNotifiesAndWhatDoesNot(t *testing.T) {
	t.Parallel()
	for _, mode := range []pgsession.NotifyMode{pgsession.NotifyInTx, pgsession.NotifyOff} {
		t.Run(fmt.Sprint(mode), func(t *testing.T) {
			t.Parallel()
			ctx, schema := t.Context(), pgtest.Schema(t)
			w := onPool(t, pgsession.Config{Schema: schema, Notify: mode})
			e := listenTo(t, pgtest.URL(t), schema+".session")
			token, s := w.create(t, pgsession.Session{Subject: "ada", Data: []byte("1")})
			_, err := w.Get(ctx, token)
			must(t, err)
			_, err = w.Touch(ctx, token)
			must(t, err)
			s, err = w.Set(ctx, token, s)
			must(t, err)
			_, err = w.store.Prune(ctx)
			must(t, err)
			e.expect(t, "create, get, touch, a set that changes nothing, prune")

			s.Data = []byte("2")
			s, err = w.Set(ctx, token, s)
			must(t, err)
			if mode == pgsession.NotifyInTx {
				e.expect(t, "set", changed("changed", s.ID, s.Version))
			} else {
				e.expect(t, "set")
			}
			s.Subject = "bob"
			s, err = w.Set(ctx, token, s)
			must(t, err)
			e.expect(t, "set of another subject", changed("changed", s.ID, s.Version))
			_, err = w.Destroy(ctx, token, "missing")
			must(t, err)
			heard := e.heard(t)
			if len(heard) != 1 || !strings.HasPrefix(heard[0], `{"v":1,"destroyed":[["`+string(s.ID)+`",`) {
				t.Errorf("destroy: heard %q", heard)
			}
			_, err = w.Destroy(ctx, token)
			must(t, err)
			_, err = w.Revoke(ctx, pgsession.Revocation{Subject: "bob"})
			must(t, err)
			e.expect(t, "destroy and revoke of what is gone")
			_, err = w.store.Clear(ctx)
			must(t, err)
			e.expect(t, "clear", `{"v":1,"cleared":true}`)
		})
	}
}
