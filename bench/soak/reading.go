package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"text/tabwriter"
	"time"

	"hadal/bench/target"
)

// reading is what a node holds at a moment.
type reading struct {
	when   string
	values [len(quantities)]float64
}

// quantity is one thing that a node holds, and how much more than before it may
// be afterwards: the band.
type quantity struct {
	name string
	unit float64 // for people
	band func(before float64) float64
}

func atMost(n float64) func(float64) float64 { return func(float64) float64 { return n } }

const mb = 1e6

// The indexes of quantities that the program itself asks for.
const (
	heap = iota
	goroutines
	descriptors
	rss
	dataDir
	counted // the first of those that metrics tell by name
)

// quantities are all that is read. Those from counted on are metrics of that name,
// in the node's own terms, which come back exactly.
var quantities = [...]quantity{
	heap:        {"heap in use, MB", mb, func(before float64) float64 { return 8*mb + before/10 }},
	goroutines:  {"goroutines", 1, atMost(16)},
	descriptors: {"descriptors", 1, atMost(8)},
	// Go gives memory back late, and the server's block caches come and go.
	rss:         {"resident memory, MB", mb, func(before float64) float64 { return 128*mb + before }},
	dataDir:     {"data directory, MB", mb, atMost(64 * mb)},
	counted:     {"hadal_connections", 1, atMost(0)},
	counted + 1: {"hadal_subscriptions", 1, atMost(0)},
	counted + 2: {"hadal_subscribed_names", 1, atMost(0)},
	counted + 3: {"hadal_presence_users", 1, atMost(0)},
	counted + 4: {"hadal_rpc_providers", 1, atMost(0)},
	counted + 5: {"hadal_listen_patterns", 1, atMost(0)},
	counted + 6: {"hadal_panics_total", 1, atMost(0)},
	counted + 7: {"hadal_record_append_errors_total", 1, atMost(0)},
}

// dirPeak is how large the data directory may be at any moment: the log may grow to
// 64 MiB before a checkpoint begins and goes on growing while it runs.
const dirPeak = 512 * mb

// read takes a reading. With collect the node collects its garbage first.
func read(ctx context.Context, n *target.Node, collect bool) (reading, error) {
	var r reading
	if collect {
		// Twice: what has a finalizer, or sits in a sync.Pool, goes with the second.
		for range 2 {
			if _, err := n.Ask(ctx, "/debug/pprof/heap?gc=1"); err != nil {
				return r, err
			}
		}
	}
	m, err := n.Metrics(ctx)
	if err != nil {
		return r, err
	}
	size, err := target.DirSize(n.DataDir)
	if err != nil {
		return r, err
	}
	r.values[heap], r.values[goroutines], r.values[descriptors] = m["go_memstats_heap_alloc_bytes"], m["go_goroutines"], m["process_open_fds"]
	r.values[rss], r.values[dataDir] = m["process_resident_memory_bytes"], float64(size)
	for i := counted; i < len(quantities); i++ {
		v, ok := m[quantities[i].name]
		if !ok {
			return r, fmt.Errorf("the node has no metric %s", quantities[i].name)
		}
		r.values[i] = v
	}
	return r, nil
}

// lowest is the least that was seen of each quantity within a time: a start that
// is taken too high would hide a leak.
func lowest(ctx context.Context, n *target.Node, rest time.Duration) (reading, error) {
	low, err := read(ctx, n, true)
	for end := time.Now().Add(rest); err == nil && time.Now().Before(end); {
		if err = target.Pause(ctx, time.Second); err != nil {
			break
		}
		var r reading
		if r, err = read(ctx, n, true); err == nil {
			for i := range r.values {
				low.values[i] = min(low.values[i], r.values[i])
			}
		}
	}
	low.when = "before"
	return low, err
}

// settle waits until the node is back within the bands, but no longer than
// patience, and returns the last reading.
func settle(ctx context.Context, n *target.Node, before reading, patience time.Duration) (reading, error) {
	for end := time.Now().Add(patience); ; {
		r, err := read(ctx, n, true)
		if err != nil || before.compare(r) == nil || time.Now().After(end) {
			return r, err
		}
		if err := target.Pause(ctx, time.Second); err != nil {
			return r, err
		}
	}
}

// compare is an error for every quantity that after has above its band.
func (before reading) compare(after reading) error {
	var errs []error
	for i, q := range quantities {
		if v, limit := after.values[i], before.values[i]+q.band(before.values[i]); v > limit {
			errs = append(errs, fmt.Errorf("%s: %s is %.1f, was %.1f before, at most %.1f", after.when, q.name, v/q.unit, before.values[i]/q.unit, limit/q.unit))
		}
	}
	return errors.Join(errs...)
}

// compareDir is compare for the data directory while it is used.
func (before reading) compareDir(top reading) error {
	if v := top.values[dataDir]; v > dirPeak {
		return fmt.Errorf("%s: the data directory was %.1f MB, at most %.1f", top.when, v/mb, dirPeak/mb)
	}
	return nil
}

// watch reads every second until the returned function is called, which returns the
// most that was seen of each quantity.
func watch(ctx context.Context, n *target.Node) (peak func() (reading, error)) {
	ctx, stop := context.WithCancel(ctx)
	var top reading
	var failed error
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			r, err := read(ctx, n, false)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				failed = err
				return
			}
			for i := range r.values {
				top.values[i] = max(top.values[i], r.values[i])
			}
			if target.Pause(ctx, time.Second) != nil {
				return // asked to stop
			}
		}
	})
	return func() (reading, error) {
		stop()
		wg.Wait()
		return top, failed
	}
}

func printReadings(out io.Writer, before reading, readings []reading) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "\t")
	for _, r := range readings {
		fmt.Fprintf(w, "%s\t", r.when)
	}
	fmt.Fprint(w, "at most\t\n")
	for i, q := range quantities {
		fmt.Fprintf(w, "%s\t", q.name)
		number := "%.0f\t"
		if q.unit != 1 {
			number = "%.1f\t"
		}
		for _, r := range readings {
			fmt.Fprintf(w, number, r.values[i]/q.unit)
		}
		fmt.Fprintf(w, number+"\n", (before.values[i]+q.band(before.values[i]))/q.unit)
	}
	return w.Flush()
}
