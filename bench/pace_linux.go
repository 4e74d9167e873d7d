package main

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// pace sends each arrival when it is due, and closes the queue. The runtime's timers are late by up to
// a millisecond where nothing else is to be done, so this sleeps in the kernel, with a slack of a
// nanosecond in place of 50 microseconds.
func pace(start time.Time, due []int64, queue chan<- int64) {
	defer close(queue)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with its goroutine, slack and all
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
		for _, at := range due {
			if wait := time.Duration(at) - time.Since(start); wait > 0 {
				spec := unix.NsecToTimespec(int64(wait))
				_ = unix.Nanosleep(&spec, nil)
			}
			queue <- at
		}
	}()
	<-done
}

// processCPU is what this process has used.
func processCPU() time.Duration {
	var usage unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
