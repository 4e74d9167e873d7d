package main

import (
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

func startRedis(ctx context.Context, dir string, durable bool) (*redisServer, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	args := []string{"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--save", "", "--dir", dir}
	if durable {
		args = append(args, "--appendonly", "yes", "--appendfsync", "always")
	}
	server := exec.CommandContext(ctx, "redis-server", args...)
	if err := server.Start(); err != nil {
		return nil, fmt.Errorf("apt-get install redis-server: %w", err)
	}
	r := &redisServer{address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), pid: server.Process.Pid}
	r.stop = func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}
	client := redis.NewClient(&redis.Options{Addr: r.address})
	defer client.Close() //nolint:errcheck // nothing was written
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := client.Ping(ctx).Err()
		switch {
		case err == nil:
			return r, nil
		case ctx.Err() != nil || time.Now().After(deadline):
			r.stop()
			return nil, fmt.Errorf("redis-server does not answer: %w", err)
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

// version is what the server says of itself.
func (r *redisServer) version(ctx context.Context) (string, error) {
	client := redis.NewClient(&redis.Options{Addr: r.address})
	defer client.Close() //nolint:errcheck // nothing was written
	info, err := client.Info(ctx, "server").Result()
	_, rest, _ := strings.Cut(info, "redis_version:")
	version, _, _ := strings.Cut(rest, "\r\n")
	return version, err
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
