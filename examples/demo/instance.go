package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
)

// instance is one of several servers of the same application: it shares nothing with the others but
// the database.
type instance struct {
	name     string
	url      string
	pool     *pgxpool.Pool
	store    *pgsession.Store
	app      *app
	server   *http.Server
	listener net.Listener
	failed   chan error // what ended the server, where it was not close
}

// newInstance makes an instance that is not set up yet, and serves nothing.
func newInstance(ctx context.Context, name, databaseURL, schema string, logger *slog.Logger) (*instance, error) {
	logger = logger.With(slog.String("server", name))
	config, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		return nil, fmt.Errorf("server %s: %w", name, err)
	}
	config.ConnConfig.RuntimeParams["application_name"] = applicationName(schema) // by which the tour finds its listeners
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("server %s: %w", name, err)
	}
	store, err := pgsession.New(pool.Query, pgsession.Config{
		Schema:      schema,
		Columns:     []pgsession.Column{{Name: userAgentColumn, Type: "text"}},
		IdleTimeout: 30 * time.Minute,
		Listen:      pgsession.ListenFrom(pool), // each server caches what it reads
		// The tour prunes by hand and counts the rows, so nobody else may. Leave this out elsewhere:
		// by default the store prunes by itself.
		Cleanup: pgsession.Cleanup{Mode: pgsession.CleanupOff},
		Logger:  logger,
	})
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("server %s: %w", name, err)
	}
	return &instance{
		name: name, pool: pool, store: store, app: newApp(name, pool, store, logger), failed: make(chan error, 1),
	}, nil
}

// listen takes a free port, so that the address is known before anything is served.
func (s *instance) listen(ctx context.Context) (err error) {
	s.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("server %s: %w", s.name, err)
	}
	s.url = "http://" + s.listener.Addr().String()
	return nil
}

// serve starts answering requests, with links to the peer.
func (s *instance) serve(peer *instance) {
	s.app.peer = link{Name: peer.name, URL: peer.url}
	s.server = &http.Server{
		Handler:           s.app.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout:      2 * slowest,
		ErrorLog:          slog.NewLogLogger(s.app.logger.Handler(), slog.LevelWarn),
	}
	// Requests that wait are let go, so that Shutdown need not wait for them.
	s.server.RegisterOnShutdown(s.app.slow.release)
	go func() {
		if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("server %s: %w", s.name, err)
		}
	}()
}

// close ends the server, the store and the pool, in this order: each needs the next.
func (s *instance) close() error {
	var errs []error
	switch {
	case s.server != nil:
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.server.Shutdown(ctx); err != nil {
			errs = append(errs, err, s.server.Close())
		}
	case s.listener != nil:
		errs = append(errs, s.listener.Close())
	}
	errs = append(errs, s.store.Close())
	s.pool.Close()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("server %s: %w", s.name, err)
	}
	return nil
}
