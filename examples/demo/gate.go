package main

import "sync"

// gate holds requests back until somebody opens it.
type gate struct {
	mu     sync.Mutex
	opened chan struct{}
}

func newGate() *gate { return &gate{opened: make(chan struct{})} }

// wait returns what is closed when the gate opens next.
func (g *gate) wait() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.opened
}

// release lets all go that wait now. Who comes later waits for the next time.
func (g *gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.opened)
	g.opened = make(chan struct{})
}
