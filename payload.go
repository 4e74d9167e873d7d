package pgsession

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/pgsession/pgsession/internal/cache"
)

// payloadVersion is the "v" of every payload. The README has the format.
const payloadVersion = 1

// payload is what one notification says.
type payload struct {
	Version   int      `json:"v"`
	Changed   versions `json:"changed"`
	Destroyed versions `json:"destroyed"`
	Revoked   versions `json:"revoked"`
	Renewed   versions `json:"renewed"`
	Subject   string   `json:"subject"`
	Except    []ID     `json:"except"` // of Subject
	Cleared   bool     `json:"cleared"`
	Beat      string   `json:"beat"`
	subject   SubjectHash
}

// versions are sessions and the versions that they have now; 0: they may have changed.
type versions map[ID]int64

// json is an object.
func (v versions) json() string {
	text, _ := json.Marshal(v) // strings and numbers: cannot fail
	return string(text)
}

// arg is the notify function's argument: null stands for all sessions.
func (v versions) arg() any {
	if v == nil {
		return nil
	}
	return v.json()
}

// newest is the highest of the versions.
func (v versions) newest() (newest int64) {
	for _, version := range v {
		newest = max(newest, version)
	}
	return newest
}

// some returns n of them at most.
func (v versions) some(n int) versions {
	if len(v) <= n {
		return v
	}
	some := make(versions, n)
	for id, version := range v {
		if len(some) == n {
			break
		}
		some[id] = version
	}
	return some
}

// without returns those that are not among the others, which are some of them.
func (v versions) without(others versions) versions {
	if len(others) == len(v) {
		return nil
	}
	for id := range others {
		delete(v, id)
	}
	return v
}

// parsePayload refuses everything that it does not know whole: what a newer version says of a
// session might be that it has changed.
func parsePayload(text string) (*payload, error) {
	var p payload
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&p); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows")
	}
	if p.Version != payloadVersion {
		return nil, fmt.Errorf("version %d", p.Version)
	}
	if p.Subject != "" {
		sum, err := hex.DecodeString(p.Subject)
		if err != nil || len(sum) != 8 {
			return nil, errors.New("the subject is no hash")
		}
		p.subject = SubjectHash(binary.BigEndian.Uint64(sum))
	}
	for _, sessions := range []versions{p.Changed, p.Destroyed, p.Revoked, p.Renewed} {
		for id, version := range sessions {
			if version < 0 {
				return nil, fmt.Errorf("%q has the version %d", id, version)
			}
		}
	}
	says := len(p.Changed) + len(p.Destroyed) + len(p.Revoked) + len(p.Renewed) + len(p.Subject) + len(p.Beat)
	if says == 0 && !p.Cleared {
		return nil, errors.New("it says nothing")
	}
	return &p, nil
}

// SubjectHash stands for a subject in notifications, which everyone in the database can hear: the
// first 8 bytes of the subject's SHA-256.
type SubjectHash uint64

// HashSubject returns a subject's hash; 0 for none.
func HashSubject(subject string) SubjectHash {
	if subject == "" {
		return 0
	}
	sum := sha256.Sum256([]byte(subject))
	return SubjectHash(binary.BigEndian.Uint64(sum[:]))
}

// String returns the 16 hexadecimal digits that a notification has.
func (h SubjectHash) String() string { return fmt.Sprintf("%016x", uint64(h)) }

// subjectHash is whom a session belongs to, to the cache: 0 is nobody.
func subjectHash(subject string) cache.Subject { return cache.Subject(HashSubject(subject)) }

// serverIdentity is a server's start time as the cache compares it; "" for the zero time.
func serverIdentity(started time.Time) string {
	if started.IsZero() {
		return ""
	}
	return started.UTC().Format(time.RFC3339Nano)
}

// cacheKey is the session's in the cache: the token's SHA-256, which its id is unless a KeyFunc made
// that or another program did.
func cacheKey(id ID) cache.Key {
	var key cache.Key
	if len(id) == base64.RawURLEncoding.EncodedLen(len(key)) {
		b, err := base64.RawURLEncoding.Strict().AppendDecode(nil, []byte(id))
		if err == nil {
			return cache.Key(b)
		}
	}
	return sha256.Sum256([]byte(id))
}

func cacheKeys(ids []ID) []cache.Key {
	keys := make([]cache.Key, len(ids))
	for i, id := range ids {
		keys[i] = cacheKey(id)
	}
	return keys
}

// channel is where the functions notify; sql/install.sql computes it alike. It is readable where
// nothing else can have that name. A hashed one has no dot.
func (c *config) channel() string {
	name := c.Schema + "." + c.Table
	if len(name) <= maxIdentifierLength && strings.Count(name, ".") == 1 {
		return name
	}
	sum := sha256.Sum256([]byte(quoteIdentifier(c.Schema) + "." + quoteIdentifier(c.Table)))
	return "pgsession_" + hex.EncodeToString(sum[:16])
}
