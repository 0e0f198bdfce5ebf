package bench

import (
	"syscall"
	"time"
)

// nap sleeps in the kernel, which is more exact than the runtime's timers. It may end early.
func nap(d time.Duration) {
	ts := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&ts, nil) // interrupted: the caller looks at the clock
}
