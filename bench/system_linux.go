package bench

import (
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
)

// cpuModel is what the processors call themselves.
func cpuModel(fs procfs.FS) string {
	cpus, err := fs.CPUInfo()
	if err != nil || len(cpus) == 0 {
		return ""
	}
	return strings.Join(strings.Fields(cpus[0].ModelName), " ")
}

// nap sleeps in the kernel, which is more exact than the runtime's timers. It may end early.
func nap(d time.Duration) {
	ts := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&ts, nil) // interrupted: the caller looks at the clock
}

// descriptors is how many files and connections a process may have open, or 0 if nobody knows.
func descriptors() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return int(min(limit.Max, 1<<30)) // Go takes all that it may have
}
