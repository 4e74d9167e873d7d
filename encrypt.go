package pgsession

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

// Key is a key of [Encryption].
type Key struct {
	// ID names the key in each row and in errors, 1 to 32 bytes of UTF-8. It is not secret. Never give
	// another key the ID of one that was used.
	ID string
	// Secret is the key: 32 random bytes, as of `openssl rand 32`. A password is none.
	Secret Secret
}

// Encryption configures [Encrypt].
type Encryption struct {
	// Keys: the first one encrypts, all of them decrypt. For a change deploy twice: with the new key last,
	// so that all instances know it, and then with it first. A session goes over to it with its next
	// change, or [Sessions.Renew]. What is left out makes the sessions that still need it ErrCodec.
	Keys []Key

	// Codec codes the data before it is encrypted: compresses it, which nothing can afterwards. The size of
	// what is compressed shows, and with it something of the data, where a visitor determines a part of it.
	//
	// Defaults to nil: data is encrypted as it is.
	Codec Codec

	// Decoders are codecs that were Encryption.Codec once.
	//
	// Defaults to none.
	Decoders []Codec
}

// What is stored: the format, the number of the inner codec (two bytes, big endian), the length of the
// key's id and the id; a nonce of 12 bytes, the ciphertext, a tag of 16. All before the nonce, and then
// the session's id, is the associated data. The README has it, for other languages.
const (
	encryptedFormat = 1
	encryptedHead   = 1 + 2 + 1 // and the key's id
	maxKeyIDLength  = 32
	keyLength       = 32
)

// Encrypt returns a codec for Config.Codec, of the number [CodecEncrypted], that encrypts data by
// AES-256-GCM. The session's id is authenticated with it: who can write to the table can neither make
// data up nor give one session another's. But he can put back data that the session had before, and have
// a token of his own stand for another's session, as an old token does after a renewal. Subjects and
// promoted columns are neither encrypted nor authenticated, and what the cache holds in memory is in clear.
//
// Data that was stored in clear before is still read, until Config.RefuseClear is set.
//
// Nonces are random, of 96 bits: encrypt at most 2^32 times under one key (NIST SP 800-38D, 8.3), which
// is every 49 days at 1,000 writes a second. The same data is stored as other bytes each time, so a Set
// or an Update that changes nothing is not a touch, but a write that all instances hear of: where
// nothing has changed call Touch. It takes 32 bytes more, and those of the key's ID.
func Encrypt(e Encryption) (Codec, error) {
	if len(e.Keys) == 0 {
		return nil, fmt.Errorf("%w: Encryption.Keys is empty", ErrInvalid)
	}
	c := &encrypted{inner: e.Codec, keys: map[string]cipher.AEAD{}}
	for i, key := range e.Keys {
		field := fmt.Sprintf("Encryption.Keys: the key number %d, %q,", i, key.ID)
		switch {
		case key.ID == "" || len(key.ID) > maxKeyIDLength || !utf8.ValidString(key.ID):
			return nil, fmt.Errorf("%w: %s needs an ID of 1 to %d bytes of UTF-8", ErrInvalid, field, maxKeyIDLength)
		case c.keys[key.ID] != nil:
			return nil, fmt.Errorf("%w: %s has the ID of another", ErrInvalid, field)
		case len(key.Secret) != keyLength:
			return nil, fmt.Errorf("%w: %s has a Secret of %d bytes; AES-256 takes %d",
				ErrInvalid, field, len(key.Secret), keyLength)
		}
		block, err := aes.NewCipher(key.Secret)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, field, err)
		}
		if c.keys[key.ID], err = cipher.NewGCMWithRandomNonce(block); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, field, err)
		}
	}
	var err error
	if c.codecs, err = resolveCodecs("Encryption", e.Codec, e.Decoders); err != nil {
		return nil, err
	}
	if c.codecs[CodecEncrypted] != nil {
		return nil, fmt.Errorf("%w: Encryption.Codec or Encryption.Decoders encrypt already", ErrInvalid)
	}
	if c.inner == nil {
		c.inner = opaqueCodec{}
	}
	first := e.Keys[0].ID
	c.head = binary.BigEndian.AppendUint16([]byte{encryptedFormat}, uint16(c.inner.Number()))
	c.head = append(append(c.head, byte(len(first))), first...)
	c.first = c.keys[first]
	return c, nil
}

// encrypted is the codec that Encrypt makes. It never changes.
type encrypted struct {
	inner  Codec
	codecs map[int16]Codec // by which the inner data may be coded
	keys   map[string]cipher.AEAD
	first  cipher.AEAD
	head   []byte // of what first encrypts
}

// Number implements [Codec].
func (c *encrypted) Number() int16 { return CodecEncrypted }

// Encode implements [Codec].
func (c *encrypted) Encode(id ID, data []byte) ([]byte, error) {
	data, err := c.inner.Encode(id, data)
	if err != nil {
		return nil, err
	}
	stored := make([]byte, len(c.head), len(c.head)+len(data)+c.first.Overhead())
	copy(stored, c.head)
	return c.first.Seal(stored, nil, data, associated(c.head, id)), nil
}

// Decode implements [Codec].
func (c *encrypted) Decode(id ID, stored []byte) ([]byte, error) {
	if len(stored) < encryptedHead || stored[0] != encryptedFormat {
		return nil, errors.New("it is not what Encrypt writes, or damaged")
	}
	head := encryptedHead + int(stored[encryptedHead-1])
	if len(stored) < head {
		return nil, errors.New("it is cut off")
	}
	keyID := string(stored[encryptedHead:head])
	key := c.keys[keyID]
	if key == nil {
		return nil, fmt.Errorf("it is encrypted under the key %q, which is not in Encryption.Keys", keyID)
	}
	data, err := key.Open([]byte{}, nil, stored[head:], associated(stored[:head], id))
	if err != nil {
		return nil, fmt.Errorf("the key %q does not fit: another key had this ID, or the data was damaged, "+
			"or is another session's", keyID)
	}
	number := int16(binary.BigEndian.Uint16(stored[1:]))
	inner := c.codecs[number]
	if inner == nil {
		return nil, fmt.Errorf("within it is codec %d, which is not in Encryption.Decoders", number)
	}
	return inner.Decode(id, data)
}

// associated is what is authenticated with the data. The head has its own length.
func associated(head []byte, id ID) []byte { return slices.Concat(head, []byte(id)) }
