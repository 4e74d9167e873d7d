//go:build !linux

package main

import "time"

// pace sends each arrival when it is due, as far as the runtime's timers go, and closes the queue.
func pace(start time.Time, due []int64, queue chan<- int64) {
	defer close(queue)
	for _, at := range due {
		time.Sleep(time.Duration(at) - time.Since(start))
		queue <- at
	}
}

// processCPU is unknown here.
func processCPU() time.Duration { return 0 }
