package main

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/pgsession/pgsession"
)

//go:embed page.html page.css
var assets embed.FS

var pageTemplate = template.Must(template.ParseFS(assets, "page.html"))

// page is what a visitor sees: HTML for a browser, JSON for the tour.
type page struct {
	Server  string   `json:"server"`
	Peer    link     `json:"peer"`
	Notice  string   `json:"notice,omitempty"`
	Failed  bool     `json:"failed,omitempty"` // whether the notice is bad news
	Me      device   `json:"me"`               // without an ID: there is no session
	Devices []device `json:"devices"`          // the sessions of whom is logged in
}

// Others is how many other devices the user is logged in on.
func (p page) Others() int { return max(0, len(p.Devices)-1) }

// link is another server of the demo.
type link struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

// device is a session as its owner may see it. Its id is safe to show: the token cannot be had from
// it, and it is nowhere accepted in the token's place.
type device struct {
	ID        pgsession.ID  `json:"id"`
	Current   bool          `json:"current"`
	Subject   string        `json:"subject"`
	Visits    int           `json:"visits"`
	Name      string        `json:"name"`
	UserAgent string        `json:"user_agent"`
	CreatedAt time.Time     `json:"created_at"`
	ExpiresAt time.Time     `json:"expires_at"`
	Idle      time.Duration `json:"idle"`
}

func newDevice(s session, current pgsession.ID) device {
	agent, _ := s.Columns[userAgentColumn].(string) // NULL where it was never set
	return device{
		ID: s.ID, Current: s.ID == current, Subject: s.Subject, Visits: s.Value.Visits, Name: s.Value.Device,
		UserAgent: agent, CreatedAt: s.CreatedAt, ExpiresAt: s.ExpiresAt, Idle: s.IdleTimeout,
	}
}

// Age is how long ago the session began. Like Left it takes this machine's clock to be right, which
// is good enough for the eye; what is enforced is the database's.
func (d device) Age() string { return roughly(time.Since(d.CreatedAt)) }

// Left is how long the session lives on if it is not used.
func (d device) Left() string { return roughly(time.Until(d.ExpiresAt)) }

// roughly writes a duration by its largest unit.
func roughly(d time.Duration) string {
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		n := int((d + unit.length/2) / unit.length)
		if n == 1 {
			return "1 " + unit.name
		} else if n > 1 {
			return fmt.Sprintf("%d %ss", n, unit.name)
		}
	}
	return "a moment"
}

// home shows the page. Looking at it is a use of the session, so it extends the idle deadline.
func (a *app) home(w http.ResponseWriter, r *http.Request) {
	notice := ""
	_, err := a.store.Touch(r.Context(), cookieToken(r))
	switch {
	case gone(err) && cookieToken(r) != "":
		clearCookie(w)
		notice = "Your session has ended: it was logged out, or not used for too long."
	case err != nil && !gone(err):
		a.fail(w, r, err)
		return
	}
	a.show(w, r, http.StatusOK, page{Notice: notice})
}

// fail shows the page with what went wrong.
func (a *app) fail(w http.ResponseWriter, r *http.Request, err error) {
	var refused *refusal
	if errors.As(err, &refused) {
		a.show(w, r, refused.status, page{Notice: refused.notice, Failed: true})
		return
	}
	a.broken(w, r, err)
}

// broken answers when the database does not. The cookie stays: nobody is logged out by an outage.
func (a *app) broken(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() == nil { // else it is the visitor who has gone
		a.logger.ErrorContext(r.Context(), "request failed", slog.String("path", r.URL.Path), slog.Any("error", err))
	}
	a.write(w, r, http.StatusServiceUnavailable, page{
		Notice: "The database does not answer. Your session is safe there: try again.", Failed: true,
	})
}

// show fills the page with the request's session and writes it.
func (a *app) show(w http.ResponseWriter, r *http.Request, status int, p page) {
	me, err := a.load(r.Context(), r)
	if err == nil {
		p.Devices, err = a.devices(r.Context(), me.Subject, me.ID)
	}
	if err != nil {
		a.broken(w, r, err)
		return
	}
	if me.ID != "" {
		p.Me = newDevice(me, me.ID)
	}
	a.write(w, r, status, p)
}

func (a *app) write(w http.ResponseWriter, r *http.Request, status int, p page) {
	p.Server, p.Peer = a.name, a.peer
	var body bytes.Buffer
	var err error
	contentType := "text/html; charset=utf-8"
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		contentType = "application/json"
		err = json.NewEncoder(&body).Encode(p)
	} else {
		err = pageTemplate.Execute(&body, p)
	}
	if err != nil { // a fault of the template's
		a.logger.ErrorContext(r.Context(), "cannot render the page", slog.Any("error", err))
		http.Error(w, "cannot render the page", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // an error is the visitor's having gone
}

func serveStyle(w http.ResponseWriter, r *http.Request) {
	http.ServeFileFS(w, r, assets, "page.css")
}
