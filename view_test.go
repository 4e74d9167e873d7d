package pgsession_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

func TestTheViewShowsLiveSessionsOnly(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	schema := pgtest.Schema(t)
	store := setUp(t, pool.Query, pgsession.Config{Schema: schema, Cleanup: withoutCleanup})
	ids := map[string]pgsession.ID{}
	var ended pgsession.Token
	for _, name := range []string{"live", "dead", "at its last moment", "ended"} {
		token, session, err := store.Create(t.Context(), pgsession.Session{Subject: name})
		must(t, err)
		ids[name], ended = session.ID, token
	}
	_, err := store.Destroy(t.Context(), ended)
	must(t, err)
	inTransaction(t, pool, func(tx pgx.Tx) {
		table, view := identifier(schema, "session"), identifier(schema, "session_view")
		exec(t, tx, "update "+table+" set expires_at = clock_timestamp() - interval '1 h' where id = $1", string(ids["dead"]))
		// The clock has moved on by the time that the view asks.
		exec(t, tx, "update "+table+" set expires_at = clock_timestamp() where id = $1", string(ids["at its last moment"]))
		if got := column[string](t, tx, "select subject from "+view); !slices.Equal(got, []string{"live"}) {
			t.Errorf("the view shows %q", got)
		}
	})
}

func TestTheViewsColumnsAreTheseAndNoSecretIsAmongThem(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	schema := pgtest.Schema(t)
	store := setUp(t, pool.Query, pgsession.Config{
		Schema: schema, Columns: []pgsession.Column{{Name: "ip", Type: "inet"}, {Name: `odd "one"`, Type: "text[]"}},
	})
	view := identifier(schema, "session_view")
	got := column[string](t, pool, `
		select attname || ' ' || format_type(atttypid, atttypmod)
		  from pg_attribute where attrelid = $1::regclass and attnum > 0 order by attnum`, view)
	want := []string{
		"id text", "subject text", "age interval", "expires_in interval", "absolute_expires_in interval",
		"idle_timeout interval", "codec smallint", "bytes integer", "data jsonb", "version bigint",
		"ip inet", `odd "one" text[]`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("the columns are\n%q, want\n%q", got, want)
	}

	token, session, err := store.Create(t.Context(), pgsession.Session{
		Subject: "ada", Data: []byte(`{"n": [1, "é"]}`), Codec: pgsession.CodecJSON,
		Columns: map[string]any{"ip": "10.0.0.1", `odd "one"`: "{a,b}"},
	})
	must(t, err)
	exec(t, pool, "update "+identifier(schema, "session")+` set
		created_at = created_at - interval '1 h', expires_at = expires_at - interval '1 h'`)
	row := value[string](t, pool, `
		select concat_ws(' | ', v.id = $1, v.subject, v.age >= '1 h' and v.age < '1 h 5 min',
		       v.expires_in > '22:55' and v.expires_in <= '23:00',
		       v.absolute_expires_in > '29 d 23:55' and v.absolute_expires_in <= '30 d', v.idle_timeout, v.codec, v.bytes,
		       v.data, v.version, v.ip, v."odd ""one"""[2])
		  from `+view+" as v", string(session.ID))
	if want := fmt.Sprintf(`t | ada | t | t | t | 24:00:00 | 1 | 16 | {"n": [1, "é"]} | %d | 10.0.0.1 | b`, session.Version); row != want {
		t.Errorf("the row is\n%s, want\n%s", row, want)
	}
	if text := value[string](t, pool, "select v::text from "+view+" as v"); strings.Contains(text, string(token)) {
		t.Error("the view shows the token")
	}

	// What has no end has none here.
	_, _, err = store.Create(t.Context(), pgsession.Session{Subject: "endless", IdleTimeout: -1, AbsoluteTimeout: -1})
	must(t, err)
	if got := value[bool](t, pool, `
		select absolute_expires_in is null and idle_timeout is null and expires_in > interval '7000 years' and data is null and bytes = 0
		  from `+view+" where subject = 'endless'"); !got {
		t.Error("a session without deadlines is shown with some")
	}
}

// viewSamples are data as stored, and what the view shows: "" for null.
var viewSamples = []struct {
	name  string
	codec int
	data  string
	want  string
}{
	{"an object", 1, `{"b":1,"a":"日本語"}`, `{"a": "日本語", "b": 1}`},
	{"an array", 1, ` [1, null] `, `[1, null]`},
	{"a string", 1, `"x"`, `"x"`},
	{"the JSON null", 1, `null`, `null`},
	{"a large number", 1, `{"n":[-2.5E+999]}`, `{"n": [-25` + strings.Repeat("0", 998) + `]}`},
	{"what only looks like a larger one", 1, `": 9e9999"`, ""},
	{"what does not", 1, `"id=1e1000,x9e9999"`, `"id=1e1000,x9e9999"`},
	{"larger ones, a gigabyte as text", 1, "[1e131071" + strings.Repeat(",1E+0131071", 9000) + "]", ""},
	{"opaque JSON", 0, `{"a": 1}`, ""},
	{"another codec's JSON", 100, `{"a": 1}`, ""},
	{"nothing", 1, ``, ""},
	{"a corrupt object", 1, `{"a": `, ""},
	{"too much", 1, `{} {}`, ""},
	{"an escaped NUL", 1, `{"a": "\u0000"}`, ""},
	{"a NUL", 1, "\"a\x00\"", ""},
	{"half a surrogate pair", 1, `"\ud800"`, ""},
	{"a number out of range", 1, `1e400000`, ""},
	{"a number that is small out of range", 1, `1e-400000`, ""},
	{"too many digits", 1, strings.Repeat("9", 200000), ""},
	{"invalid UTF-8", 1, "\"\xff\"", ""},
	{"half a character", 1, "\"\xe6\x97\"", ""},
	{"an encoded surrogate", 1, "\"\xed\xa0\x80\"", ""},
	{"UTF-16", 1, "\xff\xfe{\x00}\x00", ""},
	{"deep arrays", 1, strings.Repeat("[", 500_000) + strings.Repeat("]", 500_000), ""},
	{"deep objects", 1, strings.Repeat(`{"a":`, 150_000) + "1" + strings.Repeat("}", 150_000), ""},
	{"brackets that never close", 1, strings.Repeat("[", 1_000_000), ""},
	{"random bytes", 1, "\x00\x01\x02\x80\x90\xfe", ""},
}

func TestNoRowKillsTheView(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	schema := pgtest.Schema(t)
	app, appAddress := pgtest.Role(t)
	admin, adminAddress := pgtest.Role(t)
	setUp(t, pool.Query, pgsession.Config{Schema: schema, AppRole: app, AdminRole: admin, Cleanup: withoutCleanup})
	for _, s := range viewSamples {
		exec(t, pool, "insert into "+identifier(schema, "session")+` (
			version, created_at, expires_at, prune_after, codec, id, data)
			values (1, now(), now() + interval '1 h', now() + interval '1 h', $1, $2, $3)`, s.codec, s.name, []byte(s.data))
	}
	view := identifier(schema, "session_view")
	check := func(t *testing.T, conn *pgx.Conn) {
		t.Helper()
		rows, err := conn.Query(t.Context(), "select id, coalesce(data::text, ''), bytes from "+view)
		must(t, err)
		type row struct {
			ID, Data string
			Bytes    int
		}
		got, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
		if err != nil {
			t.Fatalf("the view is dead: %v", err)
		}
		if len(got) != len(viewSamples) {
			t.Errorf("%d rows of %d", len(got), len(viewSamples))
		}
		shown := map[string]row{}
		for _, r := range got {
			shown[r.ID] = r
		}
		for _, s := range viewSamples {
			if r := shown[s.name]; r.Data != s.want || r.Bytes != len(s.data) {
				t.Errorf("%s: %.100q of %d bytes, want %.100q of %d", s.name, r.Data, r.Bytes, s.want, len(s.data))
			}
		}
	}
	t.Run("to the admin", func(t *testing.T) { check(t, dial(t, adminAddress, nil)) })
	t.Run("in a parallel plan", func(t *testing.T) {
		conn := dial(t, adminAddress, nil)
		for setting, to := range map[string]string{
			"parallel_setup_cost": "0", "parallel_tuple_cost": "0", "min_parallel_table_scan_size": "0",
			"max_parallel_workers_per_gather": "2",
		} {
			exec(t, conn, "select set_config($1, $2, false)", setting, to)
		}
		// Renamed in PostgreSQL 16.
		exec(t, conn, `
			select set_config(name, 'on', false) from pg_settings where name in ('force_parallel_mode', 'debug_parallel_query')`)
		// That the settings do what they are for:
		plan := strings.Join(column[string](t, conn, "explain select oid from pg_class where oid::text > ''"), "\n")
		if !strings.Contains(plan, "Workers Planned") {
			t.Fatalf("nothing is done in parallel:\n%s", plan)
		}
		check(t, conn)
	})
	t.Run("not to the app", func(t *testing.T) {
		_, err := dial(t, appAddress, nil).Exec(t.Context(), "select id from "+view)
		expectDenied(t, "the view", err)
	})
}
