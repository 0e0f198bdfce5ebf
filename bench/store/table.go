package main

import (
	"fmt"
	"io"
	"time"
)

// table prints each row as soon as it is known, for somebody who waits.
type table struct{ out io.Writer }

const rowFormat = "%-8s %-8s %-7s %7s %9s %7s %8s %8s %8s %7s %8s %7s %4s | %9s %6s %6s %6s %s\n"

func newTable(out io.Writer) *table {
	fmt.Fprintf(out, rowFormat, "store", "sync", "names", "writers", "ops/s", "cpu us", "p50 ms", "p99 ms", "p99.9 ms",
		"ops/app", "log MB", "dirty", "ckpt", "reference", "cpu us", "p50 ms", "p99 ms", "ops/s of it")
	return &table{out}
}

func (t *table) row(c *cell) {
	var ref [5]string
	if r := c.Reference; r != nil {
		verdict := ""
		if c.Ratio < 1/goal {
			verdict = fmt.Sprintf(" below 1/%.1f", goal)
		}
		ref = [5]string{fmt.Sprintf("%.0f", r.Ops), "", "", "", fmt.Sprintf("%.2f%s", c.Ratio, verdict)}
		if r.CPU > 0 {
			ref[1] = fmt.Sprintf("%.1f", r.CPU)
		}
		if r.P50 > 0 {
			ref[2], ref[3] = millis(r.P50), millis(r.P99)
		}
	}
	fmt.Fprintf(t.out, rowFormat, c.Store, c.Sync, c.Names, fmt.Sprint(c.Writers), fmt.Sprintf("%.0f", c.Ops), fmt.Sprintf("%.1f", c.CPU),
		millis(c.P50), millis(c.P99), millis(c.P999), fmt.Sprintf("%.0f", c.PerCall), fmt.Sprintf("%.1f", float64(c.LogBytes)/1e6),
		fmt.Sprint(c.Dirty), fmt.Sprint(c.Checkpoints), ref[0], ref[1], ref[2], ref[3], ref[4])
}

func millis(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d.Microseconds())/1000) }
