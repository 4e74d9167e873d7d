package values

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"fmt"
	"math"
	"reflect"
	"slices"
	"time"
)

type encoder struct {
	b   []byte
	gob bool // it was needed
}

func (e *encoder) bytes(b []byte) {
	e.b = binary.AppendUvarint(e.b, uint64(len(b)))
	e.b = append(e.b, b...)
}

// any appends a value with its type. What sessions hold most goes without reflection.
func (e *encoder) any(value any, depth int) error {
	switch v := value.(type) {
	case nil:
		e.b = append(e.b, letterNil)
	case string:
		e.b = append(e.b, 's')
		e.b = binary.AppendUvarint(e.b, uint64(len(v)))
		e.b = append(e.b, v...)
	case bool:
		e.b = append(e.b, 'b', 0)
		if v {
			e.b[len(e.b)-1] = 1
		}
	case int:
		e.b = append(e.b, 'i')
		e.b = binary.AppendVarint(e.b, int64(v))
	case int64:
		e.b = append(e.b, 'm')
		e.b = binary.AppendVarint(e.b, v)
	case map[string]any:
		e.b = append(e.b, letterMap, 's', letterAny)
		return e.named(v, depth)
	default:
		r := reflect.ValueOf(value)
		if t := write(r.Type()); t != "" {
			e.b = append(e.b, t...)
			return e.value(r, depth)
		}
		e.gob = true
		e.b = append(e.b, letterGob)
		var stream bytes.Buffer
		if err := gob.NewEncoder(&stream).Encode(&value); err != nil {
			return fmt.Errorf("values: %T: %w", value, err)
		}
		e.bytes(stream.Bytes())
	}
	return nil
}

// named appends the body of the commonest map.
func (e *encoder) named(m map[string]any, depth int) error {
	if depth >= maxDepth {
		return errDepth
	}
	if m == nil {
		e.b = append(e.b, 0)
		return nil
	}
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	e.b = binary.AppendUvarint(e.b, uint64(len(m))+1)
	for _, name := range names {
		e.b = binary.AppendUvarint(e.b, uint64(len(name)))
		e.b = append(e.b, name...)
		if err := e.any(m[name], depth+1); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	return nil
}

// value appends a body of a type that has letters.
func (e *encoder) value(v reflect.Value, depth int) error {
	if depth >= maxDepth {
		return errDepth
	}
	switch v.Type() {
	case typeTime:
		b, err := v.Interface().(time.Time).MarshalBinary()
		if err != nil {
			return fmt.Errorf("values: %w", err)
		}
		e.bytes(b)
		return nil
	case typeBytes:
		if v.IsNil() {
			e.b = append(e.b, 0)
			return nil
		}
		e.b = binary.AppendUvarint(e.b, uint64(v.Len())+1)
		e.b = append(e.b, v.Bytes()...)
		return nil
	}
	switch v.Kind() {
	case reflect.Bool:
		e.b = append(e.b, 0)
		if v.Bool() {
			e.b[len(e.b)-1] = 1
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		e.b = binary.AppendVarint(e.b, v.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		e.b = binary.AppendUvarint(e.b, v.Uint())
	case reflect.Float32, reflect.Float64:
		e.b = binary.LittleEndian.AppendUint64(e.b, math.Float64bits(v.Float()))
	case reflect.Complex64, reflect.Complex128:
		e.b = binary.LittleEndian.AppendUint64(e.b, math.Float64bits(real(v.Complex())))
		e.b = binary.LittleEndian.AppendUint64(e.b, math.Float64bits(imag(v.Complex())))
	case reflect.String:
		e.b = binary.AppendUvarint(e.b, uint64(v.Len()))
		e.b = append(e.b, v.String()...)
	case reflect.Interface:
		return e.any(v.Interface(), depth+1)
	case reflect.Slice:
		if v.IsNil() {
			e.b = append(e.b, 0)
			return nil
		}
		e.b = binary.AppendUvarint(e.b, uint64(v.Len())+1)
		for i := range v.Len() {
			if err := e.value(v.Index(i), depth+1); err != nil {
				return err
			}
		}
	case reflect.Map:
		return e.mapping(v, depth)
	}
	return nil
}

// mapping appends a map's body, in the order of its coded keys.
func (e *encoder) mapping(v reflect.Value, depth int) error {
	if v.IsNil() {
		e.b = append(e.b, 0)
		return nil
	}
	type entry struct {
		key  []byte
		elem reflect.Value
	}
	entries := make([]entry, 0, v.Len())
	for it := v.MapRange(); it.Next(); {
		keys := encoder{}
		if err := keys.value(it.Key(), depth+1); err != nil {
			return err
		}
		e.gob = e.gob || keys.gob
		entries = append(entries, entry{keys.b, it.Value()})
	}
	slices.SortFunc(entries, func(a, b entry) int { return bytes.Compare(a.key, b.key) })
	e.b = binary.AppendUvarint(e.b, uint64(v.Len())+1)
	for _, entry := range entries {
		e.b = append(e.b, entry.key...)
		if err := e.value(entry.elem, depth+1); err != nil {
			return err
		}
	}
	return nil
}
