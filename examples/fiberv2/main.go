// Fiberv2 is gofiber version 2 with its sessions and its rate limiter on PostgreSQL.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/limiter"
	"github.com/gofiber/fiber/v2/middleware/session"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/fiberstorage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()
	store, err := pgsession.New(pool.Query, pgsession.Config{Listen: pgsession.ListenFrom(pool)})
	if err != nil {
		return err
	}
	defer store.Close()
	storage, err := fiberstorage.Sessions(store, fiberstorage.Options{})
	if err != nil {
		return err
	}
	counters, counterStore, err := fiberstorage.KV(pool.Query, pgsession.Config{}, fiberstorage.Options{})
	if err != nil {
		return err
	}
	defer counterStore.Close()
	for _, s := range []*pgsession.Store{store, counterStore} {
		if err := s.Setup(ctx); err != nil {
			return err
		}
	}

	sessions := session.New(session.Config{
		Storage: storage, KeyGenerator: rand.Text, CookieHTTPOnly: true, CookiePath: "/", // and CookieSecure, over HTTPS
	})
	app := fiber.New(fiber.Config{
		DisableStartupMessage: true,
		ErrorHandler: func(c *fiber.Ctx, err error) error { // what failed is not for clients
			if e := new(fiber.Error); errors.As(err, &e) {
				return c.SendStatus(e.Code)
			}
			log.Print(err)
			return c.SendStatus(fiber.StatusServiceUnavailable)
		},
	})
	app.Use(limiter.New(limiter.Config{Storage: counters, Max: 20}))
	// saved calls f with the session and saves it.
	saved := func(f func(*fiber.Ctx, *session.Session) error) fiber.Handler {
		return func(c *fiber.Ctx) error {
			s, err := sessions.Get(c)
			if err != nil {
				return err
			}
			if err := f(c, s); err != nil {
				return err
			}
			err = s.Save()
			if errors.Is(err, pgsession.ErrRevoked) { // the user has logged out meanwhile
				c.Response().Header.DelCookie("session_id")
				return nil
			}
			return err
		}
	}
	app.Get("/", saved(func(c *fiber.Ctx, s *session.Session) error {
		visits, _ := s.Get("visits").(int)
		s.Set("visits", visits+1)
		return c.SendString(fmt.Sprintf("visit %d\n", visits+1))
	}))
	app.Post("/login", saved(func(_ *fiber.Ctx, s *session.Session) error { return s.Regenerate() }))
	app.Post("/logout", func(c *fiber.Ctx) error {
		s, err := sessions.Get(c)
		if err != nil {
			return err
		}
		return s.Destroy()
	})
	done := make(chan error, 1)
	context.AfterFunc(ctx, func() { done <- app.Shutdown() })
	if err := app.Listen(cmp.Or(os.Getenv("ADDR"), "localhost:8080")); err != nil {
		return err
	}
	return <-done // the requests that were under way have ended
}
