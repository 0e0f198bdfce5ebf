package target

import (
	"os"
	"testing"
)

func TestWhatTheKernelSaysOfAProcess(t *testing.T) {
	for burn := 0; CPU(os.Getpid()) == 0; burn++ { // the kernel counts in steps
		if burn == 1e9 {
			t.Fatal("CPU of this process stays 0")
		}
	}
	if got := RSS(os.Getpid()); got < 1<<20 {
		t.Errorf("RSS of this process = %d bytes", got)
	}
	if got := CPU(0); got != 0 {
		t.Errorf("CPU of no process = %v, want 0", got)
	}
	if got := RSS(0); got != 0 {
		t.Errorf("RSS of no process = %d, want 0", got)
	}
}
