package postgres

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// WithDatabase returns serverURL, a connection string in either of libpq's forms, with its database
// replaced.
func WithDatabase(serverURL, database string) (string, error) {
	return edit(serverURL, map[string]string{"dbname": database}, func(u *url.URL) {
		u.Path = "/" + database
	})
}

// WithUser returns serverURL with its user and password replaced. An empty password is left out.
func WithUser(serverURL, user, password string) (string, error) {
	return edit(serverURL, map[string]string{"user": user, "password": password}, func(u *url.URL) {
		u.User = url.User(user)
		if password != "" {
			u.User = url.UserPassword(user, password)
		}
	})
}

// WithAddress returns serverURL with its host and port replaced by address, such as that of a
// [Proxy].
func WithAddress(serverURL, address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("postgres: %w", err)
	}
	return edit(serverURL, map[string]string{"host": host, "port": port}, func(u *url.URL) {
		u.Host = address
	})
}

// withParameter returns serverURL with one parameter set, such as sslmode.
func withParameter(serverURL, name, value string) (string, error) {
	return edit(serverURL, map[string]string{name: value}, func(u *url.URL) {
		query := u.Query()
		query.Set(name, value)
		u.RawQuery = query.Encode()
	})
}

// edit changes a URL by change, or a keyword/value string by appending settings, the last of which
// wins. In a URL settings are deleted from its query, since there they would override the rest.
func edit(serverURL string, settings map[string]string, change func(*url.URL)) (string, error) {
	if !strings.HasPrefix(serverURL, "postgres://") && !strings.HasPrefix(serverURL, "postgresql://") {
		var b strings.Builder
		b.WriteString(serverURL)
		for name, value := range settings {
			value = strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value)
			fmt.Fprintf(&b, " %s='%s'", name, value)
		}
		return strings.TrimPrefix(b.String(), " "), nil
	}
	u, err := url.Parse(serverURL)
	if err != nil {
		// url.Error quotes what it could not parse, password and all.
		return "", errors.New("postgres: the connection string is not a URL")
	}
	query := u.Query()
	for name := range settings {
		query.Del(name)
	}
	u.RawQuery = query.Encode()
	change(u)
	return u.String(), nil
}

// randomHex returns eight random hexadecimal digits: enough to keep names apart on one server.
func randomHex() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b[:])
}
