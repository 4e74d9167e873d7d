package pgsession_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/pgsession"
	"github.com/pgsession/pgsession/internal/pgtest"
)

// breakable is a QueryFunc whose publications can be made to fail, or to wait.
type breakable struct {
	next    pgsession.QueryFunc
	down    atomic.Bool
	calls   atomic.Int64
	release chan struct{} // nil: they do not wait
}

var errPublication = errors.New("publication failed")

func (b *breakable) query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if strings.HasPrefix(sql, "select") && strings.Contains(sql, `_notify"(`) {
		b.calls.Add(1)
		if b.down.Load() {
			return nil, errPublication
		}
		if b.release != nil {
			select {
			case <-b.release:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
	return b.next(ctx, sql, args...)
}

func TestWritersShareAPublication(t *testing.T) {
	t.Parallel()
	schema := pgtest.Schema(t)
	pool := pgtest.Pool(t)
	b := &breakable{next: pool.Query, release: make(chan struct{})}
	release := sync.OnceFunc(func() { close(b.release) })
	defer release()
	store := setUp(t, b.query, pgsession.Config{Schema: schema})
	e := listenTo(t, pgtest.URL(t), channelOf(schema, "session"))
	const writers = 2500
	tokens := make([]pgsession.Token, writers)
	for i := range tokens {
		var err error
		tokens[i], _, err = store.Create(t.Context(), pgsession.Session{Data: []byte("0")})
		must(t, err)
	}
	var group sync.WaitGroup
	var done atomic.Int64
	for _, token := range tokens {
		group.Go(func() {
			defer done.Add(1)
			_, err := store.Update(t.Context(), token, func(s *pgsession.Session) error { s.Data = []byte("1"); return nil })
			if err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "the first publication is under way, and all are written", func() bool {
		return b.calls.Load() > 0 && value[int](t, pool, "select count(*) from "+identifier(schema, "session")+" where data = '1'") == writers &&
			pool.Stat().AcquiredConns() == 0
	})
	if n := done.Load(); n > 0 {
		t.Errorf("%d writers did not wait for their publication", n)
	}
	release()
	group.Wait()
	// One for the first, and then one for each thousand; some for those that were written and had yet to join.
	if n := b.calls.Load(); n > writers/100 {
		t.Errorf("%d publications for %d writers", n, writers)
	}
	named := map[string]bool{}
	for _, text := range e.heard(t) {
		var p struct{ Changed map[string]int64 }
		must(t, json.Unmarshal([]byte(text), &p))
		for id := range p.Changed {
			named[id] = true
		}
	}
	if len(named) != writers {
		t.Errorf("%d sessions were named, want %d", len(named), writers)
	}
}

func TestAWriteThatCannotBePublishedSaysSoAndIsPublishedLater(t *testing.T) {
	t.Parallel()
	schema := pgtest.Schema(t)
	b := &breakable{next: pgtest.Pool(t).Query}
	store := setUp(t, b.query, pgsession.Config{Schema: schema})
	e := listenTo(t, pgtest.URL(t), channelOf(schema, "session"))
	token, s, err := store.Create(t.Context(), pgsession.Session{Data: []byte("0")})
	must(t, err)
	b.down.Store(true)
	ctx := newEnding(t, context.DeadlineExceeded)
	s.Data = []byte("1")
	var written pgsession.Session
	answered := make(chan error)
	go func() {
		var err error
		written, err = store.Set(ctx, token, s)
		answered <- err
	}()
	eventually(t, "an attempt has failed", func() bool { return store.Stats().Notify.PublishFailed > 0 })
	ctx.end()
	err = <-answered
	wantError(t, "set", err, pgsession.ErrUnpublished, context.DeadlineExceeded)
	if string(written.Data) != "1" || written.Version <= s.Version {
		t.Errorf("the session is %+v", written)
	}
	got, err := store.GetFresh(t.Context(), token)
	if err != nil || got.Version != written.Version {
		t.Errorf("got %+v, %v; want what was written", got, err)
	}
	e.expect(t, "while it fails")
	b.down.Store(false)
	eventually(t, "it is published", func() bool { return store.Stats().Notify.Published == 1 })
	e.expect(t, "when it works", payloadOf(written))
}

func TestAWriteWithoutADeadlineDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	b := &breakable{next: pgtest.Pool(t).Query}
	store := setUp(t, b.query, pgsession.Config{Schema: pgtest.Schema(t)})
	token, s, err := store.Create(t.Context(), pgsession.Session{Data: []byte("0")})
	must(t, err)
	b.down.Store(true)
	s.Data = []byte("1")
	s, err = store.Set(context.Background(), token, s)
	wantError(t, "set", err, pgsession.ErrUnpublished, errPublication)
	b.down.Store(false)
	s.Data = []byte("2")
	_, err = store.Set(context.Background(), token, s)
	must(t, err)
}

func TestCloseTriesToPublishWhatIsPending(t *testing.T) {
	t.Parallel()
	schema := pgtest.Schema(t)
	b := &breakable{next: pgtest.Pool(t).Query}
	store := setUp(t, b.query, pgsession.Config{Schema: schema})
	e := listenTo(t, pgtest.URL(t), channelOf(schema, "session"))
	token, s, err := store.Create(t.Context(), pgsession.Session{Data: []byte("0")})
	must(t, err)
	b.down.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	s.Data = []byte("1")
	wrote := make(chan error)
	go func() {
		var err error
		s, err = store.Set(ctx, token, s)
		wrote <- err
	}()
	eventually(t, "it fails", func() bool { return b.calls.Load() > 1 })
	cancel()
	wantError(t, "set", <-wrote, pgsession.ErrUnpublished, context.Canceled)
	b.down.Store(false)
	must(t, store.Close())
	e.expect(t, "after Close", payloadOf(s))
	_, err = store.Set(t.Context(), token, s)
	wantError(t, "set", err, pgsession.ErrClosed)
}

func TestCloseDoesNotWaitForEverToPublish(t *testing.T) {
	t.Parallel()
	b := &breakable{next: pgtest.Pool(t).Query}
	store := setUp(t, b.query, pgsession.Config{Schema: pgtest.Schema(t)})
	token, s, err := store.Create(t.Context(), pgsession.Session{Data: []byte("0")})
	must(t, err)
	b.down.Store(true)
	wrote := make(chan error)
	go func() {
		s.Data = []byte("1")
		_, err := store.Set(t.Context(), token, s)
		wrote <- err
	}()
	eventually(t, "it fails", func() bool { return b.calls.Load() > 1 })
	must(t, store.Close())
	wantError(t, "set", <-wrote, pgsession.ErrUnpublished)
}

func TestAWriteThatWasCutOffIsPublishedAsInDoubt(t *testing.T) {
	t.Parallel()
	w := onPool(t, pgsession.Config{})
	e := listenTo(t, pgtest.URL(t), channelOf(w.schema, "session"))
	token, s := w.create(t, pgsession.Session{})
	tx := begin(t, w.admin)
	_, err := w.store.WithQuery(tx.query).Set(t.Context(), token, pgsession.Session{Data: []byte("1")})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	wrote := make(chan error)
	go func() {
		_, err := w.Set(ctx, token, pgsession.Session{Data: []byte("2")})
		wrote <- err
	}()
	w.awaitWaiting(t, 1)
	cancel()
	wantError(t, "set", <-wrote, pgsession.ErrInDoubt, context.Canceled)
	unknown := fmt.Sprintf(`{"v":1,"changed":{"%s": 0}}`, s.ID)
	eventually(t, "it is published while another one has the lock", func() bool { return strings.Contains(fmt.Sprint(e.heard(t)), unknown) })
	must(t, tx.rollback())
	e.heard(t)
	eventually(t, "and once more after that", func() bool { return strings.Contains(fmt.Sprint(e.heard(t)), unknown) })
	published := w.store.Stats().Notify.Published
	must(t, w.store.Close())
	if n := w.store.Stats().Notify.Published; n > published+1 {
		t.Errorf("it went on: %d, %d", published, n)
	}
}

func TestControlConnectionsThatFailMidBatchLoseNothing(t *testing.T) {
	t.Parallel()
	store, pool, _ := listening(t, nil)
	awaitLive(t, store)
	conn := dial(t, pool.Config().ConnString(), nil)
	e := &ear{conn: conn, channel: "pgsession.session"}
	exec(t, conn, "listen "+identifier(e.channel))
	stop := make(chan struct{})
	var killer sync.WaitGroup
	killer.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				terminate(t, pool, "pgsession control")
			}
		}
	})
	var group sync.WaitGroup
	var mu sync.Mutex
	var want []string
	for range 8 {
		group.Go(func() {
			for range 25 {
				token, s, err := store.Create(t.Context(), pgsession.Session{Data: []byte("0")})
				if err == nil {
					s.Data = []byte("1")
					s, err = store.Set(t.Context(), token, s)
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				want = append(want, fmt.Sprintf(`"%s": %d`, s.ID, s.Version))
				mu.Unlock()
			}
		})
	}
	group.Wait()
	close(stop)
	killer.Wait()
	heard := strings.Join(e.heard(t), "\n")
	for _, entry := range want {
		if !strings.Contains(heard, entry) {
			t.Errorf("%s was returned as published, and was not", entry)
		}
	}
}
