package main_test

import (
	"net/http"
	"testing"

	"github.com/pgsession/pgsession/examples/internal/program"
	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/webtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// TestProgram runs the program as a process, and visits it as a browser does.
func TestProgram(t *testing.T) {
	t.Parallel()
	path, database := program.Build(t), pgtest.Database(t)
	key := "SESSION_KEY=0123456789abcdef0123456789abcdef"
	server := program.Start(t, path, database, key)
	ada := webtest.NewBrowser(t)
	ada.Want(http.MethodGet, server.URL+"/", "visit 1 of nobody\n")
	attacker := ada.Copy(server.URL)
	ada.Want(http.MethodPost, server.URL+"/login", "logged in\n")
	ada.Want(http.MethodGet, server.URL+"/", "visit 2 of ada\n")
	attacker.Want(http.MethodGet, server.URL+"/", "visit 1 of nobody\n")

	server.Stop(t)
	server = program.Start(t, path, database, key)
	ada.Want(http.MethodGet, server.URL+"/", "visit 3 of ada\n")
	thief := ada.Copy(server.URL)
	ada.Want(http.MethodPost, server.URL+"/logout", "logged out\n")
	thief.Want(http.MethodGet, server.URL+"/", "visit 1 of nobody\n")
	ada.Want(http.MethodGet, server.URL+"/", "visit 1 of nobody\n")
	server.Stop(t)
}
