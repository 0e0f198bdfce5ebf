package hasher

import (
	"fmt"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const hasPriorities = true

const (
	// below is by how much nicer the process is than this one, and nicest the lowest
	// priority that Linux has. Three leave it a third of a processor that the node wants
	// as well: people can log in to a busy node, too.
	below, nicest = 3, 19
	// slice is for how long, in nanoseconds, it may keep the processor from a thread of
	// the node that wakes up: since Linux 6.6 a thread runs until its slice is over,
	// however low its priority, and that is 3 ms if nobody says another. Before 6.12 it
	// cannot be said, and is ignored.
	slice = 100_000
)

// startBelow starts cmd at a lower priority. On Linux that is a matter of threads, and a
// process has what the thread has that started it; a thread without privileges cannot
// take it back, so this one ends afterwards.
func startBelow(cmd *exec.Cmd) error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocks it: the thread ends with the goroutine
		if syscall.Gettid() == syscall.Getpid() {
			// The first thread cannot end, and its priority is what is told as the program's.
			defer runtime.UnlockOSThread()
			started <- startBelow(cmd) // on another, as this one is taken
			return
		}
		if err := yield(); err != nil {
			started <- fmt.Errorf("lower the priority: %w", err)
			return
		}
		started <- cmd.Start()
	}()
	return <-started
}

// yield lowers the priority of the caller's thread.
func yield() error {
	nice, err := niceness(0)
	if err != nil {
		return err
	}
	nice = min(nice+below, nicest)
	err = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: int32(nice), Runtime: slice}, 0)
	if err != nil { // a sandbox that forbids it may allow what is older
		err = syscall.Setpriority(syscall.PRIO_PROCESS, 0, nice)
	}
	return err
}

// niceness is that of a thread, 0 for the caller's.
func niceness(thread int) (int, error) {
	n, err := syscall.Getpriority(syscall.PRIO_PROCESS, thread)
	return 20 - n, err // the system call has no negative answers
}
