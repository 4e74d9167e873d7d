package pgsession

import (
	"bytes"
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
	Version   int           `json:"v"`
	Changed   []idOfVersion `json:"changed"`
	Destroyed []idOfVersion `json:"destroyed"`
	Revoked   []idOfVersion `json:"revoked"`
	Unknown   []ID          `json:"unknown"`
	Subject   string        `json:"subject"`
	Except    []ID          `json:"except"` // of Subject
	Cleared   bool          `json:"cleared"`
	Beat      string        `json:"beat"`
	subject   SubjectHash
}

// idOfVersion is ["id",version] in a payload.
type idOfVersion struct {
	id      ID
	version int64
}

func (v *idOfVersion) UnmarshalJSON(b []byte) error {
	var pair []json.RawMessage
	err := json.Unmarshal(b, &pair)
	if err == nil && len(pair) != 2 {
		err = errors.New("not a pair of an id and a version")
	}
	if err == nil {
		err = json.Unmarshal(pair[0], &v.id)
	}
	if err == nil {
		err = json.Unmarshal(pair[1], &v.version)
	}
	return err
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
	if len(p.Changed)+len(p.Destroyed)+len(p.Revoked)+len(p.Unknown)+len(p.Subject)+len(p.Beat) == 0 && !p.Cleared {
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

// entriesArg is the argument of the notify function: versions, and null for ids in doubt.
func entriesArg(changed []idOfVersion, doubtful []ID) string {
	var b bytes.Buffer
	entry := func(id ID, version any) {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		pair, _ := json.Marshal([]any{id, version}) // strings and numbers: cannot fail
		b.Write(pair)
	}
	for _, c := range changed {
		entry(c.id, c.version)
	}
	for _, id := range doubtful {
		entry(id, nil)
	}
	return "[" + b.String() + "]"
}
