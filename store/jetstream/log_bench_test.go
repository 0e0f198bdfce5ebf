package jetstream

import (
	"context"
	"fmt"
	"testing"
	"time"

	"hadal/store"
	"hadal/store/storetest"
)

// BenchmarkLogAppend is BenchmarkAppend with a LOG in front, checkpoints at their
// usual moments, hot names and names of which each is written rarely.
func BenchmarkLogAppend(b *testing.B) {
	for _, names := range []int{100, 100_000} {
		for _, n := range []int{1, 16, 64, 128, 1000} {
			b.Run(fmt.Sprintf("names=%d/ops=%d", names, n), func(b *testing.B) {
				l := newLogRig(b, true, LogOptions{CheckpointAge: 5 * time.Second}).fenced(b, 1)
				ops := make([]store.Op, n)
				i := 0
				b.ReportAllocs()
				for b.Loop() {
					for j := range ops {
						ops[j] = storetest.Put(fmt.Sprintf("users/u%d", i%names), int32(i), record128)
						i++
					}
					if err := l.Append(context.Background(), ops); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "records/s")
			})
		}
	}
}

// BenchmarkReplay is a Fence over 400 batches of 500 records.
func BenchmarkReplay(b *testing.B) {
	l := newLogRig(b, false, LogOptions{CheckpointRecords: 1 << 30, CheckpointBytes: 128 << 20}).fenced(b, 1)
	ops := make([]store.Op, 500)
	for i := range 400 {
		for j := range ops {
			ops[j] = storetest.Put(fmt.Sprintf("users/u%d", i*len(ops)+j), int32(i), record128)
		}
		logAppend(b, l, ops...)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Fence(context.Background(), 1); err != nil {
			b.Fatal(err)
		}
	}
}
