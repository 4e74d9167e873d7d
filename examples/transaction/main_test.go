package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/webtest"
)

func TestMain(m *testing.M) {
	pgtest.Main(m)
}

// network loses the answer to each commit, which is done, while lost is true.
type network struct {
	net.Conn
	lost    *atomic.Bool
	pending bool
}

func (n *network) Write(b []byte) (int, error) {
	n.pending = n.lost.Load() && bytes.Contains(b, []byte("commit\x00"))
	return n.Conn.Write(b)
}

func (n *network) Read(b []byte) (int, error) {
	count, err := n.Conn.Read(b)
	if err == nil && n.pending {
		_ = n.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return count, err
}

func TestACommitWhoseAnswerIsLostIsUnknown(t *testing.T) {
	t.Parallel()
	config, err := pgxpool.ParseConfig(pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	lost := new(atomic.Bool)
	dial := config.ConnConfig.DialFunc
	config.ConnConfig.DialFunc = func(ctx context.Context, kind, address string) (net.Conn, error) {
		conn, err := dial(ctx, kind, address)
		return &network{Conn: conn, lost: lost}, err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	store, err := setUp(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	server := httptest.NewServer(handler(pool, store))
	t.Cleanup(server.Close)

	ada := webtest.NewBrowser(t)
	ada.Want(http.MethodPost, server.URL+"/cart/apple", "")
	lost.Store(true)
	if r := ada.Post(server.URL + "/order"); r.Status != http.StatusServiceUnavailable ||
		r.Body != "unknown: if the cart is empty it was ordered\n" {
		t.Errorf("%d %q", r.Status, r.Body)
	}
	lost.Store(false)
	ada.Want(http.MethodGet, server.URL+"/", "cart: ; orders of all: 1\n")
}
