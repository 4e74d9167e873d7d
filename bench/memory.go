package main

import (
	"context"
	"fmt"
	"runtime"
)

const memoryLimit = 300 // bytes

// memory measures what an instance needs for the sessions that it caches.
func memory(ctx context.Context, url string, res *results, _ options) error {
	d, err := newDuo(ctx, url)
	if err != nil {
		return err
	}
	defer d.close(ctx)
	tokens, err := fill(ctx, d.a)
	if err != nil {
		return err
	}
	before := heap()
	for _, token := range tokens {
		if _, err := d.b.Get(ctx, token); err != nil {
			return err
		}
	}
	each := float64(heap()-before)/sessionCount - dataSize
	res.printf("memory: %.0f bytes for each cached session beyond its data, at most %d", each, memoryLimit)
	runtime.KeepAlive(d)
	if each > memoryLimit {
		return fmt.Errorf("%w: memory", errBeyondLimit)
	}
	return nil
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
