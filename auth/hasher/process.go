package hasher

import (
	"errors"
	"io"
	"log/slog"
	"net/rpc"
	"os"
	"os/exec"
	"sync"
	"time"
)

const (
	// service is the name of hashes on the wire.
	service = "Hashes"
	// pause is how long after a process was started the next one may be: a program that
	// ends at once is not started for every login.
	pause = 10 * time.Second
	// patience is how long a process that is told to end may take; it has nothing to do
	// by then.
	patience = 5 * time.Second
)

// process is where hashes are computed, once there is one.
type process struct {
	path  string
	args  []string // from that which names the program
	log   *slog.Logger
	pause time.Duration

	mu      sync.Mutex
	ended   bool        // guarded by mu, like all below
	client  *rpc.Client // nil while there is none
	cmd     *exec.Cmd   // client's
	started time.Time   // when the last one was
}

var (
	mu  sync.RWMutex
	one *process // guarded by mu
)

// Start has hashes be computed by a process of its own from now on: this program, which
// calls Serve when it is run with args. What goes wrong with it is logged. It must not be
// called again before end has been, which ends the process and has hashes be computed
// here again. Where priorities are not those of Linux it does nothing.
func Start(log *slog.Logger, args ...string) (end func()) {
	if !hasPriorities {
		return func() {}
	}
	// The link leads to what runs, whatever has been put in its place meanwhile.
	return start(&process{path: "/proc/self/exe", args: append([]string{os.Args[0]}, args...), log: log, pause: pause})
}

func start(p *process) (end func()) {
	set := func(to *process) {
		mu.Lock()
		defer mu.Unlock()
		one = to
	}
	set(p)
	return func() {
		set(nil)
		p.end()
	}
}

// Serve answers what is asked on in, until it ends.
func Serve(in io.Reader, out io.Writer) error {
	s := rpc.NewServer()
	if err := s.RegisterName(service, hashes{}); err != nil {
		return err
	}
	s.ServeConn(pipe{in, out, func() error { return nil }})
	return nil
}

// ask has name be computed by the process, or by here when there is none.
func ask[In, Out any](name string, here func(hashes, In, *Out) error, in In) (out Out, err error) {
	mu.RLock()
	p := one
	mu.RUnlock()
	if p != nil {
		if c := p.connect(); c != nil {
			var answer Out
			err := c.Call(service+"."+name, in, &answer)
			var its rpc.ServerError
			if err == nil || errors.As(err, &its) {
				return answer, err
			}
			p.lost(c, err)
		}
	}
	err = here(hashes{}, in, &out)
	return out, err
}

// connect returns the process that there is, or starts one. It is nil when it cannot.
func (p *process) connect() *rpc.Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client != nil || p.ended || !p.started.IsZero() && time.Since(p.started) < p.pause {
		return p.client
	}
	p.started = time.Now()
	if err := p.start(); err != nil {
		p.log.Warn("passwords are hashed in this process, which slows it for everybody: no other one could be started", "err", err)
	}
	return p.client
}

// start starts a process. The caller holds mu.
func (p *process) start() error {
	cmd := exec.Command(p.path)
	cmd.Args, cmd.Env = p.args, []string{} // the node's environment has secrets in it
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return errors.Join(err, in.Close())
	}
	if err := startBelow(cmd); err != nil {
		return errors.Join(err, in.Close(), out.Close())
	}
	p.client, p.cmd = rpc.NewClient(pipe{out, in, in.Close}), cmd
	return nil
}

// lost forgets a process that could not be asked, and says why.
func (p *process) lost(c *rpc.Client, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client != c {
		return // another has said it
	}
	p.log.Warn("the process that hashes passwords was lost: they are hashed in this one until it is started again", "err", errors.Join(err, p.close()))
}

// close ends the process there is. The caller holds mu.
func (p *process) close() error {
	if p.client == nil {
		return nil
	}
	err := p.client.Close() // its input, on which it ends
	if errors.Is(err, rpc.ErrShutdown) {
		err = nil // it has ended already
	}
	p.client = nil
	late := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() }) // an error is that it has ended
	defer late.Stop()
	return errors.Join(err, p.cmd.Wait())
}

func (p *process) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	if err := p.close(); err != nil {
		p.log.Warn("the process that hashes passwords did not end well", "err", err)
	}
}

// pipe is two pipes as one connection.
type pipe struct {
	io.Reader
	io.Writer
	close func() error
}

func (p pipe) Close() error { return p.close() }
