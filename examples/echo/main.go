// Echo keeps the sessions of echo's session middleware on the PostgreSQL that DATABASE_URL names.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"

	"github.com/labstack/echo-contrib/v5/session"
	"github.com/labstack/echo/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/gorillastore"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	pg, err := pgsession.Open(ctx, os.Getenv("DATABASE_URL"), pgsession.Config{})
	if err != nil {
		log.Fatal(err)
	}
	if err := pg.Setup(ctx); err != nil {
		log.Fatal(err)
	}
	key := []byte(os.Getenv("SESSION_KEY")) // 32 random bytes; to rotate it put a new pair in front: new, nil, old
	if len(key) == 0 {
		log.Print("SESSION_KEY is not set: cookies are signed with a random key, and worth nothing after a restart")
		key = make([]byte, 32)
		rand.Read(key)
	}
	store, err := gorillastore.New(pg, gorillastore.Config{
		Subject: func(values map[any]any) string { user, _ := values["user"].(string); return user },
	}, key)
	if err != nil {
		log.Fatal(err)
	}

	e := echo.New()
	e.Use(session.Middleware(store))
	// serve answers with what do says of the session, and saves it.
	serve := func(do func(values map[any]any, renew func()) string) echo.HandlerFunc {
		return func(c *echo.Context) error {
			s, _ := session.Get("session", c)
			login := false
			text := do(s.Values, func() { s.ID, login = "", true })
			switch err := s.Save(c.Request(), c.Response()); {
			case errors.Is(err, pgsession.ErrRevoked) && login:
				return c.String(http.StatusConflict, "you were logged out meanwhile: log in again\n")
			case err != nil && !errors.Is(err, pgsession.ErrRevoked): // it was ended meanwhile: the answer stands
				return c.String(http.StatusServiceUnavailable, "try again later\n")
			}
			return c.String(http.StatusOK, text+"\n")
		}
	}
	e.GET("/", serve(func(values map[any]any, _ func()) string {
		visits, _ := values["visits"].(int)
		values["visits"] = visits + 1
		user, _ := values["user"].(string)
		return fmt.Sprintf("visit %d of %s", visits+1, cmp.Or(user, "nobody"))
	}))
	e.POST("/login", serve(func(values map[any]any, renew func()) string {
		renew() // a new token: one that was planted before is worth nothing
		values["user"] = "ada"
		return "logged in"
	}))
	e.POST("/logout", serve(func(values map[any]any, _ func()) string {
		clear(values) // an empty session is ended by its save
		return "logged out"
	}))

	handler := http.NewCrossOriginProtection().Handler(e)
	server := &http.Server{Addr: cmp.Or(os.Getenv("ADDR"), "localhost:8080"), Handler: handler}
	done := make(chan error)
	context.AfterFunc(ctx, func() { stop(); done <- server.Shutdown(context.Background()) })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	if err := errors.Join(<-done, pg.Close()); err != nil {
		log.Fatal(err)
	}
}
