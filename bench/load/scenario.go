package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hadal/bench/target"
	"hadal/protocol"
)

// scenario is one kind of load.
type scenario struct {
	name, text string
	run        func(ctx context.Context, s settings, m *meter) error
	env        []string // of the node that is started for it
}

var scenarios = []scenario{
	{"fanout", "events from 1 publisher to all subscribers, 32 in flight; a delivery is a message", fanout(32), nil},
	{"fanout-1", "the same with 1 in flight", fanout(1), nil},
	{"pairs", "500 publishers with a subscriber each, 1 event in flight each", pairs, nil},
	{"write", "record writes without ack to 100 names, 400 in flight: 10 clients with 40 each (a HEAD behind every 10)", recordLoad{write, 10, 4, hotNames}.run, nil},
	{"write-uniform", "the same to many names", recordLoad{write, 10, 4, manyNames}.run, nil},
	{"write-ack", "record writes with ack to 100 names, 400 in flight: 100 clients with 4 each", recordLoad{writeAck, 100, 4, hotNames}.run, nil},
	{"write-ack-uniform", "the same to many names", recordLoad{writeAck, 100, 4, manyNames}.run, nil},
	{"read-cold", "record reads of many names, 1 MiB of them cached, 400 in flight: 100 clients with 4 each", recordLoad{read, 100, 4, manyNames}.run,
		[]string{"HADAL_RECORDS_CACHEBYTES=1048576"}},
	{"rpc", "50 callers of 50 procedures, 1 call in flight each", rpcs, nil},
	{"idle", "connections that logged in and do nothing", idle, nil},
}

// payload is 64 bytes of JSON.
var payload = `"` + strings.Repeat("x", 62) + `"`

// crew runs goroutines and keeps the first error that matters.
type crew struct {
	wg      sync.WaitGroup
	ending  atomic.Bool
	over    chan struct{} // closed when ending
	clients []*target.Client
	errs    chan error
}

func newCrew() *crew { return &crew{over: make(chan struct{}), errs: make(chan error, 1)} }

func (c *crew) run(f func() error) {
	c.wg.Go(func() {
		if err := f(); err != nil && !c.ending.Load() {
			select {
			case c.errs <- err:
			default:
			}
		}
	})
}

// connect makes n clients, several at a time.
func (c *crew) connect(ctx context.Context, s settings, prefix string, n int) ([]*target.Client, error) {
	made := make([]*target.Client, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	gate := make(chan struct{}, 32)
	for i := range n {
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			made[i], errs[i] = target.Connect(ctx, &net.Dialer{}, s.url, prefix+strconv.Itoa(i))
		})
	}
	wg.Wait()
	for _, cl := range made {
		if cl != nil {
			c.clients = append(c.clients, cl)
		}
	}
	return made, errors.Join(errs...)
}

// end closes everything and waits.
func (c *crew) end() error {
	c.ending.Store(true)
	close(c.over)
	for _, cl := range c.clients {
		_ = cl.Close() // being the end, not a failure
	}
	c.wg.Wait()
	select {
	case err := <-c.errs:
		return err
	default:
		return nil
	}
}

func event(a protocol.Action, name string) *protocol.Message {
	m := &protocol.Message{Topic: protocol.TopicEvent, Action: a}
	if a == protocol.EventEmit {
		m.Name, m.Data = name, payload
		return m
	}
	m.Names, m.CorrelationID = []string{name}, "0"
	return m
}

func fanout(window int) func(context.Context, settings, *meter) error {
	return func(ctx context.Context, s settings, m *meter) (err error) {
		c := newCrew()
		defer func() { err = errors.Join(err, c.end()) }()
		subscribers, err := c.connect(ctx, s, "s", s.count)
		if err != nil {
			return err
		}
		publisher, err := c.connect(ctx, s, "p", 1)
		if err != nil {
			return err
		}
		// left counts who has not got a message yet; messages come back in order,
		// so the window is a ring.
		left := make([]atomic.Int64, window)
		sent := make([]atomic.Int64, window)
		free := make(chan struct{}, window)
		for range window {
			free <- struct{}{}
		}
		for _, sub := range subscribers {
			if err := sub.Say(event(protocol.EventSubscribe, "e")); err != nil {
				return err
			}
			if _, err := sub.Until(protocol.EventSubscribe); err != nil {
				return err
			}
			c.run(func() error {
				for i := 0; ; i++ {
					if _, err := sub.Until(protocol.EventEmit); err != nil {
						return err
					}
					at := i % window
					if left[at].Add(-1) == 0 {
						m.done(s.count, time.UnixMicro(sent[at].Load()))
						free <- struct{}{}
					}
				}
			})
		}
		c.run(func() error {
			for i := 0; ; {
				for more := false; !more; { // all that is free, in one write
					select {
					case <-free:
					case <-c.over:
						return nil
					}
					left[i%window].Store(int64(s.count))
					sent[i%window].Store(time.Now().UnixMicro())
					publisher[0].Queue(event(protocol.EventEmit, "e"))
					i++
					more = len(free) == 0
				}
				if err := publisher[0].Flush(); err != nil {
					return err
				}
			}
		})
		return m.measure(ctx)
	}
}

func pairs(ctx context.Context, s settings, m *meter) (err error) {
	const n = 500
	c := newCrew()
	defer func() { err = errors.Join(err, c.end()) }()
	subscribers, err := c.connect(ctx, s, "s", n)
	if err != nil {
		return err
	}
	publishers, err := c.connect(ctx, s, "p", n)
	if err != nil {
		return err
	}
	for i, sub := range subscribers {
		name := "e" + strconv.Itoa(i)
		if err := sub.Say(event(protocol.EventSubscribe, name)); err != nil {
			return err
		}
		if _, err := sub.Until(protocol.EventSubscribe); err != nil {
			return err
		}
		c.run(func() error {
			emit := event(protocol.EventEmit, name)
			for {
				began := time.Now()
				if err := publishers[i].Say(emit); err != nil {
					return err
				}
				if _, err := sub.Until(protocol.EventEmit); err != nil {
					return err
				}
				m.done(1, began)
			}
		})
	}
	return m.measure(ctx)
}

func rpcs(ctx context.Context, s settings, m *meter) (err error) {
	const n = 50
	c := newCrew()
	defer func() { err = errors.Join(err, c.end()) }()
	providers, err := c.connect(ctx, s, "p", n)
	if err != nil {
		return err
	}
	callers, err := c.connect(ctx, s, "c", n)
	if err != nil {
		return err
	}
	for i, p := range providers {
		name := "f" + strconv.Itoa(i)
		err := p.Say(&protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCProvide, Names: []string{name}, CorrelationID: "0"})
		if err != nil {
			return err
		}
		if _, err := p.Until(protocol.RPCProvide); err != nil {
			return err
		}
		c.run(func() error { return provide(p) })
		c.run(func() error {
			for id := 0; ; id++ {
				began := time.Now()
				call := &protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCRequest, Name: name, CorrelationID: fmt.Sprint(i, "-", id), Data: payload}
				if err := callers[i].Say(call); err != nil {
					return err
				}
				if _, err := callers[i].Until(protocol.RPCResponse); err != nil {
					return err
				}
				m.done(1, began)
			}
		})
	}
	return m.measure(ctx)
}

// provide accepts and answers every call, as the official client does: in two
// messages.
func provide(p *target.Client) error {
	for {
		call, err := p.Until(protocol.RPCRequest)
		if err != nil {
			return err
		}
		answer := protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCAccept, Name: call.Name, CorrelationID: call.CorrelationID}
		p.Queue(&answer)
		answer.Action, answer.Data = protocol.RPCResponse, payload
		p.Queue(&answer)
		if err := p.Flush(); err != nil {
			return err
		}
	}
}

func idle(ctx context.Context, s settings, m *meter) (err error) {
	c := newCrew()
	defer func() { err = errors.Join(err, c.end()) }()
	if _, err := c.connect(ctx, s, "warm", 100); err != nil {
		return err
	}
	before, cpu, began := target.RSS(s.pid), target.CPU(s.pid), time.Now()
	if _, err := c.connect(ctx, s, "i", s.idle); err != nil {
		return err
	}
	took, used := time.Since(began), target.CPU(s.pid)-cpu
	if err := target.Pause(ctx, 3*time.Second); err != nil {
		return err
	}
	m.note = fmt.Sprintf("%d connections: %.1f KB each; %.0f logins/s, %.0f us server CPU each", s.idle,
		float64(target.RSS(s.pid)-before)/1024/float64(s.idle), float64(s.idle)/took.Seconds(), float64(used.Microseconds())/float64(s.idle))
	return nil
}
