package pgsession

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"unicode/utf8"
)

// Token is the secret that the client holds, in a cookie as a rule: who has it has the session. It
// is never stored, logged or sent to the database; only its hash is, the [ID]. Printing a Token, by
// fmt, slog or JSON, shows "[redacted]"; for the cookie convert it: string(token). (Package fmt calls
// no methods for the verb %w without an error, which go vet finds, nor in unexported fields.)
//
// Tokens that the store makes are 32 bytes from crypto/rand in base64url, 43 characters. Any other
// non-empty string of up to 1,024 bytes is accepted, for applications that bring their own; it must
// carry 128 bits of randomness at least (OWASP ASVS 5.0, 7.2.3).
type Token string

// ID is the key of a session in the database: the hash of its token, keyed where Config.Peppers are
// given. It is safe to show, to log and to notify: it does not lead back to the token, and is nowhere
// accepted in a token's place.
type ID string

const (
	maxTokenLength   = 1024
	maxIDLength      = 256
	maxSubjectLength = 1024

	redacted = "[redacted]"
)

// String returns "[redacted]".
func (t Token) String() string { return redacted }

// Format implements [fmt.Formatter]: every verb prints "[redacted]".
func (t Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue implements [slog.LogValuer].
func (t Token) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements [encoding.TextMarshaler], and so covers JSON.
func (t Token) MarshalText() ([]byte, error) { return []byte(redacted), nil }

func newToken() Token {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the program instead
	return Token(base64.RawURLEncoding.EncodeToString(b[:]))
}

// id returns the id that a new session of a token has.
func (c *core) id(token Token) (ID, error) {
	if err := validateToken(token); err != nil {
		return "", err
	}
	return c.idBy(0, token)
}

// ids returns the ids that a token's session may have: one by each of Config.Peppers.
func (c *core) ids(token Token) ([]ID, error) {
	if err := validateToken(token); err != nil {
		return nil, err
	}
	ids := make([]ID, c.cfg.hashes())
	for i := range ids {
		var err error
		if ids[i], err = c.idBy(i, token); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// hashes is in how many ways a token is hashed.
func (c *config) hashes() int { return max(1, len(c.peppers)) }

func (c *config) pepper(i int) *pepper {
	if c.peppers == nil {
		return nil
	}
	return c.peppers[i]
}

// idBy returns the id of a token by the i-th of Config.Peppers.
func (c *core) idBy(i int, token Token) (ID, error) {
	if c.cfg.KeyFunc == nil {
		var sum [sha256.Size]byte
		c.cfg.pepper(i).hash(token, &sum)
		var b [43]byte
		base64.RawURLEncoding.Encode(b[:], sum[:])
		return ID(b[:]), nil
	}
	id := ID(c.cfg.KeyFunc(string(token)))
	if string(id) == string(token) {
		return "", fmt.Errorf("%w: Config.KeyFunc returned the token itself; it must be one-way", ErrInvalid)
	}
	if err := validateID(id); err != nil {
		return "", fmt.Errorf("Config.KeyFunc: %w", err)
	}
	return id, nil
}

func validateToken(token Token) error {
	if token == "" {
		return fmt.Errorf("%w: it is empty", ErrInvalidToken)
	}
	if len(token) > maxTokenLength {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrInvalidToken, len(token), maxTokenLength)
	}
	return nil
}

// byToken calls f with each id that the session of a token may have, until one is not ErrNotFound, and
// wraps its error. While peppers are rotated a session keeps the id that it has: it is found by the one
// or by the other, and what is new has the first.
func (s *sessions) byToken(op string, token Token, f func(id ID) error) error {
	err := validateToken(token)
	if err != nil {
		return &Error{Op: op, Err: err}
	}
	var first ID
	var callers callersError
	for i := range s.store.cfg.hashes() {
		id, hashErr := s.store.idBy(i, token)
		if hashErr != nil {
			return &Error{Op: op, Err: hashErr}
		}
		if i == 0 {
			first = id
		}
		if err = f(id); err == nil {
			return nil
		} else if errors.As(err, &callers) {
			return &Error{Op: op, ID: id, Err: callers.error}
		} else if !errors.Is(err, ErrNotFound) {
			return &Error{Op: op, ID: id, Err: err}
		}
	}
	return &Error{Op: op, ID: first, Err: err}
}

// callersError is what a function of the caller's returned, whatever it is: it may be ErrNotFound, of
// something else.
type callersError struct{ error }

func validateID(id ID) error {
	return validateText("id", string(id), maxIDLength)
}

func validateSubject(subject string) error {
	if subject == "" {
		return nil
	}
	return validateText("subject", subject, maxSubjectLength)
}

// validateText says whether PostgreSQL's type text can hold s, and an index entry too.
func validateText(what, s string, limit int) error {
	switch {
	case s == "":
		return fmt.Errorf("%w: %s is empty", ErrInvalid, what)
	case len(s) > limit:
		return fmt.Errorf("%w: %s has %d bytes, at most %d", ErrInvalid, what, len(s), limit)
	case strings.IndexByte(s, 0) >= 0:
		return fmt.Errorf("%w: %s contains a NUL byte", ErrInvalid, what)
	case !utf8.ValidString(s):
		return fmt.Errorf("%w: %s is not valid UTF-8", ErrInvalid, what)
	}
	return nil
}
