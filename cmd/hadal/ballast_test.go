package main

import (
	"os"
	"runtime"
	"runtime/metrics"
	"testing"

	bench "hadal/bench/target"
)

func TestTheBallastDelaysCollectionsAndTakesNoMemory(t *testing.T) {
	t.Setenv("GOGC", "") // for the test's end: it may be set outside
	before, resident := heapGoal(), bench.RSS(os.Getpid())
	drop := ballast()
	if after := heapGoal(); after < before+ballastSize {
		t.Errorf("the heap may grow to %d bytes with the ballast and %d without, want %d more", after, before, ballastSize)
	}
	// Half of it would be more than chance.
	if grown := bench.RSS(os.Getpid()) - resident; grown > ballastSize/2 {
		t.Errorf("%d bytes of memory more with a ballast of %d that nobody touches", grown, ballastSize)
	}
	drop()

	t.Setenv("GOGC", "100")
	before = heapGoal()
	defer ballast()()
	if after := heapGoal(); after > before+ballastSize/2 {
		t.Errorf("GOGC is set, and the heap may still grow to %d bytes instead of %d", after, before)
	}
}

// heapGoal is how large the heap may grow before it is collected.
func heapGoal() int64 {
	runtime.GC()
	s := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64())
}
