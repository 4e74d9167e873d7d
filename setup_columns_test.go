package pgsession_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// columnSamples are every type that a promoted column can have, with two values each in the form in
// which reads give them.
var columnSamples = []struct {
	typeName, catalogue string
	values              [2]string
}{
	{"boolean", "bool", [2]string{"true", "false"}},
	{"bool", "bool", [2]string{"false", "true"}},
	{"smallint", "int2", [2]string{"-32768", "0"}},
	{"int2", "int2", [2]string{"1", "2"}},
	{"integer", "int4", [2]string{"-2147483648", "7"}},
	{"int", "int4", [2]string{"1", "2"}},
	{"int4", "int4", [2]string{"1", "2"}},
	{"bigint", "int8", [2]string{"-9223372036854775808", "9223372036854775807"}},
	{"int8", "int8", [2]string{"1", "2"}},
	{"real", "float4", [2]string{"1.5", "-0.25"}},
	{"float4", "float4", [2]string{"1.5", "NaN"}},
	{"double precision", "float8", [2]string{"0.1", "-Infinity"}},
	{"float8", "float8", [2]string{"0.1", "NaN"}},
	{"numeric", "numeric", [2]string{"123456789012345678901234567890.1234567890", "NaN"}},
	{"decimal", "numeric", [2]string{"1.10", "-0.5"}},
	{"text", "text", [2]string{"", `a "b" \ 'c' {"d"}`}},
	{"varchar", "varchar", [2]string{"x", " two "}},
	{"character varying", "varchar", [2]string{"x", "日本語"}},
	{"bytea", "bytea", [2]string{`\x`, `\x00ff`}},
	{"uuid", "uuid", [2]string{"00000000-0000-0000-0000-000000000001", "ffffffff-ffff-ffff-ffff-ffffffffffff"}},
	{"inet", "inet", [2]string{"10.0.0.1", "fe80::1/64"}},
	{"cidr", "cidr", [2]string{"10.0.0.0/8", "::/0"}},
	{"macaddr", "macaddr", [2]string{"08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff"}},
	{"date", "date", [2]string{"2024-02-29", "infinity"}},
	{"time", "time", [2]string{"23:59:59.999999", "00:00:00"}},
	{"interval", "interval", [2]string{"1 year 2 mons 3 days 04:05:06", "-00:00:01"}},
	{"json", "json", [2]string{`{"a": 1}`, `[null]`}},
	{"jsonb", "jsonb", [2]string{`{"a": 1}`, `[null]`}},
	{"timestamp", "timestamp", [2]string{"2024-02-29 12:00:00.000001", "infinity"}},
	{"timestamp without time zone", "timestamp", [2]string{"2024-02-29 12:00:00", "-infinity"}},
	{"timestamptz", "timestamptz", [2]string{"2024-02-29 12:00:00+00", "infinity"}},
	{"timestamp with time zone", "timestamptz", [2]string{"2024-02-29 12:00:00+00", "infinity"}},
	{" TEXT ", "text", [2]string{"", "x"}},
	{"text[]", "_text", [2]string{`{}`, `{"a b",NULL,"\"","NULL"}`}},
	{"integer[]", "_int4", [2]string{`{1,NULL,3}`, `{{1,2},{3,4}}`}},
	{"int8 []", "_int8", [2]string{`{1}`, `[2:3]={5,6}`}},
	{"inet[]", "_inet", [2]string{`{10.0.0.1,::1}`, `{}`}},
	{"bytea[]", "_bytea", [2]string{`{"\\x00"}`, `{"\\x"}`}},
	{"jsonb[]", "_jsonb", [2]string{`{"{\"a\": 1}"}`, `{NULL}`}},
	{"timestamptz[]", "_timestamptz", [2]string{`{"2024-02-29 12:00:00+00"}`, `{infinity}`}},
	{"double precision[]", "_float8", [2]string{`{0.1,NaN}`, `{-Infinity}`}},
	{"Boolean[]", "_bool", [2]string{`{t,f,NULL}`, `{}`}},
}

func TestEveryTypeOfColumnKeepsItsValuesUnderAllSettings(t *testing.T) {
	t.Parallel()
	for name, settings := range map[string]map[string]string{
		"the server's": {},
		"others": {
			"DateStyle": "SQL, DMY", "IntervalStyle": "sql_standard", "TimeZone": "Asia/Kolkata",
			"bytea_output": "escape", "extra_float_digits": "-15",
		},
		"yet others": {"DateStyle": "German", "IntervalStyle": "iso_8601", "array_nulls": "off", "TimeZone": "America/St_Johns"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keepColumnSamples(t, dial(t, pgtest.URL(t), settings))
		})
	}
}

// keepColumnSamples writes and reads columnSamples.
func keepColumnSamples(t *testing.T, pool *pgx.Conn) {
	t.Helper()
	cfg := pgsession.Config{Schema: pgtest.Schema(t), Cleanup: withoutCleanup}
	both := map[string][2]string{}
	for i, sample := range columnSamples {
		name := fmt.Sprintf("c%d", i)
		cfg.Columns = append(cfg.Columns, pgsession.Column{Name: name, Type: sample.typeName})
		both[name] = sample.values
	}
	store := setUp(t, pool.Query, cfg)
	for i, sample := range columnSamples {
		typeName := value[string](t, pool, `
			select t.typname::text
			  from pg_attribute as a
			  join pg_type as t on t.oid = a.atttypid
			 where a.attrelid = $1::regclass and a.attname = $2`, identifier(cfg.Schema, "session"), fmt.Sprintf("c%d", i))
		if typeName != sample.catalogue {
			t.Errorf("the column of type %q became %s, want %s", sample.typeName, typeName, sample.catalogue)
		}
	}
	useAll(t, store, both)
	for i, sample := range columnSamples {
		t.Run(sample.typeName, func(t *testing.T) {
			name := fmt.Sprintf("c%d", i)
			for _, text := range sample.values {
				columns := map[string]any{name: text}
				token, session, err := store.Create(t.Context(), pgsession.Session{Columns: columns})
				must(t, err)
				if session.Columns[name] != text {
					t.Errorf("wrote %q, got %q", text, session.Columns[name])
				}
				again, err := store.Set(t.Context(), token, session)
				must(t, err)
				if again.Version != session.Version || again.Columns[name] != text {
					t.Errorf("writing what was read changed it: %q became %q", text, again.Columns[name])
				}
				if n, err := store.Count(t.Context(), pgsession.Filter{Columns: columns}); n != 1 || err != nil {
					t.Errorf("Count of %q = %d, %v", text, n, err)
				}
			}
		})
	}
}

func TestAJSONColumnIsWrittenBackAsItWasRead(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	store := setUp(t, pool.Query, pgsession.Config{
		Schema: pgtest.Schema(t), Columns: []pgsession.Column{{Name: "j", Type: "json"}, {Name: "b", Type: "jsonb"}},
	})
	for _, text := range []string{`1`, `{"a": null}`, `"a string"`, `null`, `"null"`} {
		t.Run(text, func(t *testing.T) {
			columns := map[string]any{"j": text, "b": text}
			token, _, err := store.Create(t.Context(), pgsession.Session{Columns: columns})
			must(t, err)
			if _, err := store.Update(t.Context(), token, func(s *pgsession.Session) error {
				for name := range columns {
					if s.Columns[name] != text {
						t.Errorf("column %q is read as %v", name, s.Columns[name])
					}
				}
				s.Data = []byte("changed")
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			session, err := store.Get(t.Context(), token)
			must(t, err)
			for name := range columns {
				if session.Columns[name] != text {
					t.Errorf("an Update of the data changed column %q to %v", name, session.Columns[name])
				}
			}
		})
	}
}

func TestReservedAndImpossibleColumnsAreRefusedByNew(t *testing.T) {
	t.Parallel()
	query := func(context.Context, string, ...any) (pgx.Rows, error) { panic("New sent a statement") }
	refused := map[string][]pgsession.Column{
		"empty name":     {{Name: "", Type: "text"}},
		"long name":      {{Name: strings.Repeat("x", 64), Type: "text"}},
		"long in bytes":  {{Name: strings.Repeat("日", 22), Type: "text"}},
		"NUL":            {{Name: "a\x00b", Type: "text"}},
		"invalid UTF-8":  {{Name: "a\xff", Type: "text"}},
		"twice":          {{Name: "ip", Type: "inet"}, {Name: "ip", Type: "inet"}},
		"no type":        {{Name: "ip"}},
		"unknown type":   {{Name: "ip", Type: "regclass"}},
		"modifier":       {{Name: "ip", Type: "varchar(3)"}},
		"qualified type": {{Name: "ip", Type: "pg_catalog.text"}},
		"array of array": {{Name: "ip", Type: "text[][]"}},
		"sized array":    {{Name: "ip", Type: "text[3]"}},
		"only brackets":  {{Name: "ip", Type: "[]"}},
		"injection":      {{Name: "ip", Type: `text" default attack() --`}},
		"101 columns":    nil,
	}
	for i := range 101 {
		refused["101 columns"] = append(refused["101 columns"], pgsession.Column{Name: fmt.Sprint("c", i), Type: "text"})
	}
	for _, own := range ownColumns {
		refused["the table's "+own.name] = []pgsession.Column{{Name: own.name, Type: own.typeName}}
	}
	for _, name := range []string{
		"age", "expires_in", "absolute_expires_in", "bytes", "ctid", "xmin", "xmax", "cmin", "cmax", "tableoid",
	} {
		refused[name] = []pgsession.Column{{Name: name, Type: "text"}}
	}
	for name, columns := range refused {
		_, err := pgsession.New(query, pgsession.Config{Columns: columns})
		if !errors.Is(err, pgsession.ErrInvalid) || !strings.Contains(err.Error(), "Config.Columns") {
			t.Errorf("%s: err = %v, want an ErrInvalid that names Config.Columns", name, err)
		}
	}
}

func TestColumnsThatAnotherInstancePromotedStayAndWork(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	schema := pgtest.Schema(t)
	cfg := func(columns ...pgsession.Column) pgsession.Config {
		return pgsession.Config{Schema: schema, Columns: columns}
	}
	ip := pgsession.Column{Name: "ip", Type: "inet"}
	tags := pgsession.Column{Name: "tags", Type: "text[]"}
	older := setUp(t, pool.Query, cfg(ip))
	token, _, err := older.Create(t.Context(), pgsession.Session{Subject: "ada", Columns: map[string]any{"ip": "10.0.0.1"}})
	must(t, err)
	newer := setUp(t, pool.Query, cfg(tags))
	none := setUp(t, pool.Query, cfg())

	session, err := newer.Get(t.Context(), token)
	must(t, err)
	if tags, ok := session.Columns["tags"]; !ok || tags != nil || len(session.Columns) != 1 {
		t.Errorf("columns are %v", session.Columns)
	}
	samples := map[string][2]string{"ip": {"::1", "10.0.0.2"}, "tags": {"{a}", "{}"}}
	for _, c := range []struct {
		store *pgsession.Store
		names []string
	}{{older, []string{"ip"}}, {newer, []string{"tags"}}, {none, nil}} {
		// None of them has anything left to do, whoever comes last.
		must(t, c.store.Setup(t.Context()))
		t.Run(fmt.Sprint(c.names), func(t *testing.T) {
			own := map[string][2]string{}
			for _, name := range c.names {
				own[name] = samples[name]
			}
			useAsRequest(t, c.store, own)
			// What it does not name it leaves as it is.
			_, err := c.store.Update(t.Context(), token, func(s *pgsession.Session) error {
				s.Data = append(s.Data, 1)
				return nil
			})
			must(t, err)
		})
	}
	session, err = older.Get(t.Context(), token)
	must(t, err)
	if session.Columns["ip"] != "10.0.0.1" {
		t.Errorf("columns are %v", session.Columns)
	}
	view := column[string](t, pool, `
		select attname::text from pg_attribute where attrelid = $1::regclass order by attnum`, identifier(schema, "session_view"))
	if n := len(view); n < 2 || !slices.Equal(view[n-2:], []string{"ip", "tags"}) {
		t.Errorf("the view has the columns %q, want the promoted ones last, in the order of their coming", view)
	}
}

func TestInstancesWithDifferentColumnsAreSetUpAtOnce(t *testing.T) {
	t.Parallel()
	for _, there := range []bool{false, true} {
		t.Run(fmt.Sprintf("the store is there: %t", there), func(t *testing.T) {
			t.Parallel()
			address := pgtest.Database(t)
			if there {
				setUp(t, pgtest.Connect(t, address).Query, pgsession.Config{})
			}
			start := make(chan struct{})
			var group sync.WaitGroup
			stores := make([]*pgsession.Store, 8)
			for i := range stores {
				name := fmt.Sprintf("c%d", i)
				conn := dial(t, address, nil)
				stores[i] = storeOf(t, conn.Query, pgsession.Config{
					Cleanup: withoutCleanup,
					Columns: []pgsession.Column{{Name: "all", Type: "int4"}, {Name: name, Type: "text"}},
				})
				group.Go(func() {
					<-start
					if err := stores[i].Setup(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			close(start)
			group.Wait()
			for i, store := range stores {
				useAsRequest(t, store, map[string][2]string{"all": {"1", "2"}, fmt.Sprintf("c%d", i): {"one", "two"}})
			}
		})
	}
}

func TestMoreColumnsThanFunctionsCanReturnBreakNothing(t *testing.T) {
	t.Parallel()
	pool := pgtest.Connect(t, pgtest.Database(t))
	named := func(prefix string, n int) (columns []pgsession.Column) {
		for i := range n {
			columns = append(columns, pgsession.Column{Name: fmt.Sprint(prefix, i), Type: "text"})
		}
		return columns
	}
	first := setUp(t, pool.Query, pgsession.Config{Columns: named("a", 100)})
	useAll(t, first, map[string][2]string{"a0": {"1", "2"}, "a99": {"3", "4"}})
	before := fingerprint(t, pool)
	// A function takes at most 100 arguments. Each instance is within the limit; together they are not.
	second := storeOf(t, pool.Query, pgsession.Config{Columns: named("b", 100)})
	if err := second.Setup(t.Context()); err == nil {
		useAll(t, second, map[string][2]string{"b0": {"1", "2"}, "b99": {"3", "4"}})
	} else {
		_ = schemaErrorOf(t, err)
		expectSame(t, fingerprint(t, pool), before)
	}
	useAll(t, first, map[string][2]string{"a0": {"1", "2"}, "a99": {"3", "4"}})
}

func TestAColumnIsNeverRetypedNorDropped(t *testing.T) {
	t.Parallel()
	pool := pgtest.Connect(t, pgtest.Database(t))
	with := func(typeName string) pgsession.Config {
		return pgsession.Config{Columns: []pgsession.Column{{Name: "ip", Type: typeName}}}
	}
	store := setUp(t, pool.Query, with("inet"))
	_, _, err := store.Create(t.Context(), pgsession.Session{Columns: map[string]any{"ip": "10.0.0.1"}})
	must(t, err)
	before := fingerprint(t, pool)
	for _, typeName := range []string{"text", "cidr", "inet[]"} {
		err := storeOf(t, pool.Query, with(typeName)).Setup(t.Context())
		expectProblems(t, err, `column "ip" has the type inet instead of `)
		expectSame(t, fingerprint(t, pool), before)
	}
	setUp(t, pool.Query, pgsession.Config{})
	expectSame(t, fingerprint(t, pool), before)
	if ip := value[string](t, pool, "select ip::text from pgsession.session"); ip != "10.0.0.1/32" {
		t.Errorf("ip = %s", ip)
	}
	must(t, store.Setup(t.Context()))
	useAll(t, store, map[string][2]string{"ip": {"10.0.0.1", "::1"}})
}

func TestAColumnThatTheDBAAddedIsPromotedAsItIs(t *testing.T) {
	t.Parallel()
	pool := pgtest.Connect(t, pgtest.Database(t))
	cfg := pgsession.Config{Columns: []pgsession.Column{{Name: "ip", Type: "inet"}}}
	plain := setUp(t, pool.Query, pgsession.Config{})
	token, _, err := plain.Create(t.Context(), pgsession.Session{Data: []byte("1")})
	must(t, err)
	exec(t, pool, "alter table pgsession.session add column ip inet not null default '10.0.0.1'")

	// What is missing is not the column.
	skip := cfg
	skip.SkipMigrate = true
	problems := schemaErrorOf(t, storeOf(t, pool.Query, skip).Setup(t.Context())).Problems
	if len(problems) != 1 || !strings.Contains(problems[0], `"ip"`) || strings.Contains(problems[0], `column "ip" is missing`) {
		t.Errorf("the problems are %q, want one, and not that the column is missing", problems)
	}

	store := setUp(t, pool.Query, cfg)
	session, err := store.Get(t.Context(), token)
	must(t, err)
	if session.Columns["ip"] != "10.0.0.1" {
		t.Errorf("columns are %v", session.Columns)
	}
}

func TestANameThatIsNoPromotedColumnIsRefused(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	for _, columns := range [][]pgsession.Column{nil, {{Name: "ip", Type: "inet"}}} {
		store := setUp(t, pool.Query, pgsession.Config{Schema: pgtest.Schema(t), Columns: columns})
		bad := map[string]any{"pi": "x"}
		_, _, err := store.Create(t.Context(), pgsession.Session{Columns: bad})
		wantError(t, "Create", err, pgsession.ErrInvalid)
		_, err = store.Count(t.Context(), pgsession.Filter{Columns: bad})
		wantError(t, "Count", err, pgsession.ErrInvalid)
		_, err = store.Count(t.Context(), pgsession.Filter{Subject: "ada", Columns: bad})
		wantError(t, "Count of a subject", err, pgsession.ErrInvalid)
		for _, err = range store.All(t.Context(), pgsession.Filter{Columns: bad}) {
			break
		}
		wantError(t, "All", err, pgsession.ErrInvalid)
		if n, err := store.Count(t.Context(), pgsession.Filter{}); n != 0 || err != nil {
			t.Errorf("Count = %d, %v", n, err)
		}
	}
}
