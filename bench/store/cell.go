package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"hadal/bench/target"
	"hadal/store"
)

// dataSize is the size of a record's JSON in the cells.
const dataSize = 128

// cell is one measurement. The fields are its result, in JSON.
type cell struct {
	Store   string `json:"store"`
	Sync    string `json:"sync"`
	Names   string `json:"names"`
	Writers int    `json:"writers"`

	Ops     float64       `json:"ops"`   // a second
	CPU     float64       `json:"cpuUs"` // microseconds an op, the writers' own included
	P50     time.Duration `json:"p50"`
	P99     time.Duration `json:"p99"`
	P999    time.Duration `json:"p999"`
	PerCall float64       `json:"opsPerAppend"`
	// The most that was seen in the LOG, in bytes on disk and in names (a name that
	// changes while a checkpoint writes it counts twice), and the checkpoints that
	// ended.
	LogBytes    uint64 `json:"logBytes"`
	Dirty       int    `json:"dirty"`
	Checkpoints uint64 `json:"checkpoints"`

	Reference *reference `json:"reference,omitempty"`
	Ratio     float64    `json:"ratio,omitempty"` // ops of the reference's
}

// namesOf makes a set of names, or nil when there is no such set.
func namesOf(set string) []string {
	n := map[string]int{"hot": 100, "uniform": 100_000}[set]
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("bench/%d", i))
	}
	return names
}

func (c *cell) measure(ctx context.Context, s settings) (err error) {
	r, err := openRig(ctx, s, c.Store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	names := namesOf(c.Names)
	// Every name exists before the start, as on a node that has been running.
	if err := fill(ctx, r.store, names, dataSize); err != nil {
		return err
	}
	if r.checkpoint != nil {
		if err := r.checkpoint(ctx); err != nil {
			return err
		}
	}
	o := newOwner(r.store)
	ownerCtx, stop := context.WithCancel(ctx)
	var own sync.WaitGroup
	own.Go(func() { o.run(ownerCtx) })
	l := newLoad(o, names)
	l.begin(ctx, c.Writers)
	err = c.watch(ctx, s, r, l)
	err = errors.Join(err, l.end())
	stop()
	own.Wait()
	return err
}

// watch looks on for the measured time.
func (c *cell) watch(ctx context.Context, s settings, r *rig, l *load) error {
	if err := target.Pause(ctx, s.warmUp); err != nil {
		return err
	}
	before, err := r.stats(ctx)
	if err != nil {
		return err
	}
	cpu, began := ownCPU(), time.Now()
	l.measuring.Store(true)
	after := before
	for end := began.Add(s.time); time.Now().Before(end); {
		if err := target.Pause(ctx, min(100*time.Millisecond, time.Until(end))); err != nil {
			return err
		}
		if after, err = r.stats(ctx); err != nil {
			return err
		}
		c.LogBytes, c.Dirty = max(c.LogBytes, after.Bytes), max(c.Dirty, after.Dirty)
	}
	l.measuring.Store(false)
	took := time.Since(began)
	cpu = ownCPU() - cpu
	hist := l.histogram()
	ops := float64(hist.TotalCount())
	if ops == 0 {
		return errors.New("nothing was written in the measured time")
	}
	at := func(q float64) time.Duration { return time.Duration(hist.ValueAtQuantile(q)) * time.Microsecond }
	c.Ops, c.CPU = ops/took.Seconds(), float64(cpu.Microseconds())/ops
	c.P50, c.P99, c.P999 = at(50), at(99), at(99.9)
	if n := after.Appends - before.Appends; n > 0 {
		c.PerCall = ops / float64(n)
	}
	c.Checkpoints = after.Checkpoints - before.Checkpoints
	if ref, ok := references[place{c.Store, c.Sync, c.Names, c.Writers}]; ok {
		c.Reference, c.Ratio = &ref, c.Ops/ref.Ops
	}
	return nil
}

// load is the writers.
type load struct {
	owner     *owner
	names     []string
	measuring atomic.Bool
	ending    atomic.Bool
	wg        sync.WaitGroup
	failed    chan error // holds the first
	shards    [64]shard
}

// shard is where some of the writers note how long they waited.
type shard struct {
	mu   sync.Mutex
	hist *hdrhistogram.Histogram // microseconds; guarded by mu
	_    [64]byte                // apart from the next one's lock
}

func newLoad(o *owner, names []string) *load {
	l := &load{owner: o, names: names, failed: make(chan error, 1)}
	for i := range l.shards {
		l.shards[i].hist = hdrhistogram.New(1, 60_000_000, 3)
	}
	return l
}

func (l *load) begin(ctx context.Context, writers int) {
	for i := range writers {
		l.wg.Go(func() {
			if err := l.write(ctx, i, writers == 1); err != nil {
				l.ending.Store(true)
				select {
				case l.failed <- err:
				default:
				}
			}
		})
	}
}

// write is one writer. A writer that is alone knows the versions; among others
// it does not ask for one.
func (l *load) write(ctx context.Context, seat int, alone bool) error {
	random := rand.New(rand.NewPCG(1, uint64(seat)))
	sh := &l.shards[seat%len(l.shards)]
	versions := make(map[string]int32)
	data := jsonOf(dataSize)
	w := &write{done: make(chan error, 1)}
	for n := uint64(seat); !l.ending.Load() && ctx.Err() == nil; n++ {
		number(data, n)
		w.name, w.data, w.version = l.names[random.IntN(len(l.names))], string(data), -1
		if alone {
			w.version = versions[w.name]
			versions[w.name]++
		}
		began := time.Now()
		l.owner.put(w)
		if err := <-w.done; err != nil {
			return err
		}
		if l.measuring.Load() {
			took := min(max(time.Since(began).Microseconds(), 1), 60_000_000)
			sh.mu.Lock()
			err := sh.hist.RecordValue(took)
			sh.mu.Unlock()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// end stops the writers and returns their first error.
func (l *load) end() error {
	l.ending.Store(true)
	l.wg.Wait()
	select {
	case err := <-l.failed:
		return err
	default:
		return nil
	}
}

func (l *load) histogram() *hdrhistogram.Histogram {
	all := hdrhistogram.New(1, 60_000_000, 3)
	for i := range l.shards {
		sh := &l.shards[i]
		sh.mu.Lock()
		all.Merge(sh.hist) // of the same shape, so it drops nothing
		sh.mu.Unlock()
	}
	return all
}

// jsonOf is JSON of that size, with 16 digits in front.
func jsonOf(size int) []byte {
	const frame = len(`{"n":"","v":""}`) + 16
	return []byte(`{"n":"` + strings.Repeat("0", 16) + `","v":"` + strings.Repeat("x", size-frame) + `"}`)
}

// number writes n into JSON that jsonOf made, so that no two are alike.
func number(data []byte, n uint64) {
	for i := 5 + 16; i > 5; i-- {
		data[i] = "0123456789abcdef"[n&15]
		n >>= 4
	}
}

// fill writes every name once, with version 0.
func fill(ctx context.Context, st store.Store, names []string, size int) error {
	data := string(jsonOf(size))
	var ops []store.Op
	for i, name := range names {
		ops = append(ops, store.Op{Record: store.Record{Name: name, Data: data}})
		if len(ops) == 500 || i == len(names)-1 {
			if err := st.Append(ctx, ops); err != nil {
				return err
			}
			ops = ops[:0]
		}
	}
	return nil
}

// ownCPU is the time that this process has used, user and system.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(os.NewSyscallError("getrusage", err)) // it cannot fail for oneself
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
