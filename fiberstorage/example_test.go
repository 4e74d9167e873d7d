package fiberstorage_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/session"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/fiberstorage"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// Who reads the package's documentation pastes its call.
func TestTheDocumentedSetupIsTheExamples(t *testing.T) {
	t.Parallel()
	calls := map[string]string{}
	for name, prefix := range map[string]string{"storage.go": "//\t", "example_test.go": "\t"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, call, _ := strings.Cut(string(text), "\n"+prefix+"app.Use(session.New(")
		call, _, ended := strings.Cut(call, "\n"+prefix+"}))\n")
		if !ended {
			t.Fatalf("%s has no such call", name)
		}
		calls[name] = strings.ReplaceAll(call, "\n"+prefix, "\n")
	}
	if calls["storage.go"] != calls["example_test.go"] {
		t.Errorf("they differ: %q", calls)
	}
}

func ExampleSessions() {
	ctx := context.Background()
	store, err := pgsession.Open(ctx, pgtest.ExampleURL(), pgsession.Config{
		Schema: "fiber_example", Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	if err := store.Setup(ctx); err != nil {
		log.Fatal(err)
	}
	storage, err := fiberstorage.Sessions(store, fiberstorage.Options{})
	if err != nil {
		log.Fatal(err)
	}
	app := fiber.New()
	app.Use(session.New(session.Config{
		Storage: storage, KeyGenerator: rand.Text,
		CookieHTTPOnly: true, CookieSecure: true, CookiePath: "/",
	}))
	app.Get("/login", func(c fiber.Ctx) error {
		session.FromContext(c).Set("user", "ada")
		return c.SendString("hello, ada")
	})

	response, err := app.Test(httptest.NewRequestWithContext(ctx, http.MethodGet, "/login", nil))
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	for _, cookie := range response.Cookies() {
		fmt.Println("HttpOnly:", cookie.HttpOnly, "Secure:", cookie.Secure, "Path:", cookie.Path)
	}
	// Output: HttpOnly: true Secure: true Path: /
}
