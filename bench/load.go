package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hadal/bench/target"
	"hadal/protocol"
)

// load is the clients of one measurement, and what they need.
type load struct {
	Settings
	scenario *Scenario
	server   *server
	clients  int
	window   int     // closed loop; 0 in an open one
	rate     float64 // open loop
	meter    *meter
	rand     *rand.Rand // of setup

	dueSent    atomic.Int64 // open loop: what has been sent
	sentBefore int64        // of that, before the measured time
	extra      atomic.Int64 // messages that a scenario counts itself
	dialed     atomic.Int64 // connections so far

	working sync.WaitGroup
	ending  atomic.Bool
	over    chan struct{} // closed when the clients end
	failed  chan error    // the first error

	mu        sync.Mutex
	conns     []*target.Client
	streams   []*stream
	senders   []*sender
	receivers []*receiver
	facts     []Fact
}

func newLoad(s Settings, sc *Scenario, srv *server) *load {
	l := &load{
		Settings: s, scenario: sc, server: srv, clients: sc.Clients, window: sc.Window, rate: sc.Rate,
		rand: rand.New(rand.NewPCG(s.Seed, 0)), over: make(chan struct{}), failed: make(chan error, 1),
	}
	if s.Clients > 0 {
		l.clients = s.Clients
	}
	l.clients = max(int(float64(l.clients)*s.Scale), 1)
	switch {
	case s.Window > 0:
		l.window, l.rate = s.Window, 0
	case s.Rate > 0:
		l.window, l.rate = 0, s.Rate
	}
	l.meter = &meter{server: srv, messages: l.messages, latency: newHistogram(), lag: newHistogram()}
	return l
}

// messages is how many there were so far.
func (l *load) messages() int64 {
	n := l.extra.Load()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.receivers {
		n += r.counted.Load()
	}
	return n
}

// done counts a message that was not heard by a receiver; it took some nanoseconds, or with
// -1 nobody knows.
func (l *load) done(i int, took int64) {
	l.extra.Add(1)
	if took >= 0 {
		l.meter.latency[i%shards].record(took)
	}
}

func (l *load) fact(name string, value float64, unit string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.facts = append(l.facts, Fact{name, value, unit})
}

// goes runs f on a goroutine that is waited for. Its error ends the measurement, unless the
// clients are ending.
func (l *load) goes(f func() error) {
	l.working.Go(func() {
		if err := f(); err != nil && !l.ending.Load() {
			select {
			case l.failed <- err:
			default: // the first one is enough
			}
		}
	})
}

// dial logs one client in, at node number at. It is closed with the load, unless its
// owner closes it.
func (l *load) dial(ctx context.Context, at int, user string) (*target.Client, error) {
	u := l.server.urls[at%len(l.server.urls)]
	d := &net.Dialer{}
	if parsed, err := url.Parse(u); err == nil && parsed.Hostname() == "127.0.0.1" {
		d = target.From(int(l.dialed.Add(1)))
	}
	return target.Login(ctx, d, u, l.login(user))
}

// login is what a client sends to log in.
func (l *load) login(user string) string {
	params := map[string]string{"username": user}
	if l.User != "" {
		params["username"] = l.User
	}
	if l.Password != "" {
		params["password"] = l.Password
	}
	if l.Token != "" {
		params = map[string]string{"token": l.Token}
	}
	b, err := json.Marshal(params)
	if err != nil {
		panic(err) // it is text
	}
	return string(b)
}

// atOnce is how many clients log in at a time.
const atOnce = 32

// spare is how many descriptors beside those of connections are enough.
const spare = 200

// enough is an error if this process, and with it what it starts, may not have n connections.
func enough(n int) error {
	if limit := descriptors(); limit > 0 && n+spare > limit {
		return fmt.Errorf("%d connections need as many descriptors, here and in the server, and `ulimit -Hn` says %d: raise it, or say --scale", n, limit)
	}
	return nil
}

// connect logs n clients in, spread over the nodes.
func (l *load) connect(ctx context.Context, prefix string, n int) ([]*target.Client, error) {
	if err := enough(n); err != nil {
		return nil, err
	}
	made := make([]*target.Client, n)
	err := each(n, atOnce, func(i int) (err error) {
		if err = ctx.Err(); err == nil {
			made[i], err = l.dial(ctx, i, prefix+strconv.Itoa(i))
		}
		return err
	})
	for _, c := range made {
		if c != nil {
			l.keep(c)
		}
	}
	return made, err
}

// keep has the load close a client, and send its heartbeats.
func (l *load) keep(c *target.Client) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, c)
}

// each does f for every i below n, some at a time.
func each(n, atATime int, f func(i int) error) error {
	errs := make([]error, n)
	gate := make(chan struct{}, atATime)
	var wg sync.WaitGroup
	for i := range n {
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			errs[i] = f(i)
		})
	}
	wg.Wait()
	return firstOf(errs)
}

// firstOf is the first error and how many there are: ten thousand of a kind tell no more.
func firstOf(errs []error) error {
	var first error
	n := 0
	for _, err := range errs {
		if err != nil {
			n++
			if first == nil {
				first = err
			}
		}
	}
	if n > 1 {
		return fmt.Errorf("%w (and %d more like it)", first, n-1)
	}
	return first
}

// heartbeat is how often clients ping: more often than servers ask for.
const heartbeat = 15 * time.Second

// beat sends the heartbeats of all clients until they end.
func (l *load) beat() error {
	every := time.NewTicker(heartbeat)
	defer every.Stop()
	for {
		select {
		case <-l.over:
			return nil
		case <-every.C:
		}
		l.mu.Lock()
		conns := l.conns[:len(l.conns):len(l.conns)]
		l.mu.Unlock()
		for _, c := range conns {
			_ = c.Ping() // of a connection that is lost its reader knows more
		}
	}
}

// steady drives the senders of the load, as it is: most scenarios do.
func (l *load) steady(ctx context.Context) error {
	if l.rate > 0 {
		return l.open(ctx)
	}
	return l.closed(ctx)
}

// comesIn is how long the last messages may be under way.
const comesIn = 30 * time.Second

// drain waits until all that was sent has arrived, or nothing more comes.
func (l *load) drain(ctx context.Context) error {
	give := time.Now().Add(comesIn)
	for {
		var due, arrived int64
		for _, r := range l.receivers {
			arrived += r.arrived.Load()
			for _, s := range r.seen { // the map does not change any more
				due += int64(s.sent.Load())
			}
		}
		if arrived >= due || time.Now().After(give) {
			return nil
		}
		if err := target.Pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// end closes all clients and waits for whoever reads them.
func (l *load) end() error {
	l.ending.Store(true)
	close(l.over)
	l.mu.Lock()
	conns := l.conns
	l.mu.Unlock()
	for _, c := range conns {
		_ = c.Close() // being the end, not a failure
	}
	l.working.Wait()
	select {
	case err := <-l.failed:
		return err
	default:
		return nil
	}
}

// ledger is what became of the messages; the receivers have ended.
func (l *load) ledger() Ledger {
	var g Ledger
	for _, st := range l.streams {
		g.Sent += int64(st.sent.Load())
	}
	for _, r := range l.receivers {
		g.Duplicated += r.duplicated
		g.OutOfOrder += r.outOfOrder
		for _, s := range r.seen {
			sent := s.sent.Load()
			lost := int64(len(s.missing)) + int64(sent-s.next)
			g.Due += int64(sent)
			g.Lost += lost
			g.Delivered += int64(sent) - lost
		}
	}
	return g
}

// data is JSON text of the size asked for, with the placeholder: a text, or an object for
// a record.
func (l *load) data(record bool) string {
	before, after := `"`, `"`
	if record {
		before, after = `{"`+recordField+`":"`, `"}`
	}
	return before + placeholder + strings.Repeat("x", max(l.Size-stampSize-len(before)-len(after), 0)) + after
}

// ask says something and waits for the answer with that action, on a client that nobody
// reads yet.
func ask(c *target.Client, m *protocol.Message, answer protocol.Action) error {
	if err := c.Say(m); err != nil {
		return err
	}
	_, err := c.Until(answer)
	return err
}

// subscribe subscribes a client to names of a topic.
func subscribe(c *target.Client, topic protocol.Topic, names ...string) error {
	m := &protocol.Message{Topic: topic, Action: protocol.EventSubscribe, Names: names, CorrelationID: "0"}
	if topic == protocol.TopicRecord {
		m.Action = protocol.RecordSubscribe
	}
	return ask(c, m, m.Action)
}

var errStill = errors.New("nothing arrives any more: the server, or a closed loop, stands still")
