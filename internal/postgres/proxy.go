package postgres

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// dialTimeout bounds the proxy's own connecting to its target.
const dialTimeout = 10 * time.Second

// Proxy is a TCP proxy on 127.0.0.1 that stands for a network: one that works, is slow, stalls, loses
// everything, or breaks connections. It starts out working. Its methods are safe for concurrent use.
type Proxy struct {
	listener net.Listener
	target   string
	running  sync.WaitGroup

	mu      sync.Mutex
	mode    proxyMode
	delay   time.Duration
	links   map[*link]struct{}
	changed chan struct{} // closed when the mode changes
	stalled int           // how many pieces wait for that
}

type proxyMode int

const (
	forwarding proxyMode = iota // with a delay, which may be none
	refusing
	stalling
	swallowing
	resetting
)

// link is a client's connection and ours to the target for it. Proxy.mu guards its fields.
type link struct {
	client, server *net.TCPConn // server is nil until dialled, and for good while swallowing
	lossy          bool         // something was swallowed
	over           chan struct{}
}

// NewProxy starts a proxy for target, the host and port of a server.
func NewProxy(target string) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	p := &Proxy{listener: listener, target: target, links: make(map[*link]struct{}), changed: make(chan struct{})}
	p.running.Go(p.accept)
	return p, nil
}

// Address returns the host and port to connect to instead of the target's: see [WithAddress].
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Forward passes everything on at once.
func (p *Proxy) Forward() { p.set(forwarding, 0) }

// Delay passes everything on, each piece that long after it came, in both directions.
func (p *Proxy) Delay(d time.Duration) { p.set(forwarding, d) }

// Refuse passes everything on at once, and breaks new connections.
func (p *Proxy) Refuse() { p.set(refusing, 0) }

// Stall keeps what either side sends, to be passed on when this ends, and breaks new connections.
func (p *Proxy) Stall() { p.set(stalling, 0) }

// Stalled is in how many directions, of all connections, something waits for Stall to end: what comes while it
// stalls, the end of a connection included, and not what a delay holds.
func (p *Proxy) Stalled() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stalled
}

// Swallow keeps connections open, accepts new ones, and throws away what either side sends, the end
// of a connection included. Since TCP never loses a part of a stream, connections that did lose
// something are reset when this ends.
func (p *Proxy) Swallow() { p.set(swallowing, 0) }

// Reset breaks every connection (RST), and new ones as they come.
func (p *Proxy) Reset() { p.set(resetting, 0) }

func (p *Proxy) set(mode proxyMode, delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode, p.delay = mode, delay
	close(p.changed)
	p.changed = make(chan struct{})
	for l := range p.links {
		if p.fate(l) == resetting {
			p.end(l, true)
		}
	}
}

// fate is what the mode means for a link. p.mu must be held.
func (p *Proxy) fate(l *link) proxyMode {
	if l.lossy && p.mode != swallowing {
		return resetting
	}
	return p.mode
}

// end closes both connections of a link, rudely (RST) or not. p.mu must be held.
func (p *Proxy) end(l *link, rudely bool) {
	if _, open := p.links[l]; !open {
		return
	}
	delete(p.links, l)
	for _, conn := range []*net.TCPConn{l.client, l.server} {
		if conn != nil {
			if rudely {
				_ = conn.SetLinger(0)
			}
			_ = conn.Close()
		}
	}
	close(l.over)
}

// Close resets every connection, stops listening, and returns when all is over.
func (p *Proxy) Close() error {
	err := p.listener.Close()
	p.set(resetting, 0)
	p.running.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (p *Proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		l := &link{client: conn.(*net.TCPConn), over: make(chan struct{})}
		p.mu.Lock()
		p.links[l] = struct{}{}
		l.lossy = p.mode == swallowing // for the target is not dialled
		switch p.mode {
		case refusing, stalling, resetting:
			p.end(l, true)
		case swallowing:
			p.running.Go(func() { p.pump(l, nil, l.client) })
		case forwarding:
			p.running.Go(func() { p.serve(l) })
		}
		p.mu.Unlock()
	}
}

func (p *Proxy) serve(l *link) {
	server, err := net.DialTimeout("tcp", p.target, dialTimeout)
	p.mu.Lock()
	if err != nil {
		p.end(l, true)
		p.mu.Unlock()
		return
	}
	l.server = server.(*net.TCPConn)
	if _, open := p.links[l]; !open { // ended while dialling
		_ = server.Close()
	}
	p.mu.Unlock()

	var back sync.WaitGroup
	back.Go(func() { p.pump(l, l.client, l.server) })
	p.pump(l, l.server, l.client)
	back.Wait()
	p.mu.Lock()
	p.end(l, false)
	p.mu.Unlock()
}

// pump passes on one direction of a link until it ends.
func (p *Proxy) pump(l *link, to, from *net.TCPConn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		fate, delay := p.await(l)
		switch {
		case fate == swallowing && err == nil:
			continue
		case fate == swallowing:
			<-l.over // the other side is not to learn of the end
			return
		case fate == resetting:
			return // or about to be
		}
		if delay > 0 {
			select {
			case <-time.After(delay):
			case <-l.over:
				return
			}
		}
		if n > 0 {
			if _, writeErr := to.Write(buffer[:n]); writeErr != nil {
				err = writeErr
			}
		}
		if err != nil {
			p.finish(l, to, err)
			return
		}
	}
}

// await is the fate, and the delay, of what a link just carried, once that is no longer to wait.
func (p *Proxy) await(l *link) (proxyMode, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.mode == stalling {
		changed := p.changed
		p.stalled++
		p.mu.Unlock()
		select {
		case <-changed:
		case <-l.over:
		}
		p.mu.Lock()
		p.stalled--
		if _, open := p.links[l]; !open {
			return resetting, 0
		}
	}
	fate := p.fate(l)
	l.lossy = l.lossy || fate == swallowing
	return fate, p.delay
}

// finish passes on how one direction ended: in good order, or broken.
func (p *Proxy) finish(l *link, to *net.TCPConn, err error) {
	if errors.Is(err, io.EOF) && to.CloseWrite() == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end(l, true)
}
