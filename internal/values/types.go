package values

import (
	"fmt"
	"reflect"
	"sync"
	"time"
)

// How types are written: a letter, and after letterSlice and letterMap those of what they hold. They
// are in the database: a letter never changes its meaning.
const (
	letterNil   = 'n' // no type: the value nil
	letterGob   = 'g' // any type that has no letters: a gob stream of an interface value
	letterAny   = '*'
	letterSlice = '['
	letterMap   = '{'
)

var letters = map[byte]reflect.Type{
	'b': reflect.TypeFor[bool](),
	'i': reflect.TypeFor[int](),
	'j': reflect.TypeFor[int8](),
	'k': reflect.TypeFor[int16](),
	'l': reflect.TypeFor[int32](),
	'm': reflect.TypeFor[int64](),
	'u': reflect.TypeFor[uint](),
	'v': reflect.TypeFor[uint8](),
	'w': reflect.TypeFor[uint16](),
	'x': reflect.TypeFor[uint32](),
	'y': reflect.TypeFor[uint64](),
	'f': reflect.TypeFor[float32](),
	'd': reflect.TypeFor[float64](),
	'c': reflect.TypeFor[complex64](),
	'z': reflect.TypeFor[complex128](),
	's': reflect.TypeFor[string](),
	't': reflect.TypeFor[time.Time](),
	'B': reflect.TypeFor[[]byte](),
	'*': reflect.TypeFor[any](),
}

var (
	typeTime  = reflect.TypeFor[time.Time]()
	typeBytes = reflect.TypeFor[[]byte]()
)

// letterOf is letters the other way.
var letterOf = func() map[reflect.Type]byte {
	of := make(map[reflect.Type]byte, len(letters))
	for letter, t := range letters {
		of[t] = letter
	}
	return of
}()

// written caches what [write] returns; a program has only so many types.
var written sync.Map // reflect.Type -> string

// write returns a type's letters, or "" if it has none.
func write(t reflect.Type) string {
	if s, ok := written.Load(t); ok {
		return s.(string)
	}
	s := ""
	switch letter, ok := letterOf[t]; {
	case ok:
		s = string(letter)
	case t.Name() != "": // a declared type: gob knows it by its name
	case t.Kind() == reflect.Slice:
		if elem := write(t.Elem()); elem != "" {
			s = string(letterSlice) + elem
		}
	case t.Kind() == reflect.Map:
		if key, elem := write(t.Key()), write(t.Elem()); key != "" && elem != "" {
			s = string(letterMap) + key + elem
		}
	}
	written.Store(t, s)
	return s
}

// read reads a type's letters.
func (d *decoder) readType(depth int) (reflect.Type, error) {
	if depth > maxDepth {
		return nil, errDepth
	}
	letter, err := d.byte()
	if err != nil {
		return nil, err
	}
	switch letter {
	case letterSlice:
		elem, err := d.readType(depth + 1)
		if err != nil {
			return nil, err
		}
		return reflect.SliceOf(elem), nil
	case letterMap:
		key, err := d.readType(depth + 1)
		if err != nil {
			return nil, err
		}
		elem, err := d.readType(depth + 1)
		if err != nil {
			return nil, err
		}
		if !key.Comparable() {
			return nil, fmt.Errorf("values: %v cannot be a map's key", key)
		}
		return reflect.MapOf(key, elem), nil
	}
	if t := letters[letter]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("values: no type is written %q", letter)
}
