//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// patience is how long anything may take that ends by itself.
const patience = 60 * time.Second

// life is a victim as its parent sees it. Its events go into a ledger, which is the
// parent's again when the life has ended.
type life struct {
	cmd     *exec.Cmd
	said    bytes.Buffer  // what it wrote to stderr
	loading chan struct{} // closed when the last load begins that was asked for
	ended   chan struct{} // closed when it is gone and all it told is in the ledger
	err     error         // how it ended
}

// birth says how a victim shall live.
type birth struct {
	binary string
	dir    string
	seed   uint64
	mutant string
	check  bool // tell what is there, and end
	second bool // let a second owner take over; the load begins with it
}

// begin starts a victim.
func begin(b birth, l *ledger) (*life, error) {
	args := []string{"victim", "-dir", b.dir, "-seed", strconv.FormatUint(b.seed, 10)}
	loads := 1
	if b.check {
		args = append(args, "-check")
	}
	if b.second {
		args = append(args, "-second")
		loads = 2
	}
	events, end, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p := &life{cmd: exec.Command(b.binary, args...), loading: make(chan struct{}), ended: make(chan struct{})}
	p.cmd.Env = append(slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "HADAL_") }), "HADAL_MUTANT="+b.mutant)
	p.cmd.Stderr = &p.said
	p.cmd.ExtraFiles = []*os.File{end}
	// A victim that is stopped does not notice that its parent is gone.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, events.Close(), end.Close())
	}
	err = end.Close() // ours; the victim's is the last one
	go func() {
		defer close(p.ended)
		err := errors.Join(err, follow(events, l, loads, p.loading), events.Close())
		p.err = errors.Join(err, p.cmd.Wait())
		l.died()
	}()
	return p, nil
}

// follow puts events into the ledger until the victim's end, and closes loading at
// the last of so many loads.
func follow(events io.Reader, l *ledger, loads int, loading chan struct{}) error {
	in := bufio.NewReaderSize(events, 4096*eventSize)
	var b [eventSize]byte
	for {
		if _, err := io.ReadFull(in, b[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("the events end badly: %w", err)
		}
		e := parseEvent(b[:])
		l.take(e)
		if e.kind != loadBegins {
			continue
		}
		if loads--; loads == 0 {
			close(loading)
		}
	}
}

// await waits until the load has begun, or the victim has ended, which is an error.
func (p *life) await(ctx context.Context) error {
	select {
	case <-p.loading:
		return nil
	case <-p.ended:
		return p.fault()
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(patience):
		return violation(fmt.Sprintf("the store did not open in %v", patience))
	}
}

// fault is why a victim ended that should not have.
func (p *life) fault() error {
	return violation(fmt.Sprintf("the store does not go on, %v: %s", p.err, strings.TrimSpace(p.said.String())))
}

// lasts lets the victim live for a time. When it ends by itself that is an error.
func (p *life) lasts(ctx context.Context, d time.Duration) error {
	select {
	case <-p.ended:
		return p.fault()
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// kill ends the victim at once and returns when all it told is in the ledger.
func (p *life) kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.ended:
	case <-time.After(patience):
		return fmt.Errorf("the victim is still there %v after SIGKILL", patience)
	}
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		return p.fault()
	}
	return nil
}

// finish waits for a victim that ends by itself.
func (p *life) finish(ctx context.Context) error {
	select {
	case <-p.ended:
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), p.kill())
	case <-time.After(patience):
		return errors.Join(violation(fmt.Sprintf("the store did not open and close in %v", patience)), p.kill())
	}
	if p.err != nil {
		return p.fault()
	}
	return nil
}

// freeze stops the victim, and returns when none of its threads runs.
func (p *life) freeze() error {
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	give := time.Now().Add(patience)
	for {
		running, err := p.running()
		if err != nil || !running {
			return err
		}
		if time.Now().After(give) {
			return fmt.Errorf("the victim is not stopped %v after SIGSTOP", patience)
		}
		<-time.After(time.Millisecond)
	}
}

// running says whether any thread is not stopped: one in the middle of an fsync
// ends it first.
func (p *life) running() (bool, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		return false, errors.Join(err, errors.New("the victim has no threads"))
	}
	for _, name := range threads {
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended since
		}
		if err != nil {
			return false, err
		}
		// "12 (a name) T ...": the state follows the last parenthesis.
		if state := b[bytes.LastIndexByte(b, ')')+1:]; len(state) < 2 || state[1] != 'T' {
			return true, nil
		}
	}
	return false, nil
}
