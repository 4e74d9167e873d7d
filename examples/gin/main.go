// Gin keeps the sessions of gin-contrib/sessions on the PostgreSQL that DATABASE_URL names.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log"
	"net/http"
	"os"
	"os/signal"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/ginstore"
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
	store, err := ginstore.New(pg, gorillastore.Config{
		Subject: func(values map[any]any) string { user, _ := values["user"].(string); return user },
	}, key)
	if err != nil {
		log.Fatal(err)
	}

	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	router.Use(sessions.Sessions("session", store), func(c *gin.Context) {
		// gin goes on with an empty session where it could not load one: say so instead.
		if ginstore.LoadError(sessions.Default(c)) != nil {
			c.AbortWithStatus(http.StatusServiceUnavailable)
		}
	})
	// save saves the session and answers, also where it was ended meanwhile.
	save := func(c *gin.Context, format string, values ...any) {
		if err := sessions.Default(c).Save(); err != nil && !errors.Is(err, pgsession.ErrRevoked) {
			c.AbortWithStatus(http.StatusServiceUnavailable)
			return
		}
		c.String(http.StatusOK, format, values...)
	}
	router.GET("/", func(c *gin.Context) {
		session := sessions.Default(c)
		visits, _ := session.Get("visits").(int)
		session.Set("visits", visits+1)
		user, _ := session.Get("user").(string)
		save(c, "visit %d of %s\n", visits+1, cmp.Or(user, "nobody"))
	})
	router.POST("/login", func(c *gin.Context) {
		ginstore.Renew(sessions.Default(c)) // a token that was planted before is worth nothing
		sessions.Default(c).Set("user", "ada")
		switch err := sessions.Default(c).Save(); {
		case errors.Is(err, pgsession.ErrRevoked):
			c.String(http.StatusConflict, "you were logged out meanwhile: log in again\n")
		case err != nil:
			c.AbortWithStatus(http.StatusServiceUnavailable)
		default:
			c.String(http.StatusOK, "logged in\n")
		}
	})
	router.POST("/logout", func(c *gin.Context) {
		sessions.Default(c).Clear()
		save(c, "logged out\n")
	})

	handler := http.NewCrossOriginProtection().Handler(router)
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
