package jetstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"hadal/store"
	"hadal/store/storetest"
)

// victimEnv makes this test binary append to the store in a directory until it
// is killed.
const victimEnv = "HADAL_TEST_KILL_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimEnv); dir != "" {
		if err := victim(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// batchNames are written together, always at one version.
var batchNames = []string{"batch/a", "batch/b", "batch/c", "batch/d"}

// write is round i of the victim: a batch, a record alone, and a record that
// comes and goes.
func write(i int32) [][]store.Op {
	var batch []store.Op
	for _, name := range batchNames {
		batch = append(batch, storetest.Put(name, i, fmt.Sprintf(`{"i":%d}`, i)))
	}
	comes := storetest.Put("comes", i, `{}`)
	if i%2 == 0 {
		comes = storetest.Delete("comes")
	}
	return [][]store.Op{append(batch, comes), {storetest.Put("alone", i, fmt.Sprintf(`{"i":%d}`, i))}}
}

// victim appends rounds, going on where the store ends, and says each one that
// was acknowledged.
func victim(dir string) error {
	t := &panics{}
	srv, nc := startServer(t, dir, true)
	defer srv.Shutdown()
	ctx := context.Background()
	s, err := victimStore(ctx, nc, dir)
	if err != nil {
		return err
	}
	if err := s.Fence(ctx, 1); err != nil {
		return err
	}
	last := int32(0)
	r, err := s.Load(ctx, "alone")
	switch {
	case err == nil:
		last = r.Version
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	for i := last + 1; ; i++ {
		for _, ops := range write(i) {
			if err := s.Append(ctx, ops); err != nil {
				return err
			}
		}
		fmt.Println(i)
	}
}

// loggedFile in its directory gives the victim a LOG.
const loggedFile = "logged"

func victimStore(ctx context.Context, nc *nats.Conn, dir string) (store.Store, error) {
	opts := Options{Mark: filepath.Join(dir, "mark"), compactAt: 5}
	if _, err := os.Stat(filepath.Join(dir, loggedFile)); err != nil {
		return Open(ctx, nc, opts)
	}
	return OpenLogged(ctx, nc, LogOptions{Options: opts, LogMark: filepath.Join(dir, "mark-log"), CheckpointAge: 2 * time.Millisecond})
}

// panics stands in for a test in the victim.
type panics struct{ testing.TB }

func (*panics) Helper()                        {}
func (*panics) Fatal(v ...any)                 { panic(fmt.Sprint(v...)) }
func (*panics) Fatalf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }
func (*panics) Errorf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }
func (*panics) Output() io.Writer              { return os.Stderr }

func TestKillLosesNothingAcknowledgedAndTearsNoBatch(t *testing.T) {
	t.Parallel()
	killRounds(t, t.TempDir(), func(r *rig) store.Store { return r.store(t) })
}

func TestKillLosesNothingOfTheLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, loggedFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	killRounds(t, dir, func(r *rig) store.Store {
		l := &logRig{rig: r, opts: LogOptions{CheckpointAge: time.Hour}}
		return l.store(t)
	})
}

// killRounds lets victims work on a directory, kills them, and looks each time
// what open finds.
func killRounds(t *testing.T, dir string, open func(*rig) store.Store) {
	t.Helper()
	total := int32(0)
	for round := range 10 {
		acked := killVictim(t, dir, 1+rand.IntN(30), total)
		r := &rig{dir: dir, sync: true}
		r.start(t)
		s := open(r)
		if err := s.Fence(t.Context(), 1); err != nil {
			t.Fatalf("round %d: Fence: %v", round, err)
		}
		versions := make(map[string]store.Record)
		if err := s.Scan(t.Context(), "", func(r store.Record) error { versions[r.Name] = r; return nil }); err != nil {
			t.Fatalf("round %d: Scan: %v", round, err)
		}
		batch, alone := versions["batch/a"].Version, versions["alone"].Version
		for _, name := range batchNames {
			if r := versions[name]; r.Version != batch || r.Data != fmt.Sprintf(`{"i":%d}`, batch) {
				t.Errorf("round %d: %s is %v, batch/a at %d: a torn batch", round, name, r, batch)
			}
		}
		if _, there := versions["comes"]; there != (batch%2 == 1) {
			t.Errorf("round %d: the record that comes and goes is there: %v, at batch %d", round, there, batch)
		}
		// One append was under way, and the acknowledgement of the round before
		// may have been lost with the pipe.
		if batch < acked || alone < acked || batch != alone && batch != alone+1 {
			t.Errorf("round %d: acknowledged %d, found batch %d and alone %d", round, acked, batch, alone)
		}
		total = alone
		if err := s.Close(); err != nil {
			t.Errorf("round %d: Close: %v", round, err)
		}
		r.stop(t)
	}
}

// killVictim lets a victim have n rounds acknowledged, beginning after total,
// kills it, and returns the last one that it said.
func killVictim(t *testing.T, dir string, n int, total int32) (acked int32) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimEnv+"="+dir)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	acked = total
	for i := 0; lines.Scan(); i++ {
		v, err := strconv.Atoi(lines.Text())
		if err != nil || int32(v) != acked+1 {
			t.Errorf("the victim said %q after %d, %v", lines.Text(), acked, err)
		}
		acked = int32(v)
		if i+1 == n {
			// At a moment of its own choosing: it is already in the next round.
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != -1 {
		t.Fatalf("the victim ended with %v: %s", err, said.String())
	}
	return acked
}
