package jetstream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"hadal/store"
	"hadal/store/storetest"
)

// record128 is JSON of 128 bytes.
var record128 = `{"v":"` + strings.Repeat("x", 120) + `"}`

func BenchmarkAppend(b *testing.B) {
	for _, sync := range []bool{true, false} {
		for _, n := range []int{1, 2, 16, 128, 1000} {
			b.Run(fmt.Sprintf("sync=%v/ops=%d", sync, n), func(b *testing.B) {
				s := newRig(b, sync).fenced(b)
				ops := make([]store.Op, n)
				i := 0
				b.ReportAllocs()
				for b.Loop() {
					for j := range ops {
						ops[j] = storetest.Put(fmt.Sprintf("users/u%d", i%100_000), int32(i), record128)
						i++
					}
					if err := s.Append(context.Background(), ops); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "records/s")
			})
		}
	}
}

// BenchmarkAppendOne compares the two ways to store one record.
func BenchmarkAppendOne(b *testing.B) {
	for _, batch := range []bool{false, true} {
		b.Run(fmt.Sprintf("batch=%v", batch), func(b *testing.B) {
			s := newRig(b, true).fenced(b)
			base := s.base
			b.ReportAllocs()
			for b.Loop() {
				msg := nats.Msg{Subject: s.subject("users/u1"), Header: nats.Header{headerLastSeq: {fmt.Sprint(base)}}}
				msg.Data = appendEntry(nil, &entry{Op: storetest.Put("users/u1", 1, record128)})
				if batch {
					msg.Header[headerBatchID] = []string{fmt.Sprint(base)}
					msg.Header[headerBatchSeq] = []string{"1"}
					msg.Header[headerBatchCommit] = []string{"1"}
				}
				seq, err := s.publish(b.Context(), &msg)
				if err != nil {
					b.Fatal(err)
				}
				base = seq
			}
		})
	}
}

func filled(b *testing.B, n int) *Store {
	b.Helper()
	s := newRig(b, false).fenced(b)
	var ops []store.Op
	for i := range n {
		ops = append(ops, storetest.Put(fmt.Sprintf("dir%d/u%d", i%10, i), int32(i), record128))
		if len(ops) == store.MaxOps {
			mustAppend(b, s, ops...)
			ops = ops[:0]
		}
	}
	return s
}

func BenchmarkLoad(b *testing.B) {
	s := filled(b, 50_000)
	load := func(b *testing.B, name func() string) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Load(b.Context(), name()); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("hot", func(b *testing.B) { load(b, func() string { return "dir7/u7" }) })
	b.Run("random", func(b *testing.B) {
		load(b, func() string { i := rand.IntN(50_000); return fmt.Sprintf("dir%d/u%d", i%10, i) })
	})
	b.Run("missing", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Load(b.Context(), "nobody/1"); err == nil {
				b.Fatal("found")
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := s.Load(b.Context(), "dir7/u7"); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
	mustAppend(b, s, storetest.Put("big", 1, strings.Repeat("x", 1<<20)))
	b.Run("mebibyte", func(b *testing.B) { load(b, func() string { return "big" }) })
}

func BenchmarkScan(b *testing.B) {
	s := filled(b, 50_000)
	for _, prefix := range []string{"", "dir3/", "dir3/u123"} {
		b.Run(fmt.Sprintf("prefix=%s", prefix), func(b *testing.B) {
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if err := s.Scan(b.Context(), prefix, func(store.Record) error { n++; return nil }); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkNames lists more subjects than the server names in one answer.
func BenchmarkNames(b *testing.B) {
	const all = 110_000
	s := filled(b, all)
	for prefix, want := range map[string]int{"": all, "dir3/": all / 10} {
		b.Run(fmt.Sprintf("prefix=%s", prefix), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				n := 0
				if err := s.Names(b.Context(), prefix, func(string) error { n++; return nil }); err != nil || n != want {
					b.Fatalf("%d names, %v, want %d", n, err, want)
				}
			}
			b.ReportMetric(float64(b.N*want)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

func BenchmarkPayload(b *testing.B) {
	e := entry{Op: storetest.Put("users/alice", 12, record128)}
	p := appendEntry(nil, &e)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p = appendEntry(p[:0], &e)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := decodeEntry(p); err != nil {
				b.Fatal(err)
			}
		}
	})
}
