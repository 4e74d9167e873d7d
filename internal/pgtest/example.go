package pgtest

import (
	"context"

	"github.com/pgsession/pgsession/internal/postgres"
)

// ExampleURL is [URL] for Example functions, which have no testing.TB to report to: it panics.
func ExampleURL() string {
	server, err := shared.server.get(startShared)
	if err != nil {
		panic(err)
	}
	return server.URL()
}

func startShared() (*postgres.Server, error) {
	// Not a test's context: the server outlives the test that happens to be first.
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	return postgres.Start(ctx, postgres.Options{})
}
