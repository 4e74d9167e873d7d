package pgsession

import (
	"cmp"
	"database/sql/driver"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Column is a promoted column: a value of the session that has a column of its own in the table, so
// that it can be filtered on, or joined by your own SQL. A filter without a subject reads all live
// sessions, with an index of yours or without.
type Column struct {
	// Name is any name that PostgreSQL allows and the table does not use itself.
	Name string
	// Type is a type of pg_catalog: boolean, smallint, integer, bigint, real, "double precision",
	// numeric, text, varchar, bytea, uuid, inet, cidr, macaddr, date, time, timestamp, timestamptz,
	// interval, json, jsonb; or an array of one of them, as text[].
	Type string
}

// maxColumns of each instance keeps a few instances' together below PostgreSQL's 1,600 a table.
const maxColumns = 100

// columnTypes maps the names that people write to those of the catalogue.
var columnTypes = map[string]string{
	"boolean": "bool", "bool": "bool",
	"smallint": "int2", "int2": "int2",
	"integer": "int4", "int": "int4", "int4": "int4",
	"bigint": "int8", "int8": "int8",
	"real": "float4", "float4": "float4",
	"double precision": "float8", "float8": "float8",
	"numeric": "numeric", "decimal": "numeric",
	"text": "text", "varchar": "varchar", "character varying": "varchar",
	"bytea": "bytea", "uuid": "uuid", "inet": "inet", "cidr": "cidr", "macaddr": "macaddr",
	"date": "date", "time": "time", "interval": "interval", "json": "json", "jsonb": "jsonb",
	"timestamp": "timestamp", "timestamp without time zone": "timestamp",
	"timestamptz": "timestamptz", "timestamp with time zone": "timestamptz",
}

// tableColumns are the table's own columns and their types.
var tableColumns = []Column{
	{"version", "int8"},
	{"created_at", "timestamptz"},
	{"expires_at", "timestamptz"},
	{"absolute_expires_at", "timestamptz"},
	{"prune_after", "timestamptz"},
	{"revoked_at", "timestamptz"},
	{"idle_timeout", "interval"},
	{"codec", "int2"},
	{"id", "text"},
	{"subject", "text"},
	{"renewed_to", "text"},
	{"data", "bytea"},
}

// viewColumns are the names that the view has given away beside the table's.
var viewColumns = []string{"age", "expires_in", "absolute_expires_in", "bytes"}

// systemColumns: https://www.postgresql.org/docs/current/ddl-system-columns.html
var systemColumns = []string{"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"}

// catalogType returns the pg_type.typname of a Column's type, or "".
func catalogType(name string) string {
	name = strings.ToLower(strings.TrimSpace(name))
	if element, ok := strings.CutSuffix(name, "[]"); ok {
		if t := columnTypes[strings.TrimSpace(element)]; t != "" {
			return "_" + t
		}
		return ""
	}
	return columnTypes[name]
}

// resolveColumns checks the columns and returns them with the catalogue's type names.
func resolveColumns(columns []Column) ([]Column, error) {
	if len(columns) > maxColumns {
		return nil, fmt.Errorf("%w: Config.Columns has %d columns, at most %d", ErrInvalid, len(columns), maxColumns)
	}
	resolved := make([]Column, 0, len(columns))
	for _, c := range columns {
		if err := validateIdentifier("Config.Columns", c.Name); err != nil {
			return nil, err
		}
		own := slices.ContainsFunc(tableColumns, func(o Column) bool { return o.Name == c.Name })
		if own || slices.Contains(viewColumns, c.Name) || slices.Contains(systemColumns, c.Name) {
			return nil, fmt.Errorf("%w: Config.Columns: the name %q is reserved", ErrInvalid, c.Name)
		}
		if slices.ContainsFunc(resolved, func(o Column) bool { return o.Name == c.Name }) {
			return nil, fmt.Errorf("%w: Config.Columns: %q stands there twice", ErrInvalid, c.Name)
		}
		t := catalogType(c.Type)
		if t == "" {
			return nil, fmt.Errorf("%w: Config.Columns: %q has the type %q, which is none of those that Column names",
				ErrInvalid, c.Name, c.Type)
		}
		resolved = append(resolved, Column{c.Name, t})
	}
	return resolved, nil
}

// columnsArg makes the JSON argument of promoted columns; nil where there are none.
func columnsArg(values map[string]any) (any, error) {
	if len(values) == 0 {
		return nil, nil
	}
	texts := make(map[string]*string, len(values))
	for name, v := range values {
		// Whether the name is a promoted column the functions know best: another instance may have
		// promoted more than this one's Config.
		if err := validateText("a column's name", name, maxIdentifierLength); err != nil {
			return nil, err
		}
		text, null, err := columnText(v)
		if err != nil {
			return nil, fmt.Errorf("%w: column %q: %w", ErrInvalid, name, err)
		}
		if null {
			texts[name] = nil
			continue
		}
		if !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0 {
			return nil, fmt.Errorf("%w: column %q is not valid UTF-8, or has a NUL byte", ErrInvalid, name)
		}
		texts[name] = &text
	}
	b, err := json.Marshal(texts)
	if err != nil {
		return nil, fmt.Errorf("%w: columns: %w", ErrInvalid, err)
	}
	return string(b), nil
}

// columnText is a value in the form that PostgreSQL's input functions read.
func columnText(v any) (text string, null bool, err error) {
	r := reflect.ValueOf(v)
	if !r.IsValid() || (r.Kind() == reflect.Pointer || r.Kind() == reflect.Slice) && r.IsNil() {
		return "", true, nil
	}
	switch v := v.(type) {
	case string:
		return v, false, nil
	case []byte:
		return `\x` + hex.EncodeToString(v), false, nil
	case json.RawMessage:
		return string(v), false, nil
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano), false, nil
	case time.Duration:
		// Not in microseconds: before PostgreSQL 15 their number must fit an int4.
		return strconv.FormatFloat(v.Seconds(), 'f', 6, 64) + " seconds", false, nil
	case driver.Valuer:
		value, err := v.Value()
		if _, again := value.(driver.Valuer); err != nil || again {
			return "", false, cmp.Or(err, fmt.Errorf("the Value of %T is another Valuer", v))
		}
		return columnText(value)
	}
	if r.Kind() == reflect.Pointer && r.Elem().Kind() != reflect.Pointer {
		// What it points to first: a *time.Duration is a fmt.Stringer too, and of another form.
		if text, null, err = columnText(r.Elem().Interface()); err == nil {
			return text, null, nil
		}
	}
	switch v := v.(type) {
	case encoding.TextMarshaler:
		b, err := v.MarshalText()
		return string(b), false, err
	case fmt.Stringer:
		return v.String(), false, nil
	}
	switch r.Kind() {
	case reflect.String:
		return r.String(), false, nil
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64,
		reflect.Float32, reflect.Float64:
		return fmt.Sprint(v), false, nil
	case reflect.Slice:
		if r.Type().Elem().Kind() == reflect.Uint8 {
			return columnText(r.Bytes())
		}
		return arrayText(r)
	}
	return "", false, fmt.Errorf("a value of type %T", v)
}

// arrayText is a slice as PostgreSQL's array input reads it, of one dimension: every element but NULL is
// quoted, so that none can be taken for more than one.
// https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
func arrayText(r reflect.Value) (text string, null bool, err error) {
	elements := make([]string, r.Len())
	for i := range elements {
		element := r.Index(i).Interface()
		if e := reflect.ValueOf(element); e.Kind() == reflect.Slice && e.Type().Elem().Kind() != reflect.Uint8 {
			return "", false, fmt.Errorf("a value of type %s", r.Type())
		}
		text, null, err := columnText(element)
		switch {
		case err != nil:
			return "", false, err
		case null:
			elements[i] = "NULL"
		default:
			elements[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
		}
	}
	return "{" + strings.Join(elements, ",") + "}", false, nil
}
