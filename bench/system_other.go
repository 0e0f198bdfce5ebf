//go:build !linux

package bench

import "time"

// nap sleeps for about so long.
func nap(d time.Duration) { time.Sleep(d) }

// descriptors is 0: nobody knows.
func descriptors() int { return 0 }
