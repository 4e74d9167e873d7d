// Package keymutex is a mutex for each key of a large set, of which few are locked at a time.
package keymutex

import (
	"context"
	"sync"
)

// Mutex is a mutual exclusion lock for each key. The zero value is ready.
type Mutex[K comparable] struct {
	mu    sync.Mutex
	locks map[K]*lock
}

// lock is kept while anyone holds it or waits for it.
type lock struct {
	held  chan struct{} // has room for one: sending is locking
	users int           // under Mutex.mu
}

// Lock locks a key and returns what unlocks it, to be called once. It gives up with the context's
// error when the context ends first.
func (m *Mutex[K]) Lock(ctx context.Context, key K) (unlock func(), err error) {
	m.mu.Lock()
	if m.locks == nil {
		m.locks = make(map[K]*lock)
	}
	l := m.locks[key]
	if l == nil {
		l = &lock{held: make(chan struct{}, 1)}
		m.locks[key] = l
	}
	l.users++
	m.mu.Unlock()

	select {
	case l.held <- struct{}{}:
		return func() {
			<-l.held
			m.leave(key, l)
		}, nil
	case <-ctx.Done():
		m.leave(key, l)
		return nil, ctx.Err()
	}
}

func (m *Mutex[K]) leave(key K, l *lock) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(m.locks, key)
	}
}
