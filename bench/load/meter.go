package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"hadal/bench/target"
)

// warmUp is how long the load runs before it is measured, if that long.
const warmUp = time.Second

// meter counts what happens in the measured time.
type meter struct {
	s        settings
	on       atomic.Bool
	messages atomic.Int64

	mu   sync.Mutex
	hist *hdrhistogram.Histogram // microseconds; guarded by mu

	took        time.Duration
	server, own time.Duration // CPU
	note        string
}

func newMeter(s settings) *meter {
	return &meter{s: s, hist: hdrhistogram.New(1, 60_000_000, 3)}
}

// done counts n messages that took the time since began, if measuring.
func (m *meter) done(n int, began time.Time) {
	if !m.on.Load() {
		return
	}
	m.messages.Add(int64(n))
	if began.IsZero() {
		return
	}
	us := max(time.Since(began).Microseconds(), 1)
	m.mu.Lock()
	defer m.mu.Unlock()
	_ = m.hist.RecordValue(min(us, 60_000_000)) // in range by construction
}

// measure lets the load run, warm-up first.
func (m *meter) measure(ctx context.Context) error {
	if err := target.Pause(ctx, min(warmUp, m.s.time)); err != nil {
		return err
	}
	server, own := target.CPU(m.s.pid), target.CPU(os.Getpid())
	began := time.Now()
	m.on.Store(true)
	err := target.Pause(ctx, m.s.time)
	m.on.Store(false)
	m.took = time.Since(began)
	m.server, m.own = target.CPU(m.s.pid)-server, target.CPU(os.Getpid())-own
	return err
}

func (m *meter) print(out io.Writer, name string) {
	if m.note != "" {
		fmt.Fprintf(out, "%s\t%s\t\t\t\t\t\t\n", name, m.note)
		return
	}
	n := float64(max(m.messages.Load(), 1))
	each := func(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d.Microseconds())/n) }
	ms := func(q float64) string {
		if m.hist.TotalCount() == 0 {
			return "-"
		}
		return fmt.Sprintf("%.2f", float64(m.hist.ValueAtQuantile(q))/1000)
	}
	fmt.Fprintf(out, "%s\t%.0f\t%.0f\t%s\t%s\t%s\t%s\t\n", name, n, n/m.took.Seconds(), each(m.server), ms(50), ms(99), each(m.own))
}
