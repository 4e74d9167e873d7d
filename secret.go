package pgsession

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"sync"
	"unsafe"
)

// Secret is a key. Printing one, by fmt, slog or JSON, shows "[redacted]".
type Secret []byte

// String returns "[redacted]".
func (s Secret) String() string { return redacted }

// Format implements [fmt.Formatter]: every verb prints "[redacted]".
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue implements [slog.LogValuer].
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements [encoding.TextMarshaler], and so covers JSON.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// NoPepper stands in Config.Peppers for the hash without a key: for the sessions from before there was
// a pepper, and, in the first place, for instances that are to know the pepper but not to use it yet.
var NoPepper = Secret("no pepper")

const (
	minPepperLength = 32
	// maxPeppers bounds what a token that is nobody's costs: a lookup for each.
	maxPeppers = 8
)

// resolvePeppers checks the peppers and makes them ready; nil where there are none.
func resolvePeppers(secrets []Secret, keyFunc func(string) string) ([]*pepper, error) {
	switch {
	case len(secrets) > 0 && keyFunc != nil:
		return nil, fmt.Errorf("%w: Config.Peppers beside Config.KeyFunc, which hashes tokens without them", ErrInvalid)
	case len(secrets) > maxPeppers:
		return nil, fmt.Errorf("%w: Config.Peppers has %d, at most %d", ErrInvalid, len(secrets), maxPeppers)
	}
	var peppers []*pepper
	for i, secret := range secrets {
		for j := range i {
			if bytes.Equal(secrets[j], secret) {
				return nil, fmt.Errorf("%w: Config.Peppers: number %d is number %d again", ErrInvalid, i, j)
			}
		}
		none := bytes.Equal(secret, NoPepper)
		if !none && len(secret) < minPepperLength {
			// An empty one is a variable that was not set, and would hash without a key, unnoticed.
			return nil, fmt.Errorf("%w: Config.Peppers: number %d has %d bytes; at least %d",
				ErrInvalid, i, len(secret), minPepperLength)
		}
		var p *pepper
		if !none {
			p = newPepper(secret)
		}
		peppers = append(peppers, p)
	}
	return peppers, nil
}

// pepper hashes tokens by HMAC-SHA-256 under one key. A nil one hashes without.
type pepper struct{ macs sync.Pool }

// mac is the state of one hashing. All that escapes is in it, so that a hash costs no allocation.
type mac struct {
	hash hash.Hash
	sum  []byte
}

func newPepper(secret Secret) *pepper {
	secret = bytes.Clone(secret)
	p := new(pepper)
	p.macs.New = func() any { return &mac{hash: hmac.New(sha256.New, secret)} }
	return p
}

// hash hashes a token into sum.
func (p *pepper) hash(token Token, sum *[sha256.Size]byte) {
	// Not a copy, which would cost every hit a twentieth and leave secrets about: a hash only reads it.
	secret := unsafe.Slice(unsafe.StringData(string(token)), len(token))
	if p == nil {
		*sum = sha256.Sum256(secret)
		return
	}
	m := p.macs.Get().(*mac)
	m.hash.Reset()
	_, _ = m.hash.Write(secret) // never fails
	m.sum = m.hash.Sum(m.sum[:0])
	copy(sum[:], m.sum)
	p.macs.Put(m)
}
