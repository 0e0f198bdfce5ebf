package main

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
)

// ballastSize is by how much the heap of a node seems larger to Go's collector than it is. A
// node with few records and clients has a heap of a few megabytes, of which messages
// would fill the same again thirty times a second, and each collection looks at all
// goroutines; on a large heap it makes no difference. See docs/performance/steps.md.
const ballastSize = 32 << 20

// ballast allocates memory that is never touched, and so none of the machine's, until it is
// dropped. An operator who has set GOGC or GOMEMLIMIT has other plans: then it does nothing.
func ballast() (drop func()) {
	if os.Getenv("GOGC") != "" || debug.SetMemoryLimit(-1) != math.MaxInt64 {
		return func() {}
	}
	b := make([]byte, ballastSize)
	return func() { runtime.KeepAlive(b) }
}
