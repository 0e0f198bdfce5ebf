package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// launched is a peer: a server of another kind. Its command starts one that lets everybody
// in, on loopback and a port of its own, and writes to its standard output
//
//	about=WHAT IT IS
//	url=ws://127.0.0.1:PORT/PATH
//
// when clients may come. It must be the server's process itself, whose CPU and memory are
// measured, and end on SIGTERM. When the scenario needs rules, BENCH_RULES names a file with
// them, in deepstream's form.
type launched struct{ Peer }

// launchIn is how long a peer may take to start, or to stop.
const launchIn = time.Minute

func (p launched) name() string { return p.Name }

func (p launched) fits(sc *Scenario) string {
	switch {
	case sc.own || sc.Nodes > 1:
		return "it needs several nodes"
	case sc.Config != "":
		return "it needs a node with its own configuration"
	}
	return ""
}

func (p launched) start(ctx context.Context, sc *Scenario) (*server, error) {
	dir, err := os.MkdirTemp("", "hadal-peer-")
	if err != nil {
		return nil, err
	}
	var env []string
	if sc.Rules != "" {
		file := filepath.Join(dir, rulesFile)
		if err := os.WriteFile(file, []byte(sc.Rules), 0o600); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
		env = []string{"BENCH_RULES=" + file}
	}
	srv, err := launch(ctx, p.Name, strings.Fields(p.Command), env)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the peer %s: %w", p.Name, err), os.RemoveAll(dir))
	}
	stop := srv.stop
	srv.stop = func() error { return errors.Join(stop(), os.RemoveAll(dir)) }
	return srv, nil
}

// launch runs a command until it says its URL.
func launch(ctx context.Context, name string, args, env []string) (*server, error) {
	if len(args) == 0 {
		return nil, errors.New("no command")
	}
	starting, started := context.WithTimeout(ctx, launchIn)
	defer started()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = launchIn
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	type place struct{ about, url string }
	said := make(chan place, 1)
	var reading sync.WaitGroup
	reading.Go(func() {
		lines := bufio.NewScanner(out)
		var p place
		for lines.Scan() { // to the end: a full pipe would stop it
			if about, ok := strings.CutPrefix(lines.Text(), "about="); ok {
				p.about = about
			}
			if url, ok := strings.CutPrefix(lines.Text(), "url="); ok && p.url == "" {
				p.url = url
				said <- p
			}
		}
		close(said)
	})
	stop := func() error {
		err := cmd.Process.Signal(syscall.SIGTERM)
		if errors.Is(err, os.ErrProcessDone) {
			err = nil
		}
		late := time.AfterFunc(launchIn, func() { _ = cmd.Process.Kill() }) // it may have ended at last
		defer late.Stop()
		reading.Wait()
		if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() > 0 {
			return fmt.Errorf("%s: %w", name, err)
		}
		return err
	}
	select {
	case at, ok := <-said:
		if !ok {
			return nil, errors.Join(errors.New("it ended without saying its URL"), stop())
		}
		return newServer(TargetFacts{Name: name, About: at.about}, []string{at.url}, []int{cmd.Process.Pid}, stop), nil
	case <-starting.Done():
		return nil, errors.Join(fmt.Errorf("it does not say its URL: %w", starting.Err()), stop())
	}
}
