package bench

import (
	"os"
	"runtime"
	"strings"

	"github.com/prometheus/procfs"
)

// Machine is where it was measured. What cannot be found out is empty.
type Machine struct {
	OS     string `json:"os"`
	Arch   string `json:"arch"`
	Kernel string `json:"kernel,omitempty"`
	CPU    string `json:"cpu,omitempty"`
	Cores  int    `json:"cores"`
	Memory int64  `json:"memoryBytes,omitempty"`
	// Load is the load average of the last minute, before the run began: above the number of
	// cores, or near it, nothing that was measured is worth much.
	Load float64 `json:"loadAverage"`
}

func thisMachine() Machine {
	m := Machine{OS: runtime.GOOS, Arch: runtime.GOARCH, Cores: runtime.NumCPU(), Load: loadAverage()}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(release))
	}
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return m // not Linux
	}
	m.CPU = cpuModel(fs)
	if mem, err := fs.Meminfo(); err == nil && mem.MemTotalBytes != nil {
		m.Memory = int64(*mem.MemTotalBytes)
	}
	return m
}

// loadAverage is that of the last minute, or 0.
func loadAverage() float64 {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return 0
	}
	l, err := fs.LoadAvg()
	if err != nil {
		return 0
	}
	return l.Load1
}

// self is this process.
var self = os.Getpid()
