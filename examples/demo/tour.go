package main

import (
	"context"
	"fmt"
	"time"

	"github.com/pgsession/pgsession"
)

// tour takes devices through what sessions go through, and checks all that it shows. Its steps build
// on each other, so it ends at the first that does not show what it should.
type tour struct {
	a, b   *instance
	db     *database
	laptop *browser // ada's
	phone  *browser // ada's too
	tablet *browser // bob's

	anonymous pgsession.Token // the laptop's before its login
	laptopID  pgsession.ID
	phoneID   pgsession.ID
	late      func() (answer, error) // waits for the answer to the phone's slow request
}

func newTour(a, b *instance, db *database) *tour {
	return &tour{
		a: a, b: b, db: db,
		laptop: newBrowser(laptopAgent), phone: newBrowser(phoneAgent), tablet: newBrowser(tabletAgent),
	}
}

func (t *tour) close() {
	for _, b := range []*browser{t.laptop, t.phone, t.tablet} {
		b.close()
	}
}

// tourStep is one step. Its error is for what could not be done at all; what differs from what it
// should be it notes by expect.
type tourStep struct {
	title string
	do    func(ctx context.Context, s *step) error
}

func (t *tour) steps() []tourStep {
	return []tourStep{
		{"Looking costs nothing", t.look},
		{"Two servers count the visits of one session", t.count},
		{"A login replaces the session", t.logIn},
		{"The token from before the login is dead", t.replay},
		{"A second device", t.secondDevice},
		{"My sessions", t.list},
		{"Another site cannot act for ada", t.crossSite},
		{"Bob cannot end ada's session", t.stranger},
		{"The phone begins a slow request", t.beginSlow},
		{"Ada logs the phone out, from the laptop", t.endPhone},
		{"The phone's late save stays dead", t.lateSave},
		{"A read costs nanoseconds", t.cached},
		{"What one server changes the other shows", t.propagate},
		{"The listeners are killed, and nothing stale is served", t.deafen},
		{"A session that is not used expires", t.expire},
		{"Prune deletes what is dead", t.prune},
	}
}

// run takes the tour.
func (t *tour) run(ctx context.Context, out *report) error {
	out.line("")
	out.heading("The tour")
	began := time.Now()
	steps := t.steps()
	for i, next := range steps {
		s := &step{title: next.title}
		stepBegan := time.Now()
		err := next.do(ctx, s)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			s.differences = append(s.differences, difference{"the step could not be taken", "no error", err.Error()})
		}
		out.step(i+1, s, time.Since(stepBegan))
		if s.failed() {
			out.line("")
			out.line(out.paint(red, fmt.Sprintf("The tour failed at step %d of %d.", i+1, len(steps))))
			return errTourFailed
		}
	}
	out.line("")
	out.line(out.paint(green, fmt.Sprintf("All %d steps showed what they should, in %s.",
		len(steps), duration(time.Since(began)))))
	return nil
}

// expectRows compares the table's rows with what they should be.
func (t *tour) expectRows(ctx context.Context, s *step, want census) error {
	got, err := t.db.census(ctx)
	if err == nil {
		expect(s, "rows in the table", want, got)
	}
	return err
}
