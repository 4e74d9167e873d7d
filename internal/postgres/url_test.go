package postgres_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession/internal/postgres"
)

func TestAConnectionStringIsEditedInEitherForm(t *testing.T) {
	t.Parallel()
	forms := map[string]string{
		"URL":                  "postgres://u:p%40ss@h.test:5555/db?sslmode=disable&application_name=a",
		"URL of another name":  "postgresql://u:p%40ss@h.test:5555/db?sslmode=disable&application_name=a",
		"URL with a query":     "postgres:///?host=h.test&port=5555&dbname=db&user=u&password=p%40ss&sslmode=disable&application_name=a",
		"keywords and values":  "host=h.test port=5555 dbname=db user=u password=p@ss sslmode=disable application_name=a",
		"quoted with an equal": "host='h.test' port=5555 dbname = 'db' user=u password='p@ss' sslmode=disable application_name=a",
	}
	type want struct {
		host                     string
		port                     uint16
		database, user, password string
	}
	edits := map[string]struct {
		edit func(string) (string, error)
		want want
	}{
		"database": {
			func(s string) (string, error) { return postgres.WithDatabase(s, "other") },
			want{"h.test", 5555, "other", "u", "p@ss"},
		},
		"user": {
			func(s string) (string, error) { return postgres.WithUser(s, "me", `it's "\ x`) },
			want{"h.test", 5555, "db", "me", `it's "\ x`},
		},
		"address": {
			func(s string) (string, error) { return postgres.WithAddress(s, "127.0.0.1:6666") },
			want{"127.0.0.1", 6666, "db", "u", "p@ss"},
		},
	}
	for form, connString := range forms {
		for name, c := range edits {
			edited, err := c.edit(connString)
			if err != nil {
				t.Errorf("%s, %s: %v", form, name, err)
				continue
			}
			config, err := pgx.ParseConfig(edited)
			if err != nil {
				t.Errorf("%s, %s: %s: %v", form, name, edited, err)
				continue
			}
			got := want{config.Host, config.Port, config.Database, config.User, config.Password}
			if got != c.want {
				t.Errorf("%s, %s: %s means %+v, want %+v", form, name, edited, got, c.want)
			}
			if config.RuntimeParams["application_name"] != "a" {
				t.Errorf("%s, %s: %s lost application_name", form, name, edited)
			}
		}
	}
}

func TestWhatIsNoConnectionStringIsNotQuoted(t *testing.T) {
	t.Parallel()
	_, err := postgres.WithDatabase("postgres://u:hush-hush@h:port/db", "other")
	if err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("WithDatabase: %v", err)
	}
	if _, err := postgres.WithAddress("postgres://u@h/db", "no port"); err == nil {
		t.Error("WithAddress took an address without a port")
	}
}
