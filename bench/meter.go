package bench

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"hadal/bench/target"
)

// Latencies are counted in microseconds up to a minute; what takes longer counts as that.
const (
	longest = 60_000_000
	figures = 3
)

// shards is how many histograms receivers share: enough that two seldom want the same one.
const shards = 32

// shard is one of them.
type shard struct {
	mu   sync.Mutex
	hist *hdrhistogram.Histogram // guarded by mu
	_    [48]byte                // so that neighbours do not share a line
}

// histogram counts latencies from many goroutines.
type histogram [shards]shard

func newHistogram() *histogram {
	var h histogram
	for i := range h {
		h[i].hist = hdrhistogram.New(1, longest, figures)
	}
	return &h
}

// record counts n nanoseconds.
func (s *shard) record(n int64) {
	us := min(max(n/1000, 1), longest)
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.hist.RecordValue(us) // in range by construction
}

// reset forgets everything.
func (h *histogram) reset() {
	for i := range h {
		h[i].mu.Lock()
		h[i].hist.Reset()
		h[i].mu.Unlock()
	}
}

// sum is everything in one histogram.
func (h *histogram) sum() *hdrhistogram.Histogram {
	all := hdrhistogram.New(1, longest, figures)
	for i := range h {
		h[i].mu.Lock()
		all.Merge(h[i].hist)
		h[i].mu.Unlock()
	}
	return all
}

// latency is a histogram as results have it.
func latency(h *hdrhistogram.Histogram) Latency {
	l := Latency{Count: h.TotalCount()}
	if l.Count == 0 {
		return l
	}
	q := func(percent float64) float64 { return float64(h.ValueAtQuantile(percent)) }
	l.Mean, l.Max = h.Mean(), float64(h.Max())
	l.P50, l.P90, l.P99, l.P999, l.P9999 = q(50), q(90), q(99), q(99.9), q(99.99)
	if b, err := h.Encode(hdrhistogram.V2CompressedEncodingCookieBase); err == nil {
		l.Hdr = string(b)
	}
	return l
}

// moment is what can be read of a run at any time.
type moment struct {
	at       time.Time
	messages int64
	server   time.Duration // CPU
	own      time.Duration
	memory   int64
}

// meter reads what a run does. The messages are counted by those who hear them.
type meter struct {
	server   *server
	messages func() int64
	latency  *histogram
	lag      *histogram // of the generator

	first, last moment
	samples     []Sample
}

func (m *meter) read() moment {
	r := moment{at: time.Now(), messages: m.messages(), own: target.CPU(self)}
	r.server, r.memory = m.server.usage()
	return r
}

// begin begins the measured time.
func (m *meter) begin() {
	m.latency.reset()
	m.lag.reset()
	m.samples = nil
	m.first = m.read()
	m.last = m.first
}

// sample adds what happened since the last one, and returns it.
func (m *meter) sample() Sample {
	r := m.read()
	took := r.at.Sub(m.last.at).Seconds()
	s := Sample{At: r.at.Sub(m.first.at).Seconds(), Memory: r.memory}
	if took > 0 {
		s.PerSecond = float64(r.messages-m.last.messages) / took
		s.CPU = (r.server - m.last.server).Seconds() / took
	}
	m.last = r
	m.samples = append(m.samples, s)
	return s
}

// finish writes into run what was measured since begin.
func (m *meter) finish(run *Run) {
	last := m.read()
	run.Seconds = last.at.Sub(m.first.at).Seconds()
	run.Messages = last.messages - m.first.messages
	server, own := last.server-m.first.server, last.own-m.first.own
	run.ServerCPU, run.Memory = server.Seconds(), last.memory
	run.Samples = m.samples
	run.Latency = latency(m.latency.sum())
	if run.Messages > 0 {
		n := float64(run.Messages)
		run.PerSecond = n / run.Seconds
		run.CPUEach = server.Seconds() * 1e6 / n
		run.Generator = own.Seconds() * 1e6 / n
	}
	if server > 0 {
		run.PerCPU = float64(run.Messages) / server.Seconds()
	}
	if lag := m.lag.sum(); lag.TotalCount() > 0 {
		run.LagP99 = float64(lag.ValueAtQuantile(99))
	}
}
