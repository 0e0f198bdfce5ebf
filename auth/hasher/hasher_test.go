package hasher

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/alexedwards/argon2id"
	"golang.org/x/crypto/bcrypt"
)

// serving is the argument with which these tests are the process that they start.
const serving = "serve"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == serving {
		if err := Serve(os.Stdin, os.Stdout); err != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// cheap is argon2id that costs nothing.
var cheap = argon2id.Params{Memory: 8, Iterations: 1, Parallelism: 1, SaltLength: 16, KeyLength: 32}

// elsewhere has hashes be computed by a process until the test ends.
func elsewhere(t *testing.T, pause time.Duration) (*process, *logs) {
	if !hasPriorities {
		t.Skip("hashes are computed in this process here: only Linux gives threads priorities")
	}
	log := &logs{}
	p := &process{path: "/proc/self/exe", args: []string{os.Args[0], serving}, log: slog.New(slog.NewTextHandler(log, nil)), pause: pause}
	t.Cleanup(start(p))
	return p, log
}

// running is the process there is.
func (p *process) running() *os.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client == nil {
		return nil
	}
	return p.cmd.Process
}

func TestHashesAreTheSameElsewhere(t *testing.T) {
	salt := []byte("a salt of 16 byt")
	key := Argon2id("pw", salt, cheap)
	derived, err := PBKDF2("sha256", "pw", "salt", 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	p, log := elsewhere(t, time.Hour)
	if got := Argon2id("pw", salt, cheap); !bytes.Equal(got, key) || len(key) != 32 {
		t.Errorf("argon2id: got %x, want %x", got, key)
	}
	if got, err := PBKDF2("sha256", "pw", "salt", 10, 32); err != nil || !bytes.Equal(got, derived) {
		t.Errorf("PBKDF2: got %x, %v, want %x", got, err, derived)
	}
	if _, err := PBKDF2("sha3", "pw", "salt", 10, 32); err == nil || err.Error() != `there is no digest "sha3"` {
		t.Errorf("PBKDF2 with a digest that there is not: got %v", err)
	}
	text, err := NewArgon2id("pw", cheap)
	if err != nil || !strings.HasPrefix(text, "$argon2id$v=19$m=8,t=1,p=1$") {
		t.Errorf("a new argon2id hash: got %q, %v", text, err)
	}
	if ok, err := argon2id.ComparePasswordAndHash("pw", text); err != nil || !ok {
		t.Errorf("%q is of the password: got %v, %v", text, ok, err)
	}
	hash, err := NewBcrypt([]byte("pw"), bcrypt.MinCost)
	if err != nil || !MatchesBcrypt(hash, []byte("pw")) || MatchesBcrypt(hash, []byte("pW")) || MatchesBcrypt(nil, nil) {
		t.Errorf("bcrypt: %q, %v does not match its password alone", hash, err)
	}
	if _, err := NewBcrypt(make([]byte, 73), bcrypt.MinCost); err == nil {
		t.Error("bcrypt hashed 73 bytes, of which it ignores one")
	}
	if p.running() == nil {
		t.Error("there is no process: all was computed here")
	}
	if log.text() != "" {
		t.Errorf("logged %s", log.text())
	}
}

func TestTheProcessHasALowerPriorityAndNoEnvironment(t *testing.T) {
	p, _ := elsewhere(t, time.Hour)
	Argon2id("pw", nil, cheap)
	theirs, err := niceness(p.running().Pid)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := niceness(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if want := min(ours+below, nicest); theirs != want {
		t.Errorf("its niceness is %d, want %d: this one has %d", theirs, want, ours)
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.running().Pid))
	if err != nil || len(environ) > 0 {
		t.Errorf("its environment: got %q, %v", environ, err)
	}
}

func TestALostProcessKeepsNobodyFromLoggingIn(t *testing.T) {
	p, log := elsewhere(t, time.Hour)
	salt := []byte("a salt of 16 byt")
	want := Argon2id("pw", salt, cheap)
	if err := p.running().Kill(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got := Argon2id("pw", salt, cheap); !bytes.Equal(got, want) {
			t.Errorf("after it was lost: got %x, want %x", got, want)
		}
	}
	if p.running() != nil {
		t.Error("another was started at once")
	}
	if !strings.Contains(log.text(), "was lost") {
		t.Errorf("logged %q", log.text())
	}
	p.mu.Lock()
	p.pause = 0
	p.mu.Unlock()
	if got := Argon2id("pw", salt, cheap); !bytes.Equal(got, want) {
		t.Errorf("of another: got %x, want %x", got, want)
	}
	if p.running() == nil {
		t.Error("no other was started when it was time")
	}
}

func TestWithoutAProcessHashesAreComputedHere(t *testing.T) {
	p, log := elsewhere(t, time.Hour)
	p.path = "/there/is/no/such/program"
	for range 3 {
		if got := Argon2id("pw", nil, cheap); len(got) != 32 {
			t.Errorf("got a key of %d bytes, want 32", len(got))
		}
	}
	if got := log.text(); strings.Count(got, "no other one could be started") != 1 {
		t.Errorf("logged %q, want it once", got)
	}
}

func TestTheProcessEndsWithItsInput(t *testing.T) {
	p, log := elsewhere(t, time.Hour)
	Argon2id("pw", nil, cheap)
	was := p.running()
	p.end()
	if err := was.Signal(syscall.Signal(0)); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("the process is still there: %v", err)
	}
	if got := Argon2id("pw", nil, cheap); len(got) != 32 || p.running() != nil {
		t.Error("what is asked afterwards is not computed here")
	}
	if log.text() != "" {
		t.Errorf("logged %s", log.text())
	}
}

func TestManyAskAtOnceWhileItIsLost(t *testing.T) {
	p, _ := elsewhere(t, 0)
	salt := []byte("a salt of 16 byt")
	want := Argon2id("pw", salt, cheap)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 50 {
				if got := Argon2id("pw", salt, cheap); !bytes.Equal(got, want) {
					t.Errorf("got %x, want %x", got, want)
				}
			}
			if was := p.running(); i == 0 && was != nil {
				if err := was.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

func BenchmarkElsewhere(b *testing.B) {
	p := &process{path: "/proc/self/exe", args: []string{os.Args[0], serving}, log: slog.New(slog.DiscardHandler)}
	defer start(p)()
	for b.Loop() {
		Argon2id("pw", nil, cheap)
	}
}

// logs is what was logged.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logs) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
