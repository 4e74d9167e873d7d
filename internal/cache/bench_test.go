package cache_test

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/pgsession/pgsession/internal/cache"
)

// session is about what the store keeps of one.
type session struct {
	data     []byte
	columns  map[string]any
	times    [2]time.Time
	version  int64
	timeouts [2]time.Duration
}

const benchData = 400

func newFilled(tb testing.TB, n int) (*cache.Cache[session], []cache.Key) {
	tb.Helper()
	c, err := cache.New[session](cache.Config{
		Capacity: 256 << 20, MaxAge: time.Hour, Liveness: time.Hour, MaxLoads: 16, LoadTimeout: time.Second,
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	l := c.NewListener()
	l.Listening(server)
	l.Beat().Answered("n")
	l.HeardBeat("n")
	keys := make([]cache.Key, n)
	for i := range keys {
		keys[i] = key(fmt.Sprint(i))
		op := c.Begin(keys[i])
		op.Read(cache.Reply[session]{
			Alive: true, Cacheable: true, Server: server, Version: 1, Remaining: time.Hour,
			Subject: cache.Subject(i), Size: benchData,
			Value: session{
				data: make([]byte, benchData), columns: nil, version: 1,
				times: [2]time.Time{}, timeouts: [2]time.Duration{},
			},
		})
		op.End()
	}
	return c, keys
}

// A hit must cost the same however many goroutines there are.
func BenchmarkHit(b *testing.B) {
	c, keys := newFilled(b, 1<<10)
	for _, goroutines := range []int{1, 2, 8} {
		b.Run(fmt.Sprintf("goroutines=%d", goroutines), func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(max(1, goroutines/runtime.GOMAXPROCS(0)))
			hit := func(i uint64) {
				v, ok := c.Get(keys[i*2654435761%uint64(len(keys))])
				if !ok || len(v.data) != benchData {
					b.Error("a miss")
				}
			}
			if goroutines == 1 {
				for i := range b.N {
					hit(uint64(i))
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for i := uint64(0); pb.Next(); i++ {
					hit(i)
				}
			})
		})
	}
}

func BenchmarkBeginAndFill(b *testing.B) {
	c, keys := newFilled(b, 1<<14)
	b.ReportAllocs()
	for i := range b.N {
		op := c.Begin(keys[i%len(keys)])
		op.Read(cache.Reply[session]{
			Alive: true, Cacheable: true, Server: server, Version: int64(i), Remaining: time.Hour, Size: benchData,
		})
		op.End()
	}
}

func BenchmarkHeardOfWhatIsNotCached(b *testing.B) {
	c, _ := newFilled(b, 1<<14)
	b.ReportAllocs()
	var k cache.Key
	for i := range b.N {
		binary.LittleEndian.PutUint64(k[:], uint64(i))
		c.Heard(k, 1)
	}
}

// heap is what is reachable.
func heap() uint64 {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Not parallel: it measures the heap. The keys are kept by the cache alone.
func TestACachedSessionTakesAtMost300BytesBesideItsData(t *testing.T) {
	const n = 100_000
	before := heap()
	c, keys := newFilled(t, n)
	clear(keys)
	keysSize := uint64(cap(keys)) * uint64(len(cache.Key{}))
	each := float64(heap()-before-keysSize)/n - benchData
	runtime.KeepAlive(keys)
	if s := c.Stats(); s.Entries != n || s.Bytes < n*benchData {
		t.Fatalf("%+v", s)
	}
	t.Logf("%.0f bytes beside the data", each)
	if each > 300 {
		t.Errorf("a session takes %.0f bytes beside its data", each)
	}
}

func TestAHitAllocatesNothing(t *testing.T) {
	c, keys := newFilled(t, 100)
	i := 0
	if n := testing.AllocsPerRun(10_000, func() { c.Get(keys[i%len(keys)]); i++ }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
