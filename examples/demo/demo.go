package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

var (
	// errTourFailed: a step of the tour did not show what it should. The report has said what.
	errTourFailed = errors.New("the tour failed")
	// errTeardown: something may have been left behind.
	errTeardown = errors.New("could not tidy up")
)

// demo is one run: a database, two servers, a tour, and the page for as long as somebody looks.
type demo struct {
	schema string
	serve  bool // whether to go on serving after the tour
	out    *report
	logger *slog.Logger
}

// run does it all, and tears down what it built, however it ends. The error is nil as well where ctx
// ended while the page was served: that is how it is meant to end.
func (d *demo) run(ctx context.Context) (err error) {
	d.out.heading("pgsession: sessions on PostgreSQL, shared by two servers")
	d.out.text("Looking for a PostgreSQL: the one that DATABASE_URL names, else a container, else one run from " +
		"what is installed.")
	d.out.line("")
	began := time.Now()
	db, err := openDatabase(ctx, d.schema)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.closeDatabase(db)) }()
	d.out.fact("PostgreSQL", db.source, time.Since(began))

	servers, err := d.startServers(ctx, db)
	defer func() { err = errors.Join(err, closeServers(servers)) }()
	if err != nil {
		return err
	}

	tour := newTour(servers[0], servers[1], db)
	defer tour.close()
	if err := tour.run(ctx, d.out); err != nil {
		return err
	}
	if !d.serve {
		return nil
	}
	d.invite(servers)
	select {
	case <-ctx.Done():
		return nil
	case err := <-servers[0].failed:
		return err
	case err := <-servers[1].failed:
		return err
	}
}

// startServers starts two of everything but the database, as there would be on two machines. With an
// error it returns those that there are, to be closed.
func (d *demo) startServers(ctx context.Context, db *database) (servers []*instance, err error) {
	for _, server := range []struct{ name, setup string }{
		{"A", "table and functions, in the schema " + d.schema},
		{"B", "finds all there, and changes nothing"},
	} {
		s, err := newInstance(ctx, server.name, db.url, d.schema, d.logger)
		if err != nil {
			return servers, err
		}
		servers = append(servers, s)
		began := time.Now()
		if err := s.store.Setup(ctx); err != nil {
			return servers, err
		}
		d.out.fact("Setup by "+s.name, server.setup, time.Since(began))
	}
	for _, s := range servers {
		if err := s.listen(ctx); err != nil {
			return servers, err
		}
	}
	for i, s := range servers {
		s.serve(servers[1-i])
		d.out.fact("Server "+s.name, s.url, 0)
	}
	return servers, nil
}

func closeServers(servers []*instance) error {
	var errs []error
	for _, s := range servers {
		errs = append(errs, s.close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", errTeardown, err)
	}
	return nil
}

func (d *demo) invite(servers []*instance) {
	d.out.line("")
	d.out.heading("Now you")
	for _, s := range servers {
		d.out.fact("Server "+s.name, d.out.paint(bold, s.url), 0)
	}
	d.out.text("Open either: your cookie is good for both, since cookies know no ports. A private window " +
		"is a second device. Log in as ada and you find the tour's laptop among your sessions: log it out.")
	d.out.line("")
	d.out.text("Ctrl-C ends everything.")
}

// closeDatabase says what becomes of the database, since it may be somebody else's.
func (d *demo) closeDatabase(db *database) error {
	if err := db.close(); err != nil {
		return fmt.Errorf("%w: %w", errTeardown, err)
	}
	d.out.line("")
	if db.given {
		d.out.text(fmt.Sprintf("Dropped the schema %s from %s. Nothing else there was touched.", d.schema, db.source))
	} else {
		d.out.text("Stopped " + db.source + ", and removed what it stored.")
	}
	return nil
}
