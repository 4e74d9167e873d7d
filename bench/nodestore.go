package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// nodeStore is a store for Node, in a process of its own: node/load.mjs, to which it speaks lines of
// JSON. The process measures by itself what it is asked to; single operations are for checks alone.
type nodeStore struct {
	cmd     *exec.Cmd
	input   io.WriteCloser
	answers *bufio.Reader
	log     *bytes.Buffer // standard error
	mu      sync.Mutex    // a request and its answer
}

const nodeDirectory = "node"

// installNode installs the pinned packages, unless they are there.
var installNode = sync.OnceValue(func() error {
	lock := filepath.Join(nodeDirectory, "package-lock.json")
	installed := filepath.Join(nodeDirectory, "node_modules", ".package-lock.json") // npm writes it last
	wanted, err := os.Stat(lock)
	if err != nil {
		return err
	}
	if have, err := os.Stat(installed); err == nil && have.ModTime().After(wanted.ModTime()) {
		return nil
	}
	cmd := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = nodeDirectory
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w: %s", err, out)
	}
	return nil
})

func openNode(name string) func(context.Context, place) (sessionStore, error) {
	return func(ctx context.Context, at place) (sessionStore, error) {
		if err := installNode(); err != nil {
			return nil, err
		}
		cmd := exec.CommandContext(ctx, "node", "load.mjs", name, at.url, strconv.Itoa(at.clients))
		cmd.Dir = nodeDirectory
		s := &nodeStore{cmd: cmd, log: &bytes.Buffer{}}
		cmd.Stderr = s.log
		input, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		output, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		s.input, s.answers = input, bufio.NewReaderSize(output, 1<<20)
		return s, cmd.Start()
	}
}

// ask sends a request and reads its answer into result.
func (s *nodeStore) ask(request map[string]any, result any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	line, err := json.Marshal(request)
	if err != nil {
		return err
	}
	if _, err := s.input.Write(append(line, '\n')); err != nil {
		return s.gone(err)
	}
	line, err = s.answers.ReadBytes('\n')
	if err != nil {
		return s.gone(err)
	}
	var answer struct {
		Result json.RawMessage
		Error  string
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		return fmt.Errorf("node answered %.100q: %w", line, err)
	}
	if answer.Error != "" {
		return errors.New(answer.Error)
	}
	return json.Unmarshal(answer.Result, result)
}

// gone is the error where the process has ended: it waits for it, so that all it said is there.
func (s *nodeStore) gone(err error) error {
	_ = s.cmd.Wait()
	return fmt.Errorf("node: %w: %s", err, strings.TrimSpace(s.log.String()))
}

func (s *nodeStore) create(_ context.Context, data []byte) (key string, err error) {
	err = s.ask(map[string]any{"do": "create", "data": string(data)}, &key)
	return key, err
}

func (s *nodeStore) read(_ context.Context, key string) ([]byte, error) {
	var data *string
	if err := s.ask(map[string]any{"do": "read", "key": key}, &data); err != nil || data == nil {
		return present(nil, false, err)
	}
	return []byte(*data), nil
}

func (s *nodeStore) write(_ context.Context, key string, data []byte) error {
	return s.ask(map[string]any{"do": "write", "key": key, "data": string(data)}, new(any))
}

func (s *nodeStore) touch(_ context.Context, key string, data []byte) error {
	return s.ask(map[string]any{"do": "touch", "key": key, "data": string(data)}, new(any))
}

func (s *nodeStore) destroy(_ context.Context, key string) error {
	return s.ask(map[string]any{"do": "destroy", "key": key}, new(any))
}

func (s *nodeStore) close() error {
	_ = s.input.Close() // which ends it
	done := make(chan error, 1)
	go func() { done <- s.cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(5 * time.Second):
		_ = s.cmd.Process.Kill()
		return errors.New("node did not end")
	}
}

// versions are those of what runs there.
func (s *nodeStore) versions() (map[string]string, error) {
	var versions map[string]string
	err := s.ask(map[string]any{"do": "versions"}, &versions)
	return versions, err
}

// prepare gives the process what it draws from, and what it writes.
func (s *nodeStore) prepare(d *draws) error {
	return s.ask(map[string]any{
		"do": "prepare", "keys": d.keys, "template": string(d.template), "mix": mixPattern(),
	}, new(any))
}

func (s *nodeStore) run(l load) (outcome, error) {
	request := map[string]any{
		"do": "closed", "workload": l.workload, "clients": l.clients, "nanoseconds": l.duration.Nanoseconds(),
	}
	if l.rate > 0 {
		request["do"], request["arrivals"] = "open", l.arrivals()
	}
	var result struct {
		Calls        int64
		Elapsed, CPU time.Duration
		Latencies    []int64
	}
	if err := s.ask(request, &result); err != nil {
		return outcome{}, err
	}
	o := outcome{Calls: result.Calls, Elapsed: result.Elapsed, CPU: result.CPU}
	return o, o.record(result.Latencies)
}
