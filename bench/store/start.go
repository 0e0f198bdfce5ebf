package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"time"

	"hadal/bench/target"
	"hadal/node/admin"
	"hadal/store"
)

// startSize is the size of a record's JSON in the measurement of a start, and
// startBatch how many changes stand in a message of the LOG.
const (
	startSize  = 200
	startBatch = 500
)

// What a child process does.
const (
	childFill  = "fill"
	childServe = "serve"
)

// started is one start, in JSON as a child reports it.
type started struct {
	What    string        `json:"what"`
	Server  time.Duration `json:"server,omitempty"` // until the embedded server is up and the streams are open
	Fence   time.Duration `json:"fence,omitempty"`  // both fences and the replay
	Read    time.Duration `json:"read"`             // the first one of a record that is in STATE only
	Write   time.Duration `json:"write"`            // the first one
	Total   time.Duration `json:"total"`            // from the start of the process
	CPU     time.Duration `json:"cpu"`              // of the process, until then
	RSS     int64         `json:"rss"`              // bytes, then
	Dir     int64         `json:"dir"`              // bytes of the data directory, before
	Records int           `json:"records"`
	Tail    int           `json:"tail"`
}

// measureStart fills a data directory in one process, kills it with SIGKILL, and
// starts another on what it left. The page cache stays warm, as after a crash of
// the process alone.
func measureStart(ctx context.Context, s settings, out io.Writer) (err error) {
	dir, err := os.MkdirTemp(s.dir, "hadal-start-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	fmt.Fprintf(os.Stderr, "filling %d records of %d bytes, then %d changes\n", s.records, startSize, s.tail)
	if _, err := child(ctx, s, dir, childFill); err != nil {
		return err
	}
	begin := func(ctx context.Context) (started, error) { return child(ctx, s, dir, childServe) }
	if err := report(ctx, s, dir, begin, out); err != nil || s.node == "" {
		return err
	}
	return report(ctx, s, dir, func(ctx context.Context) (started, error) { return startNode(ctx, s, dir) }, out)
}

// report does one start and prints what it took.
func report(ctx context.Context, s settings, dir string, begin func(context.Context) (started, error), out io.Writer) error {
	size, err := target.DirSize(dir)
	if err != nil {
		return err
	}
	st, err := begin(ctx)
	if err != nil {
		return err
	}
	st.Dir, st.Records, st.Tail = size, s.records, s.tail
	if s.json {
		err = json.NewEncoder(out).Encode(st)
	} else {
		_, err = fmt.Fprintf(out, "%s after kill -9: %v until the first read and write (server %v, fence and replay %v, read %v, write %v), CPU %v, RSS %d MB, data dir %d MB\n",
			st.What, round(st.Total), round(st.Server), round(st.Fence), round(st.Read), round(st.Write), st.CPU, st.RSS/1e6, st.Dir/1e6)
	}
	if err == nil && s.limit > 0 && st.Total > s.limit {
		err = fmt.Errorf("%s took %v to start, at most %v", st.What, round(st.Total), s.limit)
	}
	return err
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

// child runs this program again in a process of its own, waits for its report, and
// kills it.
func child(ctx context.Context, s settings, dir, what string) (st started, err error) {
	binary, err := os.Executable()
	if err != nil {
		return st, err
	}
	profile := ""
	if what == childServe {
		profile = s.cpu
	}
	cmd := exec.CommandContext(ctx, binary, "--child", what, "--cpu-profile", profile, "--dir", dir, "--sync", s.sync,
		"--records", strconv.Itoa(s.records), "--tail", strconv.Itoa(s.tail))
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return st, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return st, err
	}
	line, err := bufio.NewReader(pipe).ReadBytes('\n')
	took := time.Since(began)
	if err != nil {
		return st, errors.Join(fmt.Errorf("the process that should %s: %w", what, err), cmd.Wait())
	}
	cpu, rss := target.CPU(cmd.Process.Pid), target.RSS(cmd.Process.Pid)
	if err := cmd.Process.Kill(); err != nil {
		return st, err
	}
	// It was killed, so its end is an error that says so.
	if err := cmd.Wait(); cmd.ProcessState == nil {
		return st, err
	}
	err = json.Unmarshal(line, &st)
	st.What, st.Total, st.CPU, st.RSS = "store", took, cpu, rss
	return st, err
}

// runChild is what such a process does. It ends by being killed.
func runChild(ctx context.Context, s settings, out io.Writer) (err error) {
	r := &rig{dir: s.dir}
	defer func() { err = errors.Join(err, r.close()) }()
	var st started
	switch s.child {
	case childFill:
		err = r.fill(ctx, s)
	case childServe:
		err = profiled(s.cpu, func() (err error) {
			st, err = r.serve(ctx, s)
			return err
		})
	default:
		err = fmt.Errorf("--child: there is no %q", s.child)
	}
	if err == nil {
		err = json.NewEncoder(out).Encode(st)
	}
	if err == nil {
		<-ctx.Done()
	}
	return err
}

// fill carries the records over to STATE and leaves the tail in the LOG.
func (r *rig) fill(ctx context.Context, s settings) error {
	if err := r.open(ctx, s, "log-only"); err != nil {
		return err
	}
	names := make([]string, s.records)
	for i := range names {
		names[i] = startName(i)
	}
	if err := fill(ctx, r.store, names, startSize); err != nil {
		return err
	}
	if err := r.checkpoint(ctx); err != nil {
		return err
	}
	var ops []store.Op
	for n, i := range tailOf(s) {
		ops = append(ops, store.Op{Record: store.Record{Name: startName(i), Version: int32(n + 1), Data: string(jsonOf(startSize))}})
		if len(ops) == startBatch || n == s.tail-1 {
			if err := r.store.Append(ctx, ops); err != nil {
				return err
			}
			ops = ops[:0]
		}
	}
	return nil
}

func startName(i int) string { return "users/" + strconv.Itoa(i) }

// tailOf is which records the tail changes, in order: any but the first, which is
// read from STATE. A change's version is its place in here, from 1.
func tailOf(s settings) []int {
	random := rand.New(rand.NewPCG(1, 2))
	tail := make([]int, s.tail)
	for n := range tail {
		tail[n] = 1 + random.IntN(max(s.records-1, 1))
	}
	return tail
}

// serve opens the store, reads and writes.
func (r *rig) serve(ctx context.Context, s settings) (st started, err error) {
	began := time.Now()
	lap := func() time.Duration {
		d := time.Since(began)
		began = began.Add(d)
		return d
	}
	if err := r.open(ctx, s, "log"); err != nil {
		return st, err
	}
	st.Fence = r.fenced
	st.Server = lap() - r.fenced
	cold, err := r.store.Load(ctx, startName(0))
	if err != nil {
		return st, err
	}
	if cold.Version != 0 || len(cold.Data) != startSize {
		return st, fmt.Errorf("read version %d with %d bytes of %s", cold.Version, len(cold.Data), cold.Name)
	}
	st.Read = lap()
	err = r.store.Append(ctx, []store.Op{{Record: store.Record{Name: "users/new", Version: 1, Data: "{}"}}})
	if err != nil {
		return st, err
	}
	st.Write = lap()
	tail := tailOf(s)
	last, err := r.store.Load(ctx, startName(tail[len(tail)-1]))
	if err == nil && int(last.Version) != s.tail {
		err = fmt.Errorf("the last change of %s is version %d, read %d", last.Name, s.tail, last.Version)
	}
	return st, err
}

// startNode starts a whole node on the directory and reads and writes through its
// admin socket.
func startNode(ctx context.Context, s settings, dir string) (st started, err error) {
	began := time.Now()
	n, err := target.StartNode(ctx, s.node, dir, "HADAL_RECORDS_SYNC="+s.sync)
	if err != nil {
		return st, err
	}
	defer func() { err = errors.Join(err, n.Stop()) }()
	st.What, st.Server = "node", time.Since(began)
	c := admin.OverSocket(n.Socket)
	defer c.Close()
	reading := time.Now()
	if _, err := c.Get(ctx, startName(0)); err != nil {
		return st, err
	}
	st.Read = time.Since(reading)
	writing := time.Now()
	if _, err := c.Set(ctx, "users/new", `{}`); err != nil {
		return st, err
	}
	st.Write, st.Total, st.CPU, st.RSS = time.Since(writing), time.Since(began), target.CPU(n.PID), target.RSS(n.PID)
	tail := tailOf(s)
	last, err := c.Get(ctx, startName(tail[len(tail)-1]))
	if err == nil && int(last.Version) != s.tail {
		err = fmt.Errorf("the last change of %s is version %d, the node reads %d: does it know the LOG?", last.Name, s.tail, last.Version)
	}
	return st, err
}
