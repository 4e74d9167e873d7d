//go:build unix

package postgres_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgsession/pgsession/internal/postgres"
)

func TestAStandbyFollowsItsServer(t *testing.T) {
	t.Parallel()
	server := private(t, postgres.Options{})
	primary := connect(t, server.URL())
	if _, err := primary.Exec(t.Context(), "create table t as select 'before' as v"); err != nil {
		t.Fatal(err)
	}
	standby, err := server.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Stop(); err != nil {
			t.Error(err)
		}
	})
	replica := connect(t, standby.URL())
	if got := query(t, replica, "select v || pg_is_in_recovery() from t"); got != "beforetrue" {
		t.Errorf("the standby says %s", got)
	}
	primary = connect(t, server.URL()) // it was restarted
	query(t, primary, "update t set v = 'after' returning v")
	eventually(t, "the standby follows", func() bool { return query(t, replica, "select v from t") == "after" })
	_, err = replica.Exec(t.Context(), "listen c")
	if e := new(pgconn.PgError); !errors.As(err, &e) || e.Code != "25006" {
		t.Errorf("LISTEN on a standby: %v", err)
	}
	if err := standby.Restart(t.Context()); err != nil {
		t.Error(err)
	}
	replica = connect(t, standby.URL())
	eventually(t, "the restarted standby follows", func() bool {
		query(t, primary, "update t set v = v || '.' returning v")
		return query(t, replica, "select v from t") != "after"
	})
}

func TestOnlyAServerThatRunsIsCopied(t *testing.T) {
	t.Parallel()
	server := private(t, postgres.Options{})
	if err := server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Standby(t.Context()); err == nil {
		t.Error("a standby was made of a server that is down")
	}
}
