package pgsession

import (
	"encoding/json"
	"errors"
	"fmt"
)

// The codecs that are always known.
const (
	// CodecOpaque stores the bytes as they are.
	CodecOpaque int16 = 0
	// CodecJSON stores the bytes as they are, having checked that they are JSON. The view shows such
	// data decoded.
	CodecJSON int16 = 1
	// CodecEncrypted is that of [Encrypt].
	CodecEncrypted int16 = 2
)

// Codec codes session data at rest: encrypts it, compresses it. The number of the codec is kept
// with each row, so that a change of Config.Codec breaks no session: rows of the codec before are
// read by it as long as it stands in Config.Decoders.
//
// What is coded may depend on the session's id: Renew, which changes that, decodes and encodes the data
// anew.
//
// Implementations are called by many goroutines at once. They must not keep or change the slices
// that they are given.
type Codec interface {
	// Number identifies the codec in the table, for ever. 0 to 99 are pgsession's.
	Number() int16
	// Encode returns what shall be stored. It should give the same bytes for the same data where it
	// can: a Set that changes nothing is then a touch.
	Encode(id ID, data []byte) ([]byte, error)
	// Decode undoes Encode. More than 1 GiB is an error.
	Decode(id ID, stored []byte) ([]byte, error)
}

// maxDecoded is as much as PostgreSQL holds in a value.
const maxDecoded = 1 << 30

type opaqueCodec struct{}

func (opaqueCodec) Number() int16                              { return CodecOpaque }
func (opaqueCodec) Encode(_ ID, data []byte) ([]byte, error)   { return data, nil }
func (opaqueCodec) Decode(_ ID, stored []byte) ([]byte, error) { return stored, nil }

type jsonCodec struct{}

func (jsonCodec) Number() int16 { return CodecJSON }

func (jsonCodec) Encode(_ ID, data []byte) ([]byte, error) {
	if !json.Valid(data) {
		return nil, errors.New("data is not valid JSON")
	}
	return data, nil
}

// Decode does not look: what PostgreSQL holds was checked when it was written, and the reader's
// own decoder says more about what is wrong than "invalid" would.
func (jsonCodec) Decode(_ ID, stored []byte) ([]byte, error) { return stored, nil }

// resolveCodecs returns every known codec by its number.
func resolveCodecs(of string, codec Codec, decoders []Codec) (map[int16]Codec, error) {
	codecs := map[int16]Codec{CodecOpaque: opaqueCodec{}, CodecJSON: jsonCodec{}}
	if codec != nil {
		decoders = append([]Codec{codec}, decoders...)
	}
	for i, d := range decoders {
		field := of + ".Decoders"
		if i == 0 && codec != nil {
			field = of + ".Codec"
		}
		if d == nil {
			return nil, fmt.Errorf("%w: %s has a nil codec", ErrInvalid, field)
		}
		n := d.Number()
		if _, own := d.(*encrypted); n < 100 && !own {
			return nil, fmt.Errorf("%w: %s: %T has the number %d; its own are from 100 on", ErrInvalid, field, d, n)
		}
		if codecs[n] != nil {
			return nil, fmt.Errorf("%w: %s: another codec has the number %d of %T", ErrInvalid, field, n, d)
		}
		codecs[n] = d
	}
	return codecs, nil
}

// encode codes data for storage and says with which codec.
func (c *config) encode(id ID, number int16, data []byte) (stored []byte, codec int16, err error) {
	stored, codec, err = c.encodeAgain(id, number, data)
	if err == nil && len(stored) > c.MaxDataSize {
		err = fmt.Errorf("%w: %d bytes, Config.MaxDataSize is %d", ErrTooLarge, len(stored), c.MaxDataSize)
	}
	return stored, codec, err
}

// encodeAgain codes what is stored already: that it has become too large since must not hold up a login.
func (c *config) encodeAgain(id ID, number int16, data []byte) (stored []byte, codec int16, err error) {
	use := c.Codec
	if use == nil {
		if use = c.codecs[number]; use == nil {
			return nil, 0, fmt.Errorf("%w: codec %d is not in Config.Decoders", ErrCodec, number)
		}
	}
	if stored, err = use.Encode(id, data); err != nil {
		return nil, 0, fmt.Errorf("%w: codec %d, encoding: %w", ErrCodec, use.Number(), err)
	}
	if stored == nil {
		stored = []byte{} // nil would be NULL
	}
	return stored, use.Number(), nil
}

// inClear says whether a codec stores data as it is.
func inClear(number int16) bool { return number == CodecOpaque || number == CodecJSON }

func (c *config) decode(id ID, number int16, stored []byte) ([]byte, error) {
	if c.RefuseClear && inClear(number) {
		return nil, fmt.Errorf("%w: codec %d is in clear, and Config.RefuseClear is set", ErrCodec, number)
	}
	use := c.codecs[number]
	if use == nil {
		return nil, fmt.Errorf("%w: codec %d is not in Config.Decoders", ErrCodec, number)
	}
	data, err := use.Decode(id, stored)
	if err != nil {
		return nil, fmt.Errorf("%w: codec %d, decoding: %w", ErrCodec, number, err)
	}
	if len(data) > maxDecoded {
		return nil, fmt.Errorf("%w: codec %d, decoding: %d bytes, at most %d", ErrCodec, number, len(data), maxDecoded)
	}
	return data, nil
}
