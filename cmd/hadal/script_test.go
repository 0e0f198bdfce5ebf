package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"hadal/auth"
	"hadal/cluster/freeport"
)

// patience is how long a script waits for a node. It is not reached unless
// something is broken.
const patience = time.Minute

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"hadal": main}) }

// TestScripts runs the commands as they are typed.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Values[nodeKey{}] = &background{}
			// A program with the race detector sleeps a second at its end.
			e.Setenv("GORACE", "atexit_sleep_ms=0")
			for name, path := range map[string]string{"EXAMPLES": "../../examples", "DUMP": "../../store/deepstream/testdata/dump.rdb"} {
				path, err := filepath.Abs(path)
				if err != nil {
					return err
				}
				e.Setenv(name, path)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":   expectCode,
			"damage": damageFile,
			"emit":   emitEvent,
			"hashes": expectHash,
			"mode":   expectMode,
			"node":   nodeCommand,
			"port":   freePort,
			"same":   expectSameLines,
		},
	})
}

// expectCode is `code N command…`: it fails unless the command exits with N.
func expectCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N command...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

// damageFile is `damage FILE TEXT`: it changes a bit of the text in the file.
func damageFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: damage FILE TEXT")
	}
	name := ts.MkAbs(args[0])
	b, err := os.ReadFile(name)
	ts.Check(err)
	i := bytes.Index(b, []byte(args[1]))
	if i < 0 {
		ts.Fatalf("%q is not in %s", args[1], name)
	}
	b[i] ^= 1
	ts.Check(os.WriteFile(name, b, 0o600))
}

// expectHash is `hashes PASSWORD [digest iterations keyLength]`: it fails unless
// a user whose stored password is the last output can log in with PASSWORD.
func expectHash(ts *testscript.TestScript, neg bool, args []string) {
	o := auth.Options{Users: map[string]auth.Entry{"u": {Password: strings.TrimSuffix(ts.ReadFile("stdout"), "\n")}}}
	if len(args) == 4 {
		o.Hash = args[1]
		var err error
		if o.Iterations, err = strconv.Atoi(args[2]); err == nil {
			o.KeyLength, err = strconv.Atoi(args[3])
		}
		ts.Check(err)
	}
	a, err := auth.New([]auth.Config{{Type: "file", Options: o}}, false, auth.Deps{})
	ts.Check(err)
	v, err := a.Authenticate(context.Background(), &auth.Attempt{Params: fmt.Sprintf(`{"username":"u","password":%q}`, args[0])})
	ts.Check(err)
	if got := v.Opinion == auth.Accepted; got == neg {
		ts.Fatalf("password %q logs in: %v", args[0], got)
	}
}

// expectMode is `mode 0600 FILE`.
func expectMode(ts *testscript.TestScript, neg bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%#o", info.Mode().Perm()); (got == args[0]) == neg {
		ts.Fatalf("%s has mode %s", args[1], got)
	}
}

// freePort is `port`: it sets ADMIN to a loopback address that is the script's.
func freePort(ts *testscript.TestScript, _ bool, _ []string) {
	addrs, release, err := freeport.Claim(1)
	ts.Check(err)
	ts.Defer(release)
	ts.Setenv("ADMIN", addrs[0])
}

// expectSameLines is `same FILE FILE`: the lines are equal, in whatever order.
func expectSameLines(ts *testscript.TestScript, neg bool, args []string) {
	var files [2][]string
	for i := range files {
		files[i] = slices.Sorted(strings.Lines(ts.ReadFile(args[i])))
	}
	if slices.Equal(files[0], files[1]) == neg {
		ts.Fatalf("%q\n%q", files[0], files[1])
	}
}

type nodeKey struct{}

// background is the node of a script.
type background struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended

	mu   sync.Mutex
	text []byte        // what it wrote and nobody awaited yet; guarded by mu
	more chan struct{} // closed at the next write; guarded by mu
}

// Write takes what the node says.
func (b *background) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p...)
	close(b.more)
	b.more = make(chan struct{})
	return len(p), nil
}

// seen drops everything up to text from what the node has said, if it is in
// there. If not, it returns a channel that is closed when there is more.
func (b *background) seen(text string) (bool, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, after, ok := bytes.Cut(b.text, []byte(text)); ok {
		b.text = after
		return true, nil
	}
	return false, b.more
}

// nodeCommand runs one node in the background:
//
//	node start [args…]   start it
//	node await TEXT      wait until it says TEXT, after what was awaited before
//	node signal NAME     TERM, INT, HUP or KILL
//	node wait CODE       wait until it ends with that code
func nodeCommand(ts *testscript.TestScript, neg bool, args []string) {
	b := ts.Value(nodeKey{}).(*background)
	if neg || len(args) < 1 {
		ts.Fatalf("usage: node start|await|silent|signal|wait")
	}
	switch args[0] {
	case "start":
		b.start(ts, args[1:])
	case "await":
		limit := time.After(patience)
		for {
			ok, more := b.seen(args[1])
			if ok {
				return
			}
			select {
			case <-more:
			case <-b.done:
				if ok, _ := b.seen(args[1]); ok {
					return
				}
				ts.Fatalf("the node ended before it said %q; it said:\n%s", args[1], b.text)
			case <-limit:
				ts.Fatalf("the node does not say %q; it says:\n%s", args[1], b.text)
			}
		}
	case "silent": // the node has not said it so far
		if said, _ := b.seen(args[1]); said {
			ts.Fatalf("the node said %q:\n%s", args[1], b.text)
		}
	case "signal":
		ts.Check(b.cmd.Process.Signal(map[string]syscall.Signal{
			"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP, "KILL": syscall.SIGKILL,
		}[args[1]]))
	case "wait":
		select {
		case <-b.done:
		case <-time.After(patience):
			ts.Fatalf("the node does not end; it says:\n%s", b.text)
		}
		if got := strconv.Itoa(b.cmd.ProcessState.ExitCode()); got != args[1] {
			ts.Fatalf("the node ended with %s, want %s; it said:\n%s", got, args[1], b.text)
		}
	default:
		ts.Fatalf("there is no node %s", args[0])
	}
}

func (b *background) start(ts *testscript.TestScript, args []string) {
	if b.done != nil {
		select {
		case <-b.done:
		default:
			ts.Fatalf("the node runs already")
		}
	}
	program := ""
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, "hadal")); err == nil {
			program = filepath.Join(dir, "hadal")
			break
		}
	}
	b.cmd = exec.Command(program, append([]string{"start"}, args...)...)
	b.cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "ADMIN", "GORACE"} {
		b.cmd.Env = append(b.cmd.Env, name+"="+ts.Getenv(name))
	}
	b.cmd.Stderr = b
	b.mu.Lock()
	b.text, b.more = nil, make(chan struct{})
	b.mu.Unlock()
	b.done = make(chan struct{})
	ts.Check(b.cmd.Start())
	cmd, done := b.cmd, b.done
	go func() {
		// The state is read by those who wait for done; the error repeats it.
		_ = cmd.Wait()
		close(done)
	}()
	ts.Defer(func() {
		_ = cmd.Process.Kill() // it may have ended long ago
		<-done
	})
}
