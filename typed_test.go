package pgsession_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

func TestTypedSessionsKeepTheirValues(t *testing.T) {
	t.Parallel()
	type cart struct{ Items []string }
	everyWay(t, pgsession.Config{}, func(t *testing.T, w *way) {
		ctx, typed := t.Context(), pgsession.JSON[cart](w)
		session := pgsession.TypedSession[cart]{Value: cart{[]string{"tea"}}}
		session.Subject = "ada"
		token, created, err := typed.Create(ctx, session)
		must(t, err)
		updated, err := typed.Update(ctx, token, func(s *pgsession.TypedSession[cart]) error {
			s.Value.Items = append(s.Value.Items, "milk")
			return nil
		})
		must(t, err)
		created.Value.Items = nil
		there, err := typed.Set(ctx, token, created)
		wantError(t, "set of an old version", err, pgsession.ErrConflict)
		got, err := typed.Get(ctx, token)
		must(t, err)
		for what, s := range map[string]pgsession.TypedSession[cart]{"update": updated, "conflict": there, "get": got} {
			if s.Subject != "ada" || s.Version != updated.Version || !reflect.DeepEqual(s.Value.Items, []string{"tea", "milk"}) {
				t.Errorf("%s: %+v", what, s)
			}
		}
		var items string
		w.scan(t, &items, `select v.data ->> 'Items' from {schema}.session_view as v`)
		if items != `["tea", "milk"]` {
			t.Errorf("the view shows %s", items)
		}

		fresh, err := typed.GetFresh(ctx, token)
		must(t, err)
		err = typed.View(ctx, token, func(lent pgsession.TypedSession[cart]) error {
			if !reflect.DeepEqual(lent.Value, fresh.Value) || len(lent.Value.Items) != 2 {
				t.Errorf("lent %+v, read %+v", lent, fresh)
			}
			return nil
		})
		must(t, err)
		other, _ := w.create(t, pgsession.Session{Data: []byte("no JSON")})
		n := 0
		for s, err := range typed.All(ctx, pgsession.Filter{}) {
			if n++; errors.Is(err, pgsession.ErrCodec) != (s.ID == w.id(t, other)) || err == nil && len(s.Value.Items) != 2 {
				t.Errorf("all has %+v, %v", s, err)
			}
		}
		if n != 2 {
			t.Errorf("all has %d sessions, want 2", n)
		}
		_, err = w.Destroy(ctx, other)
		must(t, err)

		w.exec(t, `update {table} as t set data = '{"Items": 1}' where t.revoked_at is null`)
		_, err = typed.Get(ctx, token)
		wantError(t, "get of other JSON", err, pgsession.ErrCodec)
		if err == nil || !strings.Contains(err.Error(), string(created.ID)) {
			t.Errorf("%v does not name the session", err)
		}
		_, err = typed.Update(ctx, token, func(*pgsession.TypedSession[cart]) error { panic("called") })
		wantError(t, "update of other JSON", err, pgsession.ErrCodec)
		w.exec(t, `update {table} as t set data = '' where t.revoked_at is null`)
		if empty, err := typed.Get(ctx, token); err != nil || empty.Value.Items != nil {
			t.Errorf("a session without data: %+v, %v; want the zero value", empty, err)
		}
		_, _, err = pgsession.JSON[chan int](w).Create(ctx, pgsession.TypedSession[chan int]{Value: make(chan int)})
		wantError(t, "a value that JSON cannot hold", err, pgsession.ErrCodec)
	})
}

func TestATypedWriteThatIsUnpublishedReturnsItsSession(t *testing.T) {
	t.Parallel()
	type counter struct{ N int }
	b := &breakable{next: pgtest.Pool(t).Query}
	var giveUp atomic.Pointer[context.CancelFunc] // of who writes, once a publication has failed
	store := setUp(t, func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
		rows, err := b.query(ctx, sql, args...)
		if cancel := giveUp.Load(); cancel != nil && errors.Is(err, errPublication) {
			(*cancel)()
		}
		return rows, err
	}, pgsession.Config{Schema: pgtest.Schema(t)})
	typed := pgsession.JSON[counter](store)
	token, s, err := typed.Create(t.Context(), pgsession.TypedSession[counter]{Value: counter{1}})
	must(t, err)
	defer b.down.Store(false)
	writes := int64(0)
	for what, write := range map[string]func(context.Context) (pgsession.TypedSession[counter], error){
		"update": func(ctx context.Context) (pgsession.TypedSession[counter], error) {
			return typed.Update(ctx, token, func(s *pgsession.TypedSession[counter]) error { s.Value.N++; return nil })
		},
		"set": func(ctx context.Context) (pgsession.TypedSession[counter], error) {
			next := s
			next.Version, next.Value.N = 0, s.Value.N+1
			return typed.Set(ctx, token, next)
		},
		"patch": func(ctx context.Context) (pgsession.TypedSession[counter], error) {
			return typed.Patch(ctx, token, fmt.Appendf(nil, `{"N": %d}`, s.Value.N+1))
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		b.down.Store(false)
		eventually(t, "what was written before is published", func() bool { return store.Stats().Notify.Published == writes })
		writes++
		giveUp.Store(&cancel)
		b.down.Store(true)
		written, err := write(ctx)
		cancel()
		wantError(t, what, err, pgsession.ErrUnpublished)
		if written.Version <= s.Version || written.Value.N != s.Value.N+1 {
			t.Errorf("%s returned %+v, after %+v", what, written, s)
		}
		s = written
	}
}
