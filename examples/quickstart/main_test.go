package main_test

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"testing"

	"github.com/pgsession/pgsession/internal/pgtest"
	"github.com/pgsession/pgsession/internal/process"
	"github.com/pgsession/pgsession/internal/webtest"
)

func TestMain(m *testing.M) {
	pgtest.Main(process.Tests(m))
}

// TestQuickstart runs the program of the README as a process, and visits it as a browser does.
func TestQuickstart(t *testing.T) {
	t.Parallel()
	program := process.Build(t, ".")
	env := []string{"DATABASE_URL=" + pgtest.Database(t)}
	server := process.Start(t, env, program)

	ada, bob := webtest.NewBrowser(t), webtest.NewBrowser(t)
	first := ada.Want(http.MethodGet, server.URL+"/", "visit 1\n")
	if len(first.Cookies) != 1 {
		t.Fatalf("%d cookies, want 1", len(first.Cookies))
	}
	if c := first.Cookies[0]; !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" {
		t.Errorf("HttpOnly %v, SameSite %v, Path %q, Domain %q", c.HttpOnly, c.SameSite, c.Path, c.Domain)
	}
	ada.Want(http.MethodGet, server.URL+"/", "visit 2\n")
	bob.Want(http.MethodGet, server.URL+"/", "visit 1\n")

	// Sessions outlive the process that made them.
	server.Stop(t)
	server = process.Start(t, env, program)
	ada.Want(http.MethodGet, server.URL+"/", "visit 3\n")

	// What is left of a logout is nothing, for whoever kept the cookie as well.
	thief := ada.Copy(server.URL)
	ada.Want(http.MethodPost, server.URL+"/logout", "logged out\n")
	ada.Want(http.MethodPost, server.URL+"/logout", "logged out\n")
	ada.Want(http.MethodGet, server.URL+"/", "visit 1\n")
	thief.Want(http.MethodGet, server.URL+"/", "visit 1\n")
	bob.Want(http.MethodGet, server.URL+"/", "visit 2\n")

	crossSite, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/logout", nil)
	if err != nil {
		t.Fatal(err)
	}
	crossSite.Header.Set("Sec-Fetch-Site", "cross-site")
	crossSite.AddCookie(&http.Cookie{Name: "session", Value: bob.Cookie(server.URL, "session")})
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(crossSite)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("a logout by another site: status %d, want 403", response.StatusCode)
	}
	bob.Want(http.MethodGet, server.URL+"/", "visit 3\n")
	server.Stop(t)
}

func TestADatabaseThatDoesNotAnswerIsAnError(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(process.Build(t, "."))
	// Port 1 is tcpmux's, where nobody has listened for decades.
	cmd.Env = append(os.Environ(), "DATABASE_URL=postgres://nobody@127.0.0.1:1/nowhere")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !bytes.Contains(out, []byte("127.0.0.1")) {
		t.Errorf("%v, want exit status 1 and the address that does not answer:\n%s", err, out)
	}
}
