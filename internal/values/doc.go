// Package values codes what session frameworks keep, maps from names to values of any type, such that
// the same values give the same bytes.
//
// Gob, which the frameworks use, does not: it writes a map in the order of its iteration, and numbers
// types in the order in which a process meets them. A request that changed nothing would then look
// like one that did. Here builtin types, [time.Time], and slices and maps of them and of any are coded
// in a form of our own, maps in the order of their coded keys. It needs no registration, and is the
// same in every process. Other types, those that an application declares, are left to gob, which
// needs them registered as the frameworks do; [Canonical] tells whether there are any.
//
// The form is
//
//	0x00 'v' flags, length and bytes of the prefix, value
//
// No gob stream begins with a zero byte, nor does any JSON. A value is a type and a body; see the
// letters below.
//
// The adapters are modules of their own, and released ones are built with this package of other versions of the root,
// older and younger, as what one of them wrote is read by another: what is here, in Go and in the form, keeps its
// meaning, and is only added to.
package values

import (
	"bytes"
	"errors"
	"reflect"
)

// magic is how coded values begin.
const magic = "\x00v"

// Flags of the third byte. One that is not known here is an error.
const flagGob byte = 1

// maxDepth bounds how deep values are nested: a map that holds itself would overflow the stack, which
// no caller can recover from.
const maxDepth = 1000

var (
	errTruncated = errors.New("values: the data is cut off")
	errForeign   = errors.New("values: the data is not of this package")
	errDepth     = errors.New("values: nested more than 1,000 deep, or in itself")
)

// Marshal codes a value. The prefix is the caller's: [Prefix] finds it without decoding the value.
func Marshal(prefix []byte, value any) ([]byte, error) {
	e := encoder{b: make([]byte, 0, 512)}
	e.b = append(e.b, magic...)
	e.b = append(e.b, 0)
	e.bytes(prefix)
	if err := e.any(value, 0); err != nil {
		return nil, err
	}
	if e.gob {
		e.b[len(magic)] = flagGob
	}
	return e.b, nil
}

// Unmarshal undoes [Marshal]. Nothing in the result refers to data.
func Unmarshal(data []byte) (prefix []byte, value any, err error) {
	d, prefix, err := begin(data)
	if err != nil {
		return nil, nil, err
	}
	if value, err = d.any(0); err != nil {
		return nil, nil, err
	}
	if len(d.b) > 0 {
		return nil, nil, errors.New("values: there is something after the end")
	}
	return bytes.Clone(prefix), value, nil
}

// Is says whether data was coded by [Marshal], as far as its beginning tells.
func Is(data []byte) bool { return bytes.HasPrefix(data, []byte(magic)) }

// Prefix returns the prefix that Marshal was given, as a part of data; nil if there is none.
func Prefix(data []byte) []byte {
	_, prefix, err := begin(data)
	if err != nil {
		return nil
	}
	return prefix
}

// Canonical says whether every coding of the same value gives the bytes of data: whether Marshal made
// it and needed no gob.
func Canonical(data []byte) bool {
	return Is(data) && len(data) > len(magic) && data[len(magic)]&flagGob == 0
}

// Equal says whether two codings by any codec are of the same content. They are decoded only where
// their bytes differ and one of them is not canonical; data that cannot be decoded equals no other.
func Equal[T any](a, b []byte, decode func([]byte) (T, error)) bool {
	if bytes.Equal(a, b) {
		return true
	}
	if Canonical(a) && Canonical(b) {
		return false
	}
	valueA, errA := decode(a)
	valueB, errB := decode(b)
	return errA == nil && errB == nil && reflect.DeepEqual(valueA, valueB)
}

// begin reads what stands before the value.
func begin(data []byte) (decoder, []byte, error) {
	if !Is(data) {
		return decoder{}, nil, errForeign
	}
	d := decoder{b: data[len(magic):]}
	flags, err := d.byte()
	if err != nil {
		return d, nil, err
	}
	if flags&^flagGob != 0 {
		return d, nil, errors.New("values: the data is of a later version")
	}
	prefix, err := d.bytes()
	return d, prefix, err
}
