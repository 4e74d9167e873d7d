package movein

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
)

// Source is the table of another library. The name of a table that the constructors take is its parts,
// as in pgx.Identifier{"public", "session"}, of any characters.
type Source struct {
	table  string // quoted
	cursor string // what the rows are read in the order of, unique and not null
	order  string // its type
	first  string // less than any, but for one that cannot be
	key    string // the old library's key, as text
	match  string // whether it is that of the argument %s
	data   string // as bytea
	expiry string // as timestamptz; null: never
	codec  int16
	hashed bool // keys are ids, not tokens
	exact  bool // the library alone decides when a session ends
	decode func([]byte) ([]byte, error)
	err    error
}

// ConnectPgSimple is the table of connect-pg-simple, a store of express-session. Its column expire has
// no time zone: zone is that of the Node process's connections, TimeZone in PostgreSQL's words, as
// "UTC" or "Europe/Berlin". A session's data is its JSON, with express's cookie in it; its token is the
// part of the cookie after "s:" and before the dot, which signs it.
func ConnectPgSimple(table pgx.Identifier, zone string) Source {
	return withoutZone(table, "sid", "sess", "expire", zone)
}

// KoaPgSession is the table of koa-pg-session, a store of koa-generic-session. Its column expiry has no
// time zone: see [ConnectPgSimple]. Keys begin with "koa:sess:" unless the application chose another
// prefix: see Options.TrimPrefix. Its default table is public.session.
func KoaPgSession(table pgx.Identifier, zone string) Source {
	return withoutZone(table, "id", "session", "expiry", zone)
}

func withoutZone(table pgx.Identifier, key, data, expiry, zone string) Source {
	s := newSource(table)
	s.cursor, s.order, s.first = "o."+key, "text", ""
	s.key = "o." + key + "::pg_catalog.text"
	s.match = "o." + key + " operator(pg_catalog.=) %s"
	s.data = "pg_catalog.convert_to(o." + data + "::pg_catalog.text, 'UTF8')"
	s.expiry = "pg_catalog.timezone(" + quoteLiteral(zone) + ", o." + expiry + "::pg_catalog.timestamp)"
	s.codec = pgsession.CodecJSON
	if s.err == nil && (zone == "" || strings.IndexByte(zone, 0) >= 0) {
		s.err = fmt.Errorf("%w: the time zone is %q", pgsession.ErrInvalid, zone)
	}
	return s
}

// SCS is the table of scs's pgxstore and postgresstore. A session's data is what scs's codec made, and
// what scsstore of pgsession stores.
func SCS(table pgx.Identifier) Source {
	s := newSource(table)
	s.cursor, s.order, s.first = "o.token", "text", ""
	s.key = "o.token"
	s.match = "o.token operator(pg_catalog.=) %s"
	s.data = "o.data"
	s.expiry = "o.expiry"
	s.exact = true
	return s
}

// SCSHashed is [SCS] where the session manager has HashTokenInStore set. Its hashes are the ids of
// pgsession. Leave HashTokenInStore off afterwards: the store hashes tokens itself, and would hash the hashes.
func SCSHashed(table pgx.Identifier) Source {
	s := SCS(table)
	s.hashed = true
	return s
}

// PGStore is the table of github.com/antonlindstrom/pgstore, a store of gorilla/sessions: http_sessions.
// A session's token is gorilla's Session.ID. Its data is encoded by securecookie, with the keys and the
// session's name; decode gets that, and returns what shall be stored:
//
//	func(stored []byte) ([]byte, error) {
//		values := map[any]any{}
//		if err := securecookie.DecodeMulti(name, string(stored), &values, codecs...); err != nil {
//			return nil, err
//		}
//		return encode(values)
//	}
//
// Where the table has sessions of several names, it tries one after the other. Call MaxLength(0) and
// MaxAge(0) on the codecs, which refuse data that is long or old by default.
func PGStore(table pgx.Identifier, decode func(stored []byte) ([]byte, error)) Source {
	s := newSource(table)
	s.cursor, s.order, s.first = "o.id", "int8", "-9223372036854775808"
	s.key = "pg_catalog.encode(o.key, 'escape')"
	s.match = "o.key operator(pg_catalog.=) pg_catalog.convert_to(%s, 'UTF8')"
	s.data = "o.data"
	s.expiry = "o.expires_on"
	s.decode = decode
	if s.err == nil && decode == nil {
		s.err = fmt.Errorf("%w: the decode function is nil", pgsession.ErrInvalid)
	}
	return s
}

// Gofiber is the table of github.com/gofiber/storage/postgres, fiber_storage by default. A session's
// token is its id, as in the cookie; its data is what fiber encoded, and what fiberstorage of pgsession
// stores.
func Gofiber(table pgx.Identifier) Source {
	s := newSource(table)
	s.cursor, s.order, s.first = "o.k", "text", ""
	s.key = "o.k"
	s.match = "o.k operator(pg_catalog.=) %s"
	s.data = "o.v"
	s.expiry = "pg_catalog.to_timestamp(nullif(o.e, 0)::pg_catalog.float8)"
	return s
}

func newSource(table pgx.Identifier) Source {
	s := Source{table: table.Sanitize(), codec: pgsession.CodecOpaque}
	for _, part := range table {
		if part == "" || strings.IndexByte(part, 0) >= 0 {
			s.err = fmt.Errorf("%w: %q is no name of a table", pgsession.ErrInvalid, []string(table))
		}
	}
	if len(table) == 0 {
		s.err = fmt.Errorf("%w: the table has no name", pgsession.ErrInvalid)
	}
	return s
}

// quoteLiteral quotes s for any value of standard_conforming_strings.
func quoteLiteral(s string) string {
	return `E'` + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(s) + `'`
}
