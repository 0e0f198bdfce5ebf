//go:build !linux

package bench

import (
	"time"

	"github.com/prometheus/procfs"
)

// cpuModel is not known here.
func cpuModel(procfs.FS) string { return "" }

// nap sleeps for about so long.
func nap(d time.Duration) { time.Sleep(d) }

// descriptors is 0: nobody knows.
func descriptors() int { return 0 }
