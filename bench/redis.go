package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/alexedwards/scs/redisstore"
	redigo "github.com/gomodule/redigo/redis"
	"github.com/redis/go-redis/v9"
)

// redisServer is a Redis over loopback that keeps everything in memory and writes nothing to disk, or
// one that waits for its disk at each write, as PostgreSQL does.
type redisServer struct {
	address string
	pid     int
	stop    func()
}

// portAttempts is how many ports are tried: between finding a free one and binding it, another server
// may, and answer in the place of ours.
const portAttempts = 5

func startRedis(ctx context.Context, dir string, durable bool) (r *redisServer, err error) {
	for range portAttempts {
		var port int
		if port, err = freePort(); err != nil {
			return nil, err
		}
		if r, err = startRedisAt(ctx, port, dir, durable); !errors.Is(err, errPortTaken) {
			return r, err
		}
	}
	return nil, err
}

var errPortTaken = errors.New("another server has the port")

func startRedisAt(ctx context.Context, port int, dir string, durable bool) (*redisServer, error) {
	args := []string{"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--save", "", "--dir", dir}
	if durable {
		args = append(args, "--appendonly", "yes", "--appendfsync", "always")
	}
	server := exec.CommandContext(ctx, "redis-server", args...)
	var said bytes.Buffer // why it ended, if it does
	server.Stdout = &said
	if err := server.Start(); err != nil {
		return nil, fmt.Errorf("apt-get install redis-server: %w", err)
	}
	r := &redisServer{address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), pid: server.Process.Pid}
	ended := make(chan struct{})
	go func() {
		_ = server.Wait()
		close(ended)
	}()
	r.stop = func() {
		_ = server.Process.Kill()
		<-ended
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		pid, err := r.says(ctx, "process_id")
		switch {
		case err == nil && pid == strconv.Itoa(r.pid):
			return r, nil
		case err == nil:
			r.stop()
			return nil, fmt.Errorf("redis-server at %s: %w", r.address, errPortTaken)
		case ctx.Err() != nil || time.Now().After(deadline):
			r.stop()
			return nil, fmt.Errorf("redis-server does not answer: %w", err)
		}
		select {
		case <-ended: // it ends at once where it cannot have the port
			return nil, fmt.Errorf("redis-server at %s ended: %w, or: %s", r.address, errPortTaken, bytes.TrimSpace(said.Bytes()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close() //nolint:errcheck // it has no connection
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// says is what the server says of itself.
func (r *redisServer) says(ctx context.Context, name string) (string, error) {
	client := redis.NewClient(&redis.Options{Addr: r.address})
	defer client.Close() //nolint:errcheck // nothing was written
	info, err := client.Info(ctx, "server").Result()
	_, rest, _ := strings.Cut(info, "\r\n"+name+":")
	value, _, _ := strings.Cut(rest, "\r\n")
	return value, err
}

// goRedis is what one writes by hand with go-redis: GET, SET with a deadline, PEXPIRE, DEL.
type goRedis struct{ client *redis.Client }

func openGoRedis(address string) func(context.Context, place) (sessionStore, error) {
	return func(_ context.Context, at place) (sessionStore, error) {
		return goRedis{redis.NewClient(&redis.Options{Addr: address, PoolSize: at.clients})}, nil
	}
}

func (s goRedis) create(ctx context.Context, data []byte) (string, error) {
	key := newKey()
	return key, s.write(ctx, key, data)
}

func (s goRedis) read(ctx context.Context, key string) ([]byte, error) {
	data, err := s.client.Get(ctx, key).Bytes()
	if errors.Is(err, redis.Nil) {
		return present(nil, false, nil)
	}
	return data, err
}

func (s goRedis) write(ctx context.Context, key string, data []byte) error {
	return s.client.Set(ctx, key, data, idleTimeout).Err()
}

func (s goRedis) touch(ctx context.Context, key string, _ []byte) error {
	found, err := s.client.PExpire(ctx, key, idleTimeout).Result()
	_, err = present(nil, found, err)
	return err
}

func (s goRedis) destroy(ctx context.Context, key string) error {
	return s.client.Del(ctx, key).Err()
}

func (s goRedis) close() error { return s.client.Close() }

func openRedisstore(address string) func(context.Context, place) (sessionStore, error) {
	return func(_ context.Context, at place) (sessionStore, error) {
		pool := &redigo.Pool{
			MaxIdle: at.clients, MaxActive: at.clients, Wait: true,
			Dial: func() (redigo.Conn, error) { return redigo.Dial("tcp", address) },
		}
		return scsWithout{redisstore.New(pool), pool.Close}, nil
	}
}
