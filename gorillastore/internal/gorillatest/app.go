// Package gorillatest is the application that [webtest.Framework] describes, on gorilla/sessions. What
// differs between the frameworks that share its sessions is how a request is answered.
package gorillatest

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/gorilla/sessions"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/webtest"
)

// Cookie is the application's, with the defaults of the store.
var Cookie = http.Cookie{
	Name: "session", Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: 30 * 86400,
}

// Visit is a request.
type Visit struct {
	Session *sessions.Session
	Save    func() error
	User    string // ?user=
	Write   func(status int, text string)
	Gate    *webtest.Gate

	answered bool
}

// Routes are those of [webtest.Framework]. They ignore the error of the load, as handlers on gorilla do.
var Routes = map[string]func(v *Visit){
	"GET /whoami": (*Visit).whoami,
	"POST /login": func(v *Visit) {
		v.Session.ID = ""
		v.Session.Values["user"] = v.User
		v.saved()
		v.whoami()
	},
	"POST /renew": func(v *Visit) {
		v.Session.ID = ""
		v.saved()
		v.whoami()
	},
	"POST /logout": func(v *Visit) {
		v.Session.Options.MaxAge = -1
		v.Session.Values = map[any]any{}
		v.saved()
		v.whoami()
	},
	"POST /count": func(v *Visit) {
		visits := v.count()
		v.saved()
		v.answer(strconv.Itoa(visits))
	},
	"GET /slow": func(v *Visit) {
		v.Gate.Pass()
		v.saved()
		v.whoami()
	},
	"POST /slow": func(v *Visit) {
		visits := v.count()
		v.Gate.Pass()
		v.saved()
		v.answer(strconv.Itoa(visits))
	},
}

func (v *Visit) count() int {
	visits, _ := v.Session.Values["visits"].(int)
	v.Session.Values["visits"] = visits + 1
	return visits + 1
}

func (v *Visit) saved() {
	if err := v.Save(); err != nil && !errors.Is(err, pgsession.ErrRevoked) {
		v.answered = true
		v.Write(http.StatusServiceUnavailable, "try again later")
	}
}

func (v *Visit) whoami() {
	user, _ := v.Session.Values["user"].(string)
	if user == "" {
		user = "nobody"
	}
	v.answer(user)
}

func (v *Visit) answer(text string) {
	if !v.answered {
		v.answered = true
		v.Write(http.StatusOK, text)
	}
}
