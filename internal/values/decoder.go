package values

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"math"
	"reflect"
	"time"
)

// decoder reads from the front of b.
type decoder struct{ b []byte }

func (d *decoder) byte() (byte, error) {
	if len(d.b) == 0 {
		return 0, errTruncated
	}
	b := d.b[0]
	d.b = d.b[1:]
	return b, nil
}

func (d *decoder) take(n uint64) ([]byte, error) {
	if n > uint64(len(d.b)) {
		return nil, errTruncated
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b, nil
}

func (d *decoder) uvarint() (uint64, error) {
	u, n := binary.Uvarint(d.b)
	if n <= 0 {
		return 0, errTruncated
	}
	d.b = d.b[n:]
	return u, nil
}

func (d *decoder) varint() (int64, error) {
	i, n := binary.Varint(d.b)
	if n <= 0 {
		return 0, errTruncated
	}
	d.b = d.b[n:]
	return i, nil
}

func (d *decoder) float() (float64, error) {
	b, err := d.take(8)
	if err != nil {
		return 0, err
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(b)), nil
}

// bytes reads a length and as many bytes, which stay a part of the data.
func (d *decoder) bytes() ([]byte, error) {
	n, err := d.uvarint()
	if err != nil {
		return nil, err
	}
	return d.take(n)
}

// count reads how many elements follow; nil says that there is no slice or map at all. Each element
// takes a byte at least, so that no more is allocated than the data can fill.
func (d *decoder) count() (n int, isNil bool, err error) {
	u, err := d.uvarint()
	switch {
	case err != nil:
		return 0, false, err
	case u == 0:
		return 0, true, nil
	case u-1 > uint64(len(d.b)):
		return 0, false, errTruncated
	}
	return int(u - 1), false, nil
}

// any reads a value with its type.
func (d *decoder) any(depth int) (any, error) {
	if depth >= maxDepth {
		return nil, errDepth
	}
	if len(d.b) == 0 {
		return nil, errTruncated
	}
	switch d.b[0] {
	case letterNil:
		d.b = d.b[1:]
		return nil, nil
	case letterGob:
		d.b = d.b[1:]
		stream, err := d.bytes()
		if err != nil {
			return nil, err
		}
		var value any
		if err := gob.NewDecoder(bytes.NewReader(stream)).Decode(&value); err != nil {
			return nil, fmt.Errorf("values: %w", err)
		}
		return value, nil
	case 's':
		d.b = d.b[1:]
		b, err := d.bytes()
		return string(b), err
	case 'i':
		d.b = d.b[1:]
		i, err := d.varint()
		return int(i), err
	}
	if bytes.HasPrefix(d.b, []byte{letterMap, 's', letterAny}) {
		d.b = d.b[3:]
		return d.named(depth)
	}
	t, err := d.readType(0)
	if err != nil {
		return nil, err
	}
	v := reflect.New(t).Elem()
	if err := d.value(v, depth); err != nil {
		return nil, err
	}
	return v.Interface(), nil
}

// named reads the body of the commonest map.
func (d *decoder) named(depth int) (map[string]any, error) {
	n, isNil, err := d.count()
	if err != nil || isNil {
		return nil, err
	}
	m := make(map[string]any, min(n, 64)) // more only for what is really there
	for range n {
		name, err := d.bytes()
		if err != nil {
			return nil, err
		}
		value, err := d.any(depth + 1)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
		m[string(name)] = value
	}
	return m, nil
}

// value reads a body into v.
func (d *decoder) value(v reflect.Value, depth int) error {
	if depth >= maxDepth {
		return errDepth
	}
	switch v.Type() {
	case typeTime:
		b, err := d.bytes()
		if err != nil {
			return err
		}
		var t time.Time
		if err := t.UnmarshalBinary(b); err != nil {
			return fmt.Errorf("values: %w", err)
		}
		v.Set(reflect.ValueOf(t))
		return nil
	case typeBytes:
		n, isNil, err := d.count()
		if err != nil || isNil {
			return err
		}
		b, err := d.take(uint64(n))
		if err != nil {
			return err
		}
		v.SetBytes(append([]byte{}, b...))
		return nil
	}
	switch v.Kind() {
	case reflect.Bool:
		b, err := d.byte()
		v.SetBool(b != 0)
		return err
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		i, err := d.varint()
		if err == nil && v.OverflowInt(i) {
			err = fmt.Errorf("values: %d overflows %v", i, v.Type())
		}
		v.SetInt(i)
		return err
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		u, err := d.uvarint()
		if err == nil && v.OverflowUint(u) {
			err = fmt.Errorf("values: %d overflows %v", u, v.Type())
		}
		v.SetUint(u)
		return err
	case reflect.Float32, reflect.Float64:
		f, err := d.float()
		v.SetFloat(f)
		return err
	case reflect.Complex64, reflect.Complex128:
		re, err := d.float()
		if err != nil {
			return err
		}
		im, err := d.float()
		v.SetComplex(complex(re, im))
		return err
	case reflect.String:
		b, err := d.bytes()
		v.SetString(string(b))
		return err
	case reflect.Interface:
		value, err := d.any(depth + 1)
		if err == nil && value != nil {
			v.Set(reflect.ValueOf(value))
		}
		return err
	case reflect.Slice:
		n, isNil, err := d.count()
		if err != nil || isNil {
			return err
		}
		v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		for i := range n { // it grows with what is read: a length alone allocates nothing
			v.Grow(1)
			v.SetLen(i + 1)
			if err := d.value(v.Index(i), depth+1); err != nil {
				return err
			}
		}
	case reflect.Map:
		return d.mapping(v, depth)
	}
	return nil
}

func (d *decoder) mapping(v reflect.Value, depth int) error {
	n, isNil, err := d.count()
	if err != nil || isNil {
		return err
	}
	t := v.Type()
	v.Set(reflect.MakeMap(t))
	for range n {
		key, elem := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
		if err := d.value(key, depth+1); err != nil {
			return err
		}
		if !key.Comparable() { // a slice in an interface
			return errors.New("values: a map's key cannot be compared")
		}
		if err := d.value(elem, depth+1); err != nil {
			return err
		}
		v.SetMapIndex(key, elem)
	}
	return nil
}
